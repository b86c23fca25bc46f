// Each kind's members are listed once, in each_member, for writing and for reading.
#include "host/event_log.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <type_traits>

#include "flow/api_error.h"

namespace heng {

namespace {

using Kind = LogLine::Kind;
using Event = PoolEvent::Kind;

struct KindName {
  std::string_view name;
  Kind kind;
  Event event = Event::tick;
};

constexpr KindName kKinds[] = {
    {"run", Kind::run},
    {"pool", Kind::pool},
    {"worker", Kind::worker},
    {"request", Kind::request},
    {"done", Kind::done},
    {"pool_end", Kind::pool_end},
    {"add", Kind::event, Event::add},
    {"weight", Kind::event, Event::set_weight},
    {"remove", Kind::event, Event::remove},
    {"eligible", Kind::event, Event::set_eligible},
    {"drained", Kind::event, Event::set_drained},
    {"ramp", Kind::event, Event::set_ramp},
    {"reported", Kind::event, Event::set_reported},
    {"limit", Kind::event, Event::set_limit},
    {"pool_limit", Kind::event, Event::set_pool_limit},
    {"elsewhere", Kind::event, Event::set_elsewhere},
    {"reserve", Kind::event, Event::reserve},
    {"reserve_on", Kind::event, Event::reserve_on},
    {"first_byte", Kind::event, Event::first_byte},
    {"end", Kind::event, Event::end},
    {"tick", Kind::event, Event::tick},
    {"load", Kind::event, Event::report_load},
};

constexpr std::string_view kDo = "do";
constexpr std::size_t kHashDigits = 16;

template <class Members, class Attempt>
void each_member_of_attempt(Members& members, Attempt& attempt) {
  members("request", attempt.request);
  members("elapsed", attempt.elapsed);
  members("ttft", attempt.time_to_first_byte);
  members("prompt_tokens", attempt.prompt_tokens);
}

template <class Members, class Pool>
void each_member_of_event(Members& members, Pool& event) {
  switch (event.kind) {
    case Event::add:
      members("identity", event.identity);
      [[fallthrough]];
    case Event::set_weight:
      members("worker", event.worker);
      members("weight", event.weight);
      return members("capacity", event.capacity);
    case Event::remove:
      return members("worker", event.worker);
    case Event::set_eligible:
      members("usable", event.usable);
      [[fallthrough]];
    case Event::set_drained:
      members("worker", event.worker);
      return members("yes", event.yes);
    case Event::set_ramp:
      members("worker", event.worker);
      return members("share", event.weight);
    case Event::set_reported:
      members("worker", event.worker);
      members("read", event.reported.at);
      members("running", event.reported.running);
      members("waiting", event.reported.waiting);
      return members("kv_used", event.reported.kv_used);
    case Event::set_limit:
    case Event::set_elsewhere:
      members("worker", event.worker);
      [[fallthrough]];
    case Event::set_pool_limit:
      return members("limit", event.limit);
    case Event::reserve_on:
      members("bound", event.yes);
      [[fallthrough]];
    case Event::reserve:
      members("worker", event.worker);
      members("asked", event.asked);
      members("request", event.request.id);
      members("affinity", event.request.affinity);
      members("prompt_tokens", event.request.prompt_tokens);
      members("max_tokens", event.request.output_tokens_max);
      members("stream", event.request.stream);
      members("block_tokens", event.request.block_tokens);
      return members("prefix", event.request.prefix);
    case Event::first_byte:
      members("worker", event.worker);
      return each_member_of_attempt(members, event.attempt);
    case Event::end:
      members("worker", event.worker);
      each_member_of_attempt(members, event.attempt);
      members.if_known("cached_tokens", event.attempt.cached_tokens);
      members("output_tokens", event.attempt.output_tokens);
      return members("outcome", event.attempt.outcome);
    case Event::tick:
      return;
    case Event::report_load:
      members("worker", event.worker);
      members("asked", event.asked);
      return members("load", event.weight);
  }
}

template <class Members, class Line>
void each_member(Members& members, Line& line) {
  members("process", line.process);
  members("at", line.at);
  const bool of_pool = line.kind != Kind::run && line.kind != Kind::request && line.kind != Kind::done;
  if (of_pool) members("pool", line.pool);
  switch (line.kind) {
    case Kind::run:
      members("version", line.version);
      members("time", line.time_s);
      return members("program", line.name);
    case Kind::pool:
      members("model", line.name);
      members("policy", line.policy);
      members("options", line.options);
      return members("seed", line.seed);
    case Kind::worker:
      members("worker", line.event.worker);
      return members("name", line.name);
    case Kind::request:
      members("request", line.request);
      return members("id", line.name);
    case Kind::done:
      return members("request", line.request);
    case Kind::event:
      return each_member_of_event(members, line.event);
    case Kind::pool_end:
      return;
  }
}

/// Numbers so that reading gives the same bits; those with the default value of their type are left out.
class Writer {
 public:
  explicit Writer(std::string& text) : text_(text) {}

  template <class T>
  void operator()(std::string_view key, const T& value) {
    if (is_default(value)) return;
    text_ += text_.back() == '{' ? "\"" : ",\"";
    text_ += key;
    text_ += "\":";
    put(value);
  }
  /// A negative number is not known; 0 is.
  void if_known(std::string_view key, double value) {
    if (value == 0) {
      fmt::format_to(std::back_inserter(text_), R"(,"{}":0)", key);
    } else if (value > 0) {
      (*this)(key, value);
    }
  }

 private:
  template <class T>
  static bool is_default(const T& value) {
    if constexpr (std::is_same_v<T, Slot>)
      return value == kNoSlot;
    else if constexpr (std::is_same_v<T, Instant>)
      return false;
    else if constexpr (requires { value.empty(); })
      return value.empty();
    else
      return value == T{};
  }
  void put(std::string_view text) { text_ += json_quote(text); }
  void put(bool) { text_ += "true"; }
  void put(Instant at) { put(at.time_since_epoch().count()); }
  void put(Duration span) { put(span.count()); }
  void put(Outcome outcome) { put(static_cast<unsigned>(outcome)); }
  void put(double number) { fmt::format_to(std::back_inserter(text_), "{}", number); }
  void put(float number) { put(static_cast<double>(number)); }
  template <std::integral T>
  void put(T number) {
    const fmt::format_int digits(number);
    text_.append(digits.data(), digits.size());
  }
  /// One text of 16 digits each: shorter than numbers, and no reader rounds them.
  void put(std::span<const std::uint64_t> hashes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    text_ += '"';
    const std::size_t begin = text_.size();
    text_.resize(begin + hashes.size() * kHashDigits);
    char* out = text_.data() + begin;
    for (const std::uint64_t hash : hashes) {
      for (int shift = 60; shift >= 0; shift -= 4) *out++ = kDigits[hash >> shift & 15];
    }
    text_ += '"';
  }
  void put(const std::vector<std::pair<std::string, double>>& options) {
    text_ += '{';
    for (const auto& [key, value] : options) {
      if (text_.back() != '{') text_ += ',';
      text_ += json_quote(key);
      text_ += ':';
      put(value);
    }
    text_ += '}';
  }

  std::string& text_;
};

/// The counterpart; what is not there keeps its default.
class Reader {
 public:
  Reader(simdjson::dom::object from, std::vector<std::uint64_t>& hashes) : from_(from), hashes_(hashes) {}

  template <class T>
  void operator()(std::string_view key, T& value) {
    const auto found = from_.at_key(key);
    if (found.error() == simdjson::SUCCESS && !take(found.value_unsafe(), value) && wrong_.empty())
      wrong_ = key;
  }
  void if_known(std::string_view key, double& value) { (*this)(key, value); }
  const std::string& wrong() const { return wrong_; }

 private:
  using Element = simdjson::dom::element;
  static bool take(Element from, bool& value) { return from.get_bool().get(value) == simdjson::SUCCESS; }
  static bool take(Element from, double& value) { return from.get_double().get(value) == simdjson::SUCCESS; }
  static bool take(Element from, float& value) {
    double number = 0;
    if (!take(from, number)) return false;
    value = static_cast<float>(number);
    return true;
  }
  static bool take(Element from, std::uint64_t& value) {
    return from.get_uint64().get(value) == simdjson::SUCCESS;
  }
  static bool take(Element from, std::uint32_t& value) {
    std::uint64_t number = 0;
    if (!take(from, number) || number > UINT32_MAX) return false;
    value = static_cast<std::uint32_t>(number);
    return true;
  }
  static bool take(Element from, Duration& value) {
    std::int64_t ns = 0;
    if (from.get_int64().get(ns) != simdjson::SUCCESS) return false;
    value = Duration(ns);
    return true;
  }
  static bool take(Element from, Instant& value) {
    Duration since{};
    if (!take(from, since)) return false;
    value = Instant(since);
    return true;
  }
  static bool take(Element from, Outcome& value) {
    std::uint64_t number = 0;
    if (!take(from, number) || number > static_cast<std::uint64_t>(Outcome::canceled)) return false;
    value = static_cast<Outcome>(number);
    return true;
  }
  static bool take(Element from, std::string& value) {
    std::string_view text;
    if (from.get_string().get(text) != simdjson::SUCCESS) return false;
    value = text;
    return true;
  }
  bool take(Element from, std::span<const std::uint64_t>& value) {
    std::string_view text;
    if (from.get_string().get(text) != simdjson::SUCCESS || text.size() % kHashDigits != 0) return false;
    hashes_.clear();
    for (; !text.empty(); text.remove_prefix(kHashDigits)) {
      const char* const end = text.data() + kHashDigits;
      const auto [stop, error] = std::from_chars(text.data(), end, hashes_.emplace_back(), 16);
      if (error != std::errc() || stop != end) return false;
    }
    value = hashes_;
    return true;
  }
  static bool take(Element from, std::vector<std::pair<std::string, double>>& options) {
    simdjson::dom::object members;
    if (from.get_object().get(members) != simdjson::SUCCESS) return false;
    for (const auto [key, member] : members) {
      if (!take(member, options.emplace_back(std::string(key), 0.0).second)) return false;
    }
    return true;
  }

  simdjson::dom::object from_;
  std::vector<std::uint64_t>& hashes_;
  std::string wrong_;
};

std::string_view name_of(const LogLine& line) {
  const auto found = std::ranges::find_if(kKinds, [&](const KindName& one) {
    return one.kind == line.kind && (line.kind != Kind::event || one.event == line.event.kind);
  });
  return found->name;
}

/// What follows from the rest of the line.
void complete(LogLine& line) {
  PoolEvent& event = line.event;
  event.at = line.at;
  event.attempt.worker = event.worker;
  event.attempt.kind = event.kind == Event::end ? AttemptEvent::Kind::ended : AttemptEvent::Kind::first_byte;
}

}  // namespace

void write_log_line(const LogLine& line, std::string& text) {
  text += "{\"do\":\"";
  text += name_of(line);
  text += '"';
  Writer writer(text);
  each_member(writer, line);
  text += '}';
}

bool is_event_log(std::string_view first_line) { return first_line.starts_with("{\"do\":\"run\","); }

struct LogLineReader::Json {
  simdjson::dom::parser parser;
  std::vector<std::uint64_t> hashes;
};

LogLineReader::LogLineReader() : json_(std::make_unique<Json>()) {}
LogLineReader::~LogLineReader() = default;
LogLineReader::LogLineReader(LogLineReader&&) noexcept = default;

Result<void> LogLineReader::read(std::string_view text, LogLine& line) {
  simdjson::dom::element document;
  if (const auto error = json_->parser.parse(text.data(), text.size()).get(document))
    return fail(ErrorCode::invalid, fmt::format("not JSON: {}", simdjson::error_message(error)));
  simdjson::dom::object members;
  std::string_view name;
  if (document.get_object().get(members) != simdjson::SUCCESS ||
      members.at_key(kDo).get_string().get(name) != simdjson::SUCCESS)
    return fail(ErrorCode::invalid, "expected an object that says what was done (\"do\")");
  const auto kind = std::ranges::find(kKinds, name, &KindName::name);
  if (kind == std::end(kKinds)) {
    return fail(ErrorCode::invalid, fmt::format("\"do\" is {}, which this version does not know",
                                                json_quote(name.substr(0, 40))));
  }
  line = {.kind = kind->kind};
  line.event.kind = kind->event;
  Reader reader(members, json_->hashes);
  each_member(reader, line);
  if (!reader.wrong().empty())
    return fail(ErrorCode::invalid, fmt::format("\"{}\" has a wrong value", reader.wrong()));
  if (line.kind == Kind::run && line.version != kEventLogVersion) {
    return fail(ErrorCode::invalid,
                fmt::format("the recording's format is {}, this program reads {}; use the version of heng "
                            "that recorded it",
                            line.version, kEventLogVersion));
  }
  complete(line);
  return {};
}

}  // namespace heng
