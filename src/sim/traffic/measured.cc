// Parsing of measurements: what traces have in common with them, and the times.
#include "sim/traffic/measured.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "sim/traffic/line_file.h"
#include "sim/traffic/trace_line.h"

namespace heng {

namespace {

using simdjson::dom::object;

constexpr double kSecondsMax = 1e7;  // of one request

std::unexpected<Error> wrong(std::string message) { return fail(ErrorCode::invalid, std::move(message)); }

std::optional<double> number_of(const object& line, std::string_view key) {
  double number = 0;
  if (line.at_key(key).get_double().get(number) != simdjson::SUCCESS) return std::nullopt;
  return number;
}

/// Texts and numbers alike name things.
std::string name_of(const object& line, std::string_view key) {
  std::string_view text;
  std::int64_t number = 0;
  const auto value = line.at_key(key);
  if (value.get_string().get(text) == simdjson::SUCCESS) return std::string(text);
  return value.get_int64().get(number) == simdjson::SUCCESS ? std::to_string(number) : "";
}

/// Seconds from arrival to the first token and to the last one.
Result<void> read_times(const object& line, MeasuredRequest& out) {
  const auto ttft_ms = number_of(line, "ttft_ms"), duration_ms = number_of(line, "duration_ms");
  double ttft = 0, duration = 0;
  if (ttft_ms && duration_ms) {
    // The engine's own times begin where the wait in a gateway ends.
    const double waited = number_of(line, "queued_ms").value_or(0) / 1e3;
    if (!(waited >= 0 && waited <= kSecondsMax))
      return wrong(fmt::format("`queued_ms` is {}: out of range", waited * 1e3));
    ttft = *ttft_ms / 1e3 - waited;
    duration = *duration_ms / 1e3 - waited;
    out.request.at += from_seconds(waited);
  } else {
    const auto queued = number_of(line, "queued_s"), first = number_of(line, "first_token_s"),
               last = number_of(line, "last_token_s");
    if (!queued || !first || !last)
      return wrong(
          "a measurement needs `ttft_ms` and `duration_ms`, or `queued_s`, `first_token_s` and "
          "`last_token_s`");
    ttft = *first - *queued;
    duration = *last - *queued;
    out.request.at = from_seconds(*queued);
  }
  if (!(ttft > 0 && duration >= ttft && duration <= kSecondsMax))
    return wrong(
        fmt::format("the first token after {} s, the last after {} s: that cannot be", ttft, duration));
  out.ttft = from_seconds(ttft);
  out.duration = from_seconds(duration);
  return {};
}

}  // namespace

struct MeasuredLineReader::Json {
  simdjson::dom::parser parser;
  TraceLineReader trace{TraceFormat::json_lines};
};

MeasuredLineReader::MeasuredLineReader() : json_(std::make_unique<Json>()) {}
MeasuredLineReader::~MeasuredLineReader() = default;

Result<bool> MeasuredLineReader::read(std::string_view line, MeasuredLine& out) {
  out = {};
  const Result<bool> request = json_->trace.read(line, out.measured.request);
  if (!request || !*request) return request;
  simdjson::dom::element document;
  object fields;
  if (json_->parser.parse(line.data(), line.size()).get(document) != simdjson::SUCCESS ||
      document.get_object().get(fields) != simdjson::SUCCESS) {
    return wrong("expected a JSON object");
  }
  if (const std::string end = name_of(fields, "end"); !end.empty() && end != "completed") return false;
  if (const auto queued = number_of(fields, "queued_s"); queued && !(std::abs(*queued) <= 4e9))
    return wrong(fmt::format("`queued_s` is {}: out of range", *queued));
  if (const auto times = read_times(fields, out.measured); !times) return std::unexpected(times.error());
  const double cached = number_of(fields, "cached_tokens").value_or(0);
  if (!(cached >= 0 && cached <= out.measured.request.prompt_tokens))
    return wrong(
        fmt::format("`cached_tokens` is {}, of a prompt of {}", cached, out.measured.request.prompt_tokens));
  if (out.measured.request.prompt_tokens == 0) return wrong("a prompt has at least one token");
  if (!out.measured.request.stream.value_or(true))
    return wrong("`stream` is false: a whole answer does not tell when its first token came");
  out.measured.cached_tokens = static_cast<std::uint32_t>(cached);
  out.run = name_of(fields, "run");
  if (out.run.empty()) out.run = name_of(fields, "policy");
  out.worker = name_of(fields, "worker");
  return true;
}

Result<std::vector<MeasuredRun>> read_measured(std::span<const std::string> paths,
                                               const MeasuredChoice& choice) {
  std::map<std::string, MeasuredRun> runs;
  std::set<std::string> named;
  MeasuredLineReader reader;
  MeasuredLine measured;
  for (const std::string& path : paths) {
    auto file = LineFile::open(path);
    if (!file) return std::unexpected(file.error());
    for (std::string_view line;;) {
      const Result<bool> more = file->next(line);
      if (!more) return std::unexpected(more.error());
      if (!*more) break;
      const Result<bool> read = reader.read(line, measured);
      if (!read) return std::unexpected(file->mistake(read.error().message));
      if (!*read) continue;
      if (!measured.run.empty()) named.insert(measured.run);
      if (!choice.run.empty() && measured.run != choice.run) continue;
      if (!choice.worker.empty() && measured.worker != choice.worker) continue;
      const std::string name = fmt::format("{} {} {}", path, measured.run, measured.worker);
      runs[name].requests.push_back(std::move(measured.measured));
    }
  }
  if (runs.empty() && !named.empty())
    return wrong(fmt::format("nothing is left to fit; the runs are: {}", fmt::join(named, ", ")));
  if (runs.empty()) return wrong("the files hold no completed request");
  if (choice.run.empty() && named.size() > 1)
    return wrong(fmt::format("several runs; choose one with --run: {}", fmt::join(named, ", ")));
  std::vector<MeasuredRun> all;
  for (auto& [name, run] : runs) {
    run.name = name;
    std::ranges::stable_sort(run.requests, {}, [](const MeasuredRequest& one) { return one.request.at; });
    const Duration start = run.requests.front().request.at;
    for (MeasuredRequest& one : run.requests) one.request.at -= start;
    all.push_back(std::move(run));
  }
  return all;
}

}  // namespace heng
