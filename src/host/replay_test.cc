// Replays: the same decisions whatever has happened, the first other one is found, other policies compare.
#include "host/replay.h"

#include <gtest/gtest.h>

#include <array>
#include <map>

namespace heng {
namespace {

using Kind = LogLine::Kind;

/// A pool whose life is written down as the gateway does.
class RecordedPool : public PoolObserver {
 public:
  RecordedPool(const RoutePolicyEntry& entry, std::uint64_t seed)
      : pool(entry.make(default_values(entry)), Rng(seed)) {
    pool.observe(this);
    write({.kind = Kind::run, .name = "test", .version = kEventLogVersion});
    write({.kind = Kind::pool, .pool = 1, .name = "m", .policy = std::string(entry.name), .seed = seed});
  }
  void on_event(const PoolEvent& event) override {
    LogLine line{.kind = Kind::event, .at = event.at, .pool = 1};
    line.event = event;
    write(line);
    if (event.kind != PoolEvent::Kind::add) return;
    LogLine named{.kind = Kind::worker, .pool = 1, .name = "w" + std::to_string(event.identity)};
    named.event.worker = event.worker;
    write(named);
  }
  void write(const LogLine& line) { write_log_line(line, lines.emplace_back()); }

  Pool pool;
  std::vector<std::string> lines;
};

/// Requests with common beginnings and sessions; workers that join, leave, fail, ramp, fill up and report.
class Life {
 public:
  Life(RecordedPool& recorded, std::uint64_t seed) : recorded_(recorded), pool_(recorded.pool), rng_(seed) {
    for (int i = 0; i < 4; ++i) join();
  }

  void step() {
    now_ += from_seconds(rng_.exponential(0.01));
    const std::uint64_t what = rng_.below(100);
    if (what < 40) return begin();
    if (what < 55) return first_byte();
    if (what < 85) return end();
    if (what < 89) return pool_.tick(now_);
    const Slot slot = static_cast<Slot>(rng_.below(pool_.slots()));
    if (what == 90) return join();
    if (!pool_.is_member(slot)) return;
    if (what == 89) pool_.set_elsewhere(slot, static_cast<std::uint32_t>(rng_.below(3)));
    if (what == 91 && pool_.view().eligible.size() > 2) pool_.remove(slot);
    if (what == 92) pool_.set_eligible(slot, rng_.below(2) == 0, rng_.below(2) == 0);
    if (what == 93) pool_.set_drained(slot, rng_.below(4) == 0);
    if (what == 94) pool_.set_ramp(slot, 0.1 + 0.9 * rng_.uniform());
    if (what == 95) pool_.set_limit(slot, static_cast<std::uint32_t>(rng_.below(8)));
    if (what == 96) pool_.set_pool_limit(rng_.below(3) == 0 ? 30 : 0);
    if (what == 97) pool_.set_reported(slot, {now_, 3, 1, 0.5F});
    if (what == 98) pool_.set_weight(slot, 0.5 + rng_.uniform(), rng_.below(2) == 0 ? 0 : 100);
    if (what == 99) pool_.report_load(slot, rng_.uniform() * 100, now_);
  }

 private:
  void join() { pool_.add(++joined_, 1 + rng_.uniform(), 0); }
  void begin() {
    std::vector<std::uint64_t> prefix;
    for (std::uint64_t i = 0, topic = rng_.below(5); i < rng_.below(8); ++i)
      prefix.push_back(topic * 100 + i);
    const RequestView request{.id = ++requests_,
                              .affinity = rng_.below(20),
                              .prompt_tokens = rng_.exponential(500),
                              .prefix = prefix,
                              .block_tokens = 64};
    recorded_.write(
        {.kind = Kind::request, .name = "req_" + std::to_string(requests_), .request = requests_});
    if (rng_.below(8) == 0) {
      const Slot home = static_cast<Slot>(rng_.below(pool_.slots()));
      if (pool_.reserve_on(home, request, now_, rng_.below(2) == 0)) open_[requests_] = {home, now_};
      return;
    }
    if (const auto slot = pool_.reserve(request, now_)) open_[requests_] = {*slot, now_};
  }
  AttemptEvent any_open() {
    const auto at = std::next(open_.begin(), static_cast<std::ptrdiff_t>(rng_.below(open_.size())));
    const auto& [slot, began] = at->second;
    return {.kind = AttemptEvent::Kind::ended,
            .worker = slot,
            .request = at->first,
            .elapsed = now_ - began,
            .time_to_first_byte = (now_ - began) / 2,
            .prompt_tokens = 400};
  }
  void first_byte() {
    if (open_.empty()) return;
    const AttemptEvent event = any_open();
    pool_.first_byte(event.worker, {.id = event.request, .prompt_tokens = 400}, event.elapsed, now_);
  }
  void end() {
    if (open_.empty()) return;
    AttemptEvent event = any_open();
    open_.erase(event.request);
    event.outcome = static_cast<Outcome>(rng_.below(9));
    // Not reported, none, some.
    event.cached_tokens = std::array{-1.0, 0.0, rng_.exponential(100)}[rng_.below(3)];
    event.output_tokens = rng_.exponential(100);
    pool_.end(event, now_);
    if (event.outcome == Outcome::reset) {  // and once more, elsewhere
      const RequestView request{.id = event.request, .prompt_tokens = 400};
      if (const auto slot = pool_.reserve(request, now_, event.worker)) open_[event.request] = {*slot, now_};
    } else {
      recorded_.write({.kind = Kind::done, .request = event.request});
    }
  }

  RecordedPool& recorded_;
  Pool& pool_;
  Rng rng_;
  Instant now_{1h};
  std::uint64_t joined_ = 0, requests_ = 0;
  std::map<std::uint64_t, std::pair<Slot, Instant>> open_;
};

struct Outcomes {
  std::uint64_t decisions = 0, different = 0;
  std::string first_different, error;
  std::vector<ReplayedChoice::Judged> candidates;
  std::map<std::pair<std::string, std::string>, Replay::Share> shares;
};

Outcomes replay(const std::vector<std::string>& lines, std::optional<ReplayPolicy> policy = {},
                const std::string& explain = "") {
  Outcomes outcomes;
  Replay replay(std::move(policy), explain, [&](const ReplayedChoice& choice) {
    ++outcomes.decisions;
    if (!choice.same && outcomes.different++ == 0) outcomes.first_different = choice.request;
    for (const auto& judged : choice.candidates) outcomes.candidates.push_back(judged);
  });
  LogLineReader reader;
  LogLine line;
  for (const std::string& text : lines) {
    auto done = reader.read(text, line);
    if (done) done = replay.take(line);
    if (done) continue;
    outcomes.error = done.error().message;
    break;
  }
  outcomes.shares = replay.shares();
  return outcomes;
}

std::vector<std::string> live(const RoutePolicyEntry& entry, std::uint64_t seed, int steps = 3000) {
  RecordedPool recorded(entry, seed);
  Life life(recorded, seed);
  for (int i = 0; i < steps; ++i) life.step();
  return recorded.lines;
}

class ReplayOf : public testing::TestWithParam<const RoutePolicyEntry*> {};

TEST_P(ReplayOf, DecidesTheSameWhateverHappens) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const Outcomes outcomes = replay(live(*GetParam(), seed));
    EXPECT_EQ(outcomes.error, "");
    EXPECT_GT(outcomes.decisions, 500u);
    EXPECT_EQ(outcomes.different, 0u) << outcomes.first_different;
  }
}

TEST_P(ReplayOf, OtherPoliciesGetThroughToTheEnd) {
  const auto lines = live(*GetParam(), 1);
  const std::uint64_t decisions = replay(lines).decisions;
  for (const RoutePolicyEntry& other : route_policies()) {
    const Outcomes outcomes = replay(lines, ReplayPolicy{&other, default_values(other)});
    EXPECT_EQ(outcomes.error, "");
    EXPECT_EQ(outcomes.decisions, decisions);
    std::uint64_t recorded = 0, replayed = 0;
    for (const auto& [where, share] : outcomes.shares) recorded += share.recorded, replayed += share.replayed;
    EXPECT_GT(replayed, recorded / 2);
    if (&other == GetParam()) {
      EXPECT_EQ(outcomes.different, 0u);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, ReplayOf, testing::ValuesIn([] {
                           std::vector<const RoutePolicyEntry*> all;
                           for (const RoutePolicyEntry& entry : route_policies()) all.push_back(&entry);
                           return all;
                         }()),
                         [](const auto& policy) { return std::string(policy.param->name); });

TEST(Replay, FindsTheDecisionThatIsAnother) {
  auto lines = live(*find_route_policy("least_connections"), 2, 400);
  std::size_t changed = 0;
  for (std::size_t i = lines.size() / 2; changed == 0; ++i) {
    const std::size_t at =
        lines[i].find("\"do\":\"reserve\"") == 1 ? lines[i].find("\"worker\":1,") : std::string::npos;
    if (at != std::string::npos) lines[changed = i].replace(at, 10, "\"worker\":0");
  }
  // What follows on worker 0 was recorded on worker 1.
  lines.resize(changed + 1);
  const Outcomes outcomes = replay(lines);
  EXPECT_EQ(outcomes.error, "");
  EXPECT_EQ(outcomes.different, 1u);
  EXPECT_FALSE(outcomes.first_different.empty());
}

TEST(Replay, ExplainsOneRequest) {
  RecordedPool recorded(*find_route_policy("least_connections"), 1);
  for (const std::uint64_t worker : {1, 2, 3}) recorded.pool.add(worker, static_cast<double>(worker), 0);
  recorded.write({.kind = Kind::request, .name = "req_a", .request = 1});
  const auto first = recorded.pool.reserve({.id = 1}, Instant(1s));
  ASSERT_TRUE(first);
  recorded.write({.kind = Kind::request, .name = "req_b", .request = 2});
  recorded.pool.set_limit(0, 1);
  ASSERT_TRUE(recorded.pool.reserve({.id = 2}, Instant(2s), *first));
  const Outcomes outcomes = replay(recorded.lines, {}, "req_b");
  ASSERT_EQ(outcomes.candidates.size(), 3u);
  EXPECT_EQ(outcomes.candidates[0].candidate.terms[0].name, "in_flight");
  for (Slot slot = 0; slot < 3; ++slot) {
    EXPECT_EQ(outcomes.candidates[slot].candidate.worker, slot);
    EXPECT_EQ(outcomes.candidates[slot].avoided, slot == *first);
    EXPECT_EQ(outcomes.candidates[slot].candidate.terms[0].value, slot == *first ? 1 : 0);
  }
}

TEST(Replay, TwoProcessesShareAFile) {
  const auto& entry = *find_route_policy("round_robin");
  std::vector<std::string> lines;
  RecordedPool one(entry, 1), two(entry, 2);
  for (int i = 0; i < 5; ++i) {
    for (RecordedPool* of : {&one, &two}) {
      if (i == 0) of->pool.add(1, 1, 0), of->pool.add(2, 1, 0);
      of->pool.reserve({.id = 1U + static_cast<unsigned>(i)}, Instant(1s));
      for (std::string& line : of->lines) {
        const std::string process = of == &one ? ",\"process\":1}" : ",\"process\":2}";
        line.replace(line.size() - 1, 1, process);
        lines.push_back(std::move(line));
      }
      of->lines.clear();
    }
  }
  Outcomes outcomes = replay(lines);
  EXPECT_EQ(outcomes.error, "");
  EXPECT_EQ(outcomes.decisions, 10u);
  EXPECT_EQ(outcomes.different, 0u);
  // The first process again: what its predecessor had is forgotten.
  const auto again = lines;
  lines.insert(lines.end(), again.begin(), again.end());
  outcomes = replay(lines);
  EXPECT_EQ(outcomes.error, "");
  EXPECT_EQ(outcomes.decisions, 20u);
  EXPECT_EQ(outcomes.different, 0u);
}

TEST(Replay, RefusesWhatCannotHaveHappened) {
  const std::vector<std::string> good = live(*find_route_policy("least_time"), 3, 50);
  const auto with = [&](std::string line) {
    auto lines = good;
    lines.push_back(std::move(line));
    return replay(lines).error;
  };
  EXPECT_EQ(with(R"({"do":"tick","pool":1})"), "");
  EXPECT_EQ(with(R"({"do":"reported","pool":1,"worker":0,"kv_used":1})"), "");
  for (const char* line :
       {R"({"do":"tick","pool":9})", R"({"do":"tick","process":3,"pool":1})",
        R"({"do":"end","pool":1,"worker":0,"request":12345})", R"({"do":"end","pool":1,"worker":77})",
        R"({"do":"add","pool":1,"worker":99,"weight":1})", R"({"do":"weight","pool":1,"worker":0})",
        R"({"do":"reserve","pool":1,"worker":50})", R"({"do":"reserve","pool":1,"prompt_tokens":-5})",
        R"({"do":"reserve_on","pool":1})", R"({"do":"remove","pool":1})",
        R"({"do":"pool","pool":1,"policy":"hash"})", R"({"do":"pool","pool":2,"policy":"nobody"})",
        R"({"do":"pool","pool":2,"policy":"hash","options":{"nothing":1}})",
        R"({"do":"load","pool":1,"load":1})", R"({"do":"ramp","pool":1,"worker":0,"share":2})",
        R"({"do":"reported","pool":1,"worker":0,"kv_used":1.5})",
        R"({"do":"reported","pool":1,"worker":0,"running":-1})"})
    EXPECT_NE(with(line), "") << line;
}

}  // namespace
}  // namespace heng
