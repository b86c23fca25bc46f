// Parsing of trace lines: CSV by hand, JSON through simdjson.
#include "sim/traffic/trace_line.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>

#include "base/hash.h"

namespace heng {

namespace {

using simdjson::dom::element;
using simdjson::dom::object;

constexpr double kSecondsMax = 4e9;          // until the year 2096; in nanoseconds it still fits
constexpr std::uint32_t kPieceTokens = 512;  // of Mooncake's hash ids
constexpr std::size_t kUnknownKeysMax = 20;
constexpr std::string_view kKeys[] = {"arrival_s", "timestamp",     "prompt_tokens", "input_length",
                                      "input",     "output_tokens", "output_length", "output",
                                      "session",   "client",        "user",          "stream",
                                      "hash_ids",  "hash_ids_b16",  "block_tokens",  "prefix"};
constexpr std::string_view kAzureHeading = "TIMESTAMP,ContextTokens,GeneratedTokens";

std::unexpected<Error> wrong(std::string message) { return fail(ErrorCode::invalid, std::move(message)); }

/// Whole seconds and the rest apart: nanoseconds since 1970 do not fit into a double.
Result<Duration> span_of(double seconds) {
  if (!(std::abs(seconds) <= kSecondsMax)) return wrong(fmt::format("the time {} is out of range", seconds));
  const double whole = std::floor(seconds);
  return std::chrono::seconds(static_cast<std::int64_t>(whole)) +
         Duration(std::llround((seconds - whole) * 1e9));
}

Result<std::uint32_t> token_count(double number, std::string_view what) {
  if (!(number >= 0 && number <= kTrafficTokensMax && number == std::floor(number))) {
    return wrong(
        fmt::format("{} is {}; a number of tokens is whole and at most {}", what, number, kTrafficTokensMax));
  }
  return static_cast<std::uint32_t>(number);
}

Result<std::uint32_t> parse_tokens(std::string_view text, std::string_view what) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    return wrong(fmt::format("{} is not a whole number: '{}'", what, text.substr(0, 40)));
  }
  return token_count(number, what);
}

/// Digits at `at`, as many as `count`; -1 if there are others.
int digits(std::string_view text, std::size_t at, std::size_t count) {
  int number = 0;
  if (at + count > text.size()) return -1;
  for (const char c : text.substr(at, count)) {
    if (c < '0' || c > '9') return -1;
    number = number * 10 + (c - '0');
  }
  return number;
}

/// "2023-11-16 18:17:03.9799600", with up to nine places and, at the end, nothing, "Z" or "+00:00".
std::optional<Duration> parse_time(std::string_view text) {
  using namespace std::chrono;
  if (text.ends_with("+00:00")) text.remove_suffix(6);
  if (text.ends_with('Z')) text.remove_suffix(1);
  constexpr std::string_view kForm = "0000-00-00 00:00:00";
  if (text.size() < kForm.size()) return std::nullopt;
  for (std::size_t i = 0; i < kForm.size(); ++i) {
    const bool fits = kForm[i] == '0' ? text[i] >= '0' && text[i] <= '9'
                                      : text[i] == kForm[i] || (i == 10 && text[i] == 'T');
    if (!fits) return std::nullopt;
  }
  const year_month_day day(year(digits(text, 0, 4)), month(static_cast<unsigned>(digits(text, 5, 2))),
                           std::chrono::day(static_cast<unsigned>(digits(text, 8, 2))));
  const int years = digits(text, 0, 4);  // in nanoseconds others do not fit
  const int hour = digits(text, 11, 2), minute = digits(text, 14, 2), second = digits(text, 17, 2);
  if (!day.ok() || years < 1970 || years > 2095 || hour > 23 || minute > 59 || second > 60)
    return std::nullopt;
  const std::string_view rest = text.substr(kForm.size());
  std::int64_t ns = 0;
  if (!rest.empty()) {
    if (rest[0] != '.' || rest.size() < 2 || rest.size() > 10) return std::nullopt;
    ns = digits(rest, 1, rest.size() - 1);
    if (ns < 0) return std::nullopt;
    for (std::size_t place = rest.size(); place < 10; ++place) ns *= 10;
  }
  return sys_days(day).time_since_epoch() + hours(hour) + minutes(minute) + seconds(second) + Duration(ns);
}

/// The first of the names that the object has; an error value if none.
simdjson::simdjson_result<element> first_of(const object& from,
                                            std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    auto found = from.at_key(name);
    if (found.error() != simdjson::NO_SUCH_FIELD) return found;
  }
  return simdjson::NO_SUCH_FIELD;
}

Result<double> number_of(const object& from, std::initializer_list<std::string_view> names) {
  const auto found = first_of(from, names);
  double number = 0;
  if (found.error() != simdjson::SUCCESS) return wrong(fmt::format("`{}` is missing", *names.begin()));
  if (found.get_double().get(number) != simdjson::SUCCESS)
    return wrong(fmt::format("`{}` is not a number", *names.begin()));
  return number;
}

/// Numbers and strings alike name things.
std::optional<std::uint64_t> name_of(element value) {
  std::string_view text;
  std::int64_t number = 0;
  if (value.get_string().get(text) == simdjson::SUCCESS) return hash_bytes(text);
  if (value.get_int64().get(number) == simdjson::SUCCESS) return mix(static_cast<std::uint64_t>(number));
  return std::nullopt;
}

Result<void> read_hash_ids(const object& line, TrafficRequest& out) {
  std::uint32_t tokens = kPieceTokens;
  auto ids = line.at_key("hash_ids");
  if (ids.error() == simdjson::NO_SUCH_FIELD) {
    ids = line.at_key("hash_ids_b16");
    tokens = 16;
  } else if (line.at_key("block_tokens").error() == simdjson::SUCCESS) {
    const auto number = number_of(line, {"block_tokens"});
    if (!number) return std::unexpected(number.error());
    const auto size = token_count(*number, "`block_tokens`");
    if (!size) return std::unexpected(size.error());
    if (*size == 0) return wrong("`block_tokens` must be at least 1");
    tokens = *size;
  }
  if (ids.error() == simdjson::NO_SUCH_FIELD) return {};
  if (!out.pieces.empty())
    return wrong("both `prefix` and `hash_ids` tell what the prompt consists of; leave one out");
  simdjson::dom::array list;
  if (ids.get_array().get(list) != simdjson::SUCCESS) return wrong("`hash_ids` is not a list");
  std::uint32_t left = out.prompt_tokens;
  for (const element id : list) {
    const auto name = name_of(id);
    if (!name) return wrong("`hash_ids` holds something that is neither a whole number nor a text");
    if (left == 0) break;  // more ids than the prompt has blocks: those of the answer
    out.pieces.push_back({*name, std::min(tokens, left)});
    left -= out.pieces.back().tokens;
  }
  return {};
}

/// [[id, tokens], ...]
Result<void> read_prefix(const object& line, TrafficRequest& out) {
  const auto prefix = line.at_key("prefix");
  if (prefix.error() == simdjson::NO_SUCH_FIELD) return {};
  constexpr const char* kForm = "`prefix` is a list of pairs like [[\"system\", 800], [\"chat-7\", 2100]]";
  simdjson::dom::array list;
  if (prefix.get_array().get(list) != simdjson::SUCCESS) return wrong(kForm);
  std::uint64_t total = 0;
  for (const element item : list) {
    simdjson::dom::array pair;
    if (item.get_array().get(pair) != simdjson::SUCCESS || pair.size() != 2) return wrong(kForm);
    const auto name = name_of(pair.at(0).value_unsafe());
    double tokens = 0;
    if (!name || pair.at(1).get_double().get(tokens) != simdjson::SUCCESS) return wrong(kForm);
    const auto count = token_count(tokens, "the length of a piece of `prefix`");
    if (!count) return std::unexpected(count.error());
    total += *count;
    if (total > 2 * std::uint64_t{kTrafficTokensMax}) return wrong("`prefix` is too long");
    out.pieces.push_back({*name, *count});
  }
  return {};
}

Result<bool> read_request(const object& line, TrafficRequest& out) {
  const bool in_ms = line.at_key("timestamp").error() == simdjson::SUCCESS;
  const auto time = in_ms ? number_of(line, {"timestamp"}) : number_of(line, {"arrival_s"});
  if (!time) return std::unexpected(time.error());
  const auto at = span_of(in_ms ? *time / 1000 : *time);
  if (!at) return std::unexpected(at.error());
  out.at = *at;
  const auto prompt = number_of(line, {"prompt_tokens", "input_length", "input"});
  const auto output = number_of(line, {"output_tokens", "output_length", "output"});
  if (!prompt || !output) return std::unexpected(!prompt ? prompt.error() : output.error());
  const auto prompt_count = token_count(*prompt, "the prompt's length");
  const auto output_count = token_count(*output, "the answer's length");
  if (!prompt_count || !output_count)
    return std::unexpected(!prompt_count ? prompt_count.error() : output_count.error());
  out.prompt_tokens = *prompt_count;
  out.output_tokens = *output_count;
  if (const auto client = first_of(line, {"session", "client", "user"}); client.error() == simdjson::SUCCESS)
    out.client = name_of(client.value_unsafe()).value_or(0);
  if (const auto stream = line.at_key("stream"); stream.error() == simdjson::SUCCESS) {
    bool streamed = false;
    if (stream.get_bool().get(streamed) != simdjson::SUCCESS)
      return wrong("`stream` is neither true nor false");
    out.stream = streamed;
  }
  if (const auto read = read_prefix(line, out); !read) return std::unexpected(read.error());
  if (const auto read = read_hash_ids(line, out); !read) return std::unexpected(read.error());
  return true;
}

/// Refused requests reached no worker, and nothing is known of their length.
Result<bool> read_access(const object& line, TrafficRequest& out) {
  std::string_view end, client;
  if (line.at_key("end").get_string().get(end) != simdjson::SUCCESS) return wrong("`end` is missing");
  const auto time = number_of(line, {"time"}), took = number_of(line, {"duration_ms"});
  const auto prompt = number_of(line, {"prompt_tokens"}), output = number_of(line, {"output_tokens"});
  const auto bytes = number_of(line, {"bytes_in"});
  for (const auto* number : {&time, &took, &prompt, &output, &bytes}) {
    if (!*number) return std::unexpected(number->error());
  }
  if (end == "refused" || (*prompt == 0 && *bytes == 0)) return false;
  const auto at = span_of(*time - *took / 1000);
  if (!at) return std::unexpected(at.error());
  out.at = *at;
  // A worker that reported no usage: about four bytes are a token.
  const auto prompt_count = token_count(*prompt > 0 ? *prompt : std::ceil(*bytes / 4), "`prompt_tokens`");
  const auto output_count = token_count(*output, "`output_tokens`");
  if (!prompt_count || !output_count)
    return std::unexpected(!prompt_count ? prompt_count.error() : output_count.error());
  out.prompt_tokens = *prompt_count;
  out.output_tokens = *output_count;
  if (line.at_key("client").get_string().get(client) == simdjson::SUCCESS) {
    out.client = hash_bytes(client);
  }
  // Of an answer that never came, or was an error, it tells nothing.
  bool streamed = false;
  const bool good = end == "completed" && number_of(line, {"status"}).value_or(0) < 400;
  if (good && line.at_key("stream").get_bool().get(streamed) == simdjson::SUCCESS) out.stream = streamed;
  return true;
}

}  // namespace

struct TraceLineReader::Json {
  simdjson::dom::parser parser;
};

TraceLineReader::TraceLineReader(TraceFormat format) : format_(format), json_(std::make_unique<Json>()) {}
TraceLineReader::~TraceLineReader() = default;
TraceLineReader::TraceLineReader(TraceLineReader&&) noexcept = default;

std::optional<TraceFormat> recognise_trace(std::string_view first_line) {
  if (first_line == kAzureHeading) return TraceFormat::azure;  // columns are read by their place
  if (!first_line.starts_with('{')) return std::nullopt;
  const bool ours = first_line.contains("\"duration_ms\"") && first_line.contains("\"bytes_in\"");
  return ours ? TraceFormat::access_log : TraceFormat::json_lines;
}

Result<bool> TraceLineReader::read(std::string_view line, TrafficRequest& out) {
  out.pieces.clear();
  out.client = 0;
  out.stream.reset();
  if (line.find_first_not_of(" \t") == line.npos) return false;
  return format_ == TraceFormat::azure ? read_azure(line, out) : read_json(line, out);
}

Result<bool> TraceLineReader::read_azure(std::string_view line, TrafficRequest& out) const {
  if (line == kAzureHeading) return false;
  const std::size_t first = line.find(','), second = line.find(',', first + 1);
  if (first == line.npos || second == line.npos || line.find(',', second + 1) != line.npos) {
    return wrong(fmt::format("expected {}", kAzureHeading));
  }
  const auto at = parse_time(line.substr(0, first));
  if (!at) {
    return wrong(fmt::format("'{}' is not a time like 2023-11-16 18:17:03.9799600",
                             line.substr(0, std::min<std::size_t>(first, 40))));
  }
  const auto prompt = parse_tokens(line.substr(first + 1, second - first - 1), "ContextTokens");
  const auto output = parse_tokens(line.substr(second + 1), "GeneratedTokens");
  if (!prompt || !output) return std::unexpected(!prompt ? prompt.error() : output.error());
  out.at = *at;
  out.prompt_tokens = *prompt;
  out.output_tokens = *output;
  return true;
}

Result<bool> TraceLineReader::read_json(std::string_view line, TrafficRequest& out) {
  element document;
  if (const auto error = json_->parser.parse(line.data(), line.size()).get(document)) {
    return wrong(fmt::format("not JSON: {}", simdjson::error_message(error)));
  }
  object fields;
  if (document.get_object().get(fields) != simdjson::SUCCESS) return wrong("expected a JSON object");
  if (format_ == TraceFormat::access_log) return read_access(fields, out);
  for (const auto field : fields) {
    const bool known =
        std::ranges::count(kKeys, field.key) + std::ranges::count(unknown_keys_, field.key) > 0;
    if (!known && unknown_keys_.size() < kUnknownKeysMax) unknown_keys_.emplace_back(field.key);
  }
  return read_request(fields, out);
}

}  // namespace heng
