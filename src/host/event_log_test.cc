// Lines of a recording: what is written is read again bit by bit, and damage is noticed.
#include "host/event_log.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <array>
#include <bit>

#include "base/rng.h"

namespace heng {
namespace {

using Kind = LogLine::Kind;
using Event = PoolEvent::Kind;

std::string text_of(const LogLine& line) {
  std::string text;
  write_log_line(line, text);
  return text;
}

LogLine read(std::string_view text, LogLineReader& reader) {
  LogLine line;
  const auto done = reader.read(text, line);
  EXPECT_TRUE(done.has_value()) << text << ": " << (done ? "" : done.error().message);
  return line;
}

/// Any bits that are a number.
double any_number(Rng& rng) {
  for (;;) {
    const auto number = std::bit_cast<double>(rng.next());
    if (std::isfinite(number)) return number;
  }
}

LogLine any_event(Rng& rng, std::span<const std::uint64_t> prefix) {
  LogLine line{.kind = Kind::event,
               .process = rng.next(),
               .at = Instant(Duration(static_cast<std::int64_t>(rng.next()))),
               .pool = static_cast<std::uint32_t>(rng.next())};
  PoolEvent& event = line.event;
  event.kind = static_cast<Event>(rng.below(static_cast<std::uint64_t>(Event::report_load) + 1));
  event.worker = rng.below(4) == 0 ? kNoSlot : static_cast<Slot>(rng.next());
  event.asked = rng.below(4) == 0 ? kNoSlot : static_cast<Slot>(rng.next());
  event.identity = rng.next();
  event.weight = any_number(rng);
  event.capacity = any_number(rng);
  event.limit = static_cast<std::uint32_t>(rng.below(1000));
  event.yes = rng.below(2) == 0;
  event.usable = rng.below(2) == 0;
  event.reported = {line.at, 3, 4.25F, 0.1F};
  event.request = {.id = rng.next(),
                   .affinity = rng.next(),
                   .prompt_tokens = any_number(rng),
                   .output_tokens_max = static_cast<std::uint32_t>(rng.below(1000)),
                   .stream = rng.below(2) == 0,
                   .prefix = prefix,
                   .block_tokens = any_number(rng)};
  event.attempt = {.outcome = static_cast<Outcome>(rng.below(9)),
                   .worker = event.worker,
                   .request = rng.next(),
                   .elapsed = Duration(static_cast<std::int64_t>(rng.next())),
                   .time_to_first_byte = Duration(5),
                   .prompt_tokens = any_number(rng),
                   .cached_tokens = std::array{-1.0, 0.0, std::abs(any_number(rng))}[rng.below(3)],
                   .output_tokens = any_number(rng)};
  return line;
}

void expect_same_request(const RequestView& a, const RequestView& b) {
  EXPECT_EQ(a.id, b.id);
  EXPECT_EQ(a.affinity, b.affinity);
  EXPECT_EQ(a.prompt_tokens, b.prompt_tokens);
  EXPECT_EQ(a.output_tokens_max, b.output_tokens_max);
  EXPECT_EQ(a.stream, b.stream);
  EXPECT_EQ(a.block_tokens, b.block_tokens);
  EXPECT_TRUE(std::ranges::equal(a.prefix, b.prefix));
}

void expect_same_attempt(const AttemptEvent& a, const AttemptEvent& b) {
  EXPECT_EQ(a.worker, b.worker);
  EXPECT_EQ(a.request, b.request);
  EXPECT_EQ(a.elapsed, b.elapsed);
  EXPECT_EQ(a.time_to_first_byte, b.time_to_first_byte);
  EXPECT_EQ(a.prompt_tokens, b.prompt_tokens);
}

TEST(EventLog, EventsAreReadAsTheyWereWritten) {
  Rng rng(7);
  LogLineReader reader;
  for (int i = 0; i < 5000; ++i) {
    std::vector<std::uint64_t> prefix(rng.below(5));
    for (std::uint64_t& hash : prefix) hash = rng.next();
    const LogLine line = any_event(rng, prefix);
    const std::string text = text_of(line);
    const LogLine again = read(text, reader);
    EXPECT_EQ(text_of(again), text);
    const PoolEvent &a = line.event, &b = again.event;
    ASSERT_EQ(again.kind, Kind::event);
    ASSERT_EQ(a.kind, b.kind);
    EXPECT_EQ(line.process, again.process);
    EXPECT_EQ(line.at, again.at);
    EXPECT_EQ(line.at, b.at);
    EXPECT_EQ(line.pool, again.pool);
    const bool of_worker = a.kind != Event::tick && a.kind != Event::set_pool_limit;
    if (of_worker) {
      EXPECT_EQ(a.worker, b.worker);
    }
    if (a.kind == Event::reserve || a.kind == Event::reserve_on) {
      EXPECT_EQ(a.asked, b.asked);
      expect_same_request(a.request, b.request);
    }
    if (a.kind == Event::first_byte || a.kind == Event::end) expect_same_attempt(a.attempt, b.attempt);
    if (a.kind == Event::end) {
      EXPECT_EQ(b.attempt.kind, AttemptEvent::Kind::ended);
      EXPECT_EQ(a.attempt.outcome, b.attempt.outcome);
      EXPECT_EQ(a.attempt.cached_tokens, b.attempt.cached_tokens);
      EXPECT_EQ(a.attempt.output_tokens, b.attempt.output_tokens);
    }
    if (a.kind == Event::add) {
      EXPECT_EQ(a.identity, b.identity);
    }
    if (a.kind == Event::add || a.kind == Event::set_weight) {
      EXPECT_EQ(a.weight, b.weight);
      EXPECT_EQ(a.capacity, b.capacity);
    }
    if (a.kind == Event::set_eligible) {
      EXPECT_EQ(a.yes, b.yes);
      EXPECT_EQ(a.usable, b.usable);
    }
    if (a.kind == Event::set_reported) {
      EXPECT_EQ(a.reported.at, b.reported.at);
      EXPECT_EQ(a.reported.waiting, b.reported.waiting);
      EXPECT_EQ(a.reported.kv_used, b.reported.kv_used);
    }
    if (a.kind == Event::set_limit || a.kind == Event::set_pool_limit || a.kind == Event::set_elsewhere) {
      EXPECT_EQ(a.limit, b.limit);
    }
  }
}

TEST(EventLog, OtherLinesAreReadAsTheyWereWritten) {
  LogLineReader reader;
  const LogLine pool = read(text_of({.kind = Kind::pool,
                                     .process = 5,
                                     .at = Instant(7ns),
                                     .pool = 3,
                                     .name = "a \"model\"\n",
                                     .policy = "hash",
                                     .options = {{"load_max", 1.25}, {"other", 0}},
                                     .seed = ~0ULL}),
                            reader);
  EXPECT_EQ(pool.kind, Kind::pool);
  EXPECT_EQ(pool.name, "a \"model\"\n");
  EXPECT_EQ(pool.policy, "hash");
  EXPECT_EQ(pool.options, (std::vector<std::pair<std::string, double>>{{"load_max", 1.25}, {"other", 0}}));
  EXPECT_EQ(pool.seed, ~0ULL);
  const std::string begin =
      text_of({.kind = Kind::run, .process = 5, .name = "0.1.0", .version = 1, .time_s = 1.5});
  EXPECT_TRUE(is_event_log(begin));
  EXPECT_FALSE(is_event_log(text_of({.kind = Kind::pool})));
  const LogLine run = read(begin, reader);
  EXPECT_EQ(run.name, "0.1.0");
  EXPECT_EQ(run.time_s, 1.5);
  const LogLine request = read(text_of({.kind = Kind::request, .name = "req_1", .request = 9}), reader);
  EXPECT_EQ(request.request, 9u);
  EXPECT_EQ(request.name, "req_1");
  LogLine named{.kind = Kind::worker, .pool = 1, .name = "w"};
  named.event.worker = 0;
  EXPECT_EQ(read(text_of(named), reader).event.worker, 0u);
}

TEST(EventLog, LineThatBreaksOffIsNoLine) {
  Rng rng(3);
  LogLineReader reader;
  LogLine line;
  const std::vector<std::uint64_t> prefix{1, 2};
  for (int i = 0; i < 200; ++i) {
    const std::string text = text_of(any_event(rng, prefix));
    for (std::size_t length = 0; length < text.size(); ++length)
      ASSERT_FALSE(reader.read(std::string_view(text).substr(0, length), line)) << text << length;
  }
}

TEST(EventLog, SaysWhatItDoesNotUnderstand) {
  LogLineReader reader;
  LogLine line;
  const auto message = [&](std::string_view text) {
    const auto read = reader.read(text, line);
    return read ? "" : read.error().message;
  };
  EXPECT_NE(message(R"({"do":"dance"})").find("\"dance\""), std::string::npos);
  EXPECT_NE(message(R"({"do":"run","version":2})").find("use the version of heng"), std::string::npos);
  EXPECT_NE(message(R"({"do":"end","outcome":99})").find("outcome"), std::string::npos);
  EXPECT_NE(message(R"({"do":"reserve","prefix":"12"})").find("prefix"), std::string::npos);
  EXPECT_NE(message(R"({"do":"reserve","prefix":"-00000000000000f"})").find("prefix"), std::string::npos);
  EXPECT_NE(message(R"({"do":"limit","limit":4294967296})").find("limit"), std::string::npos);
  EXPECT_NE(message("[1]"), "");
  EXPECT_EQ(message(R"({"do":"tick","pool":1,"later":true})"), "") << "later versions may say more";
}

}  // namespace
}  // namespace heng
