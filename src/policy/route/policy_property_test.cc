// Properties that every listed policy must have, whatever its rule.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "policy/route/explain.h"
#include "policy/route/registry.h"
#include "policy/route/test_pool.h"

namespace heng {
namespace {

class EveryPolicy : public testing::TestWithParam<const RoutePolicyEntry*> {
 protected:
  static std::unique_ptr<RoutePolicy> make() { return GetParam()->make(default_values(*GetParam())); }
};

/// A gateway in small: requests come, answer and fail; workers join, leave, fail, return and ramp; time
/// passes. Checks after every step what must always hold, and records the choices.
class RandomLife {
 public:
  RandomLife(RoutePolicy& policy, std::uint64_t seed, std::size_t workers, bool explained = false)
      : policy_(policy),
        pool_(workers),
        explained_(explained),
        rng_(Rng(seed).split("policy")),
        events_(Rng(seed).split("events")) {}

  std::string step() {
    now_ += from_seconds(events_.exponential(0.05));
    const std::uint64_t what = events_.below(100);
    if (what < 45) return start();
    if (what < 55) return first_byte();
    if (what < 85) return end();
    if (what < 93) policy_.tick(pool_.view(), now_);
    if (what >= 93 && what < 95) policy_.report_load(any_slot(), events_.uniform() * 100, pool_.view(), now_);
    if (what >= 95) change_membership(what);
    return check_weights();
  }

  const std::vector<Slot>& choices() const { return choices_; }

 private:
  std::string start() {
    const RequestView request{.id = ++requests_,
                              .affinity = events_.below(4) == 0 ? 0 : events_.below(50),
                              .prompt_tokens = events_.exponential(300)};
    if (explained_ && !well_explained(explain_choice(policy_, request, pool_.view(), now_)))
      return "explains others than the eligible, or with other terms";
    const Slot slot = pool_.start(policy_, request, now_, rng_);
    choices_.push_back(slot);
    if (pool_.view().eligible.empty()) return slot == kNoSlot ? "" : "chose from an empty pool";
    if (!pool_.usable(slot)) return "chose an absent or unhealthy worker";
    open_[requests_] = {slot, now_};
    return check_weights();
  }
  bool well_explained(const std::vector<Candidate>& candidates) const {
    if (!std::ranges::equal(candidates, pool_.view().eligible, {}, &Candidate::worker)) return false;
    return std::ranges::all_of(candidates, [&](const Candidate& candidate) {
      return !candidate.terms.empty() && std::ranges::equal(candidate.terms, candidates.front().terms, {},
                                                            &CostTerm::name, &CostTerm::name);
    });
  }
  AttemptEvent event_of(std::uint64_t id, AttemptEvent::Kind kind) {
    const auto& [slot, started] = open_.at(id);
    return {.kind = kind,
            .worker = slot,
            .request = id,
            .elapsed = now_ - started,
            .time_to_first_byte = (now_ - started) / 2};
  }
  std::string first_byte() {
    if (!open_.empty()) policy_.on(event_of(any_open(), AttemptEvent::Kind::first_byte), pool_.view(), now_);
    return check_weights();
  }
  std::string end() {
    if (open_.empty()) return "";
    const std::uint64_t id = any_open();
    AttemptEvent event = event_of(id, AttemptEvent::Kind::ended);
    event.outcome = events_.below(3) == 0 ? static_cast<Outcome>(events_.below(9)) : Outcome::ok;
    event.output_tokens = events_.below(3) == 0 ? 0 : events_.exponential(100);
    event.prompt_tokens = events_.exponential(300);
    event.cached_tokens = events_.exponential(200);
    open_.erase(id);
    pool_.end(policy_, event, now_);
    return check_weights();
  }
  void change_membership(std::uint64_t what) {
    const Slot slot = any_slot();
    if (what == 95)
      pool_.add(0.1 + events_.uniform() * 3, events_.below(2) == 0 ? 0 : 1 + events_.uniform() * 100);
    if (slot == kNoSlot) return;
    if (what == 96)
      pool_.remove(slot);  // with its attempts still open: they end later, perhaps on a reused slot
    if (what == 97) pool_.set_healthy(slot, false);
    if (what == 98) pool_.set_healthy(slot, true);
    if (what == 99) pool_.weight[slot] = 0.05 + events_.uniform();
  }
  std::string check_weights() {
    const std::span<const double> weights = policy_.weights();
    const std::span<const Slot> eligible = pool_.view().eligible;
    // Policies see a change of membership at their next call; only then must the shares follow it.
    if (policy_.tick(pool_.view(), now_); policy_.weights().empty() || eligible.empty()) return "";
    double sum = 0;
    for (const Slot slot : eligible) sum += policy_.weights()[slot];
    return std::abs(sum - 1) < 1e-9 && weights.size() <= pool_.weight.size() ? "" : "weights do not sum to 1";
  }
  Slot any_slot() {
    return pool_.weight.empty() ? kNoSlot : static_cast<Slot>(events_.below(pool_.weight.size()));
  }
  std::uint64_t any_open() {
    return std::next(open_.begin(), static_cast<std::ptrdiff_t>(events_.below(open_.size())))->first;
  }

  RoutePolicy& policy_;
  TestPool pool_;
  bool explained_;
  Rng rng_, events_;
  Instant now_{std::chrono::hours(2)};
  std::uint64_t requests_ = 0;
  std::map<std::uint64_t, std::pair<Slot, Instant>> open_;
  std::vector<Slot> choices_;
};

TEST_P(EveryPolicy, SurvivesAnyLifeAndNeverChoosesAnAbsentWorker) {
  RC_ASSERT(rc::check([] {
    const auto policy = make();
    RandomLife life(*policy, *rc::gen::arbitrary<std::uint64_t>(), *rc::gen::inRange<std::size_t>(0, 8));
    for (int i = 0; i < 600; ++i) RC_ASSERT(life.step() == "");
  }));
}

TEST_P(EveryPolicy, SameSeedSameChoices) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const auto one = make(), two = make();
    RandomLife first(*one, seed, 6), second(*two, seed, 6);
    for (int i = 0; i < 2000; ++i) first.step(), second.step();
    ASSERT_FALSE(first.choices().empty());
    ASSERT_EQ(first.choices(), second.choices());
  }
}

TEST_P(EveryPolicy, ExplainingChangesNoChoice) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const auto one = make(), two = make();
    RandomLife silent(*one, seed, 6), explained(*two, seed, 6, true);
    for (int i = 0; i < 2000; ++i) {
      silent.step();
      ASSERT_EQ(explained.step(), "");
    }
    ASSERT_FALSE(silent.choices().empty());
    ASSERT_EQ(silent.choices(), explained.choices());
  }
}

TEST_P(EveryPolicy, NobodyOneAndAThousand) {
  const auto policy = make();
  Rng rng(1);
  TestPool none;
  EXPECT_EQ(policy->choose({.affinity = 9}, none.view(), {}, rng), std::nullopt);
  policy->tick(none.view(), {});
  for (const std::size_t n : {1, 1000}) {
    TestPool pool(n);
    const auto fresh = make();
    for (std::uint64_t i = 1; i <= 5 * n; ++i) {
      ASSERT_LT(pool.start(*fresh, {.id = i, .affinity = mix(i)}, {}, rng), n);
    }
    // Nobody is forgotten and nobody is flooded, even though no request has ended yet.
    EXPECT_LE(*std::ranges::max_element(pool.in_flight), 15u);
    const auto used = std::ranges::count_if(pool.in_flight, [](std::uint32_t f) { return f > 0; });
    EXPECT_GE(static_cast<double>(used), 0.9 * static_cast<double>(n));
  }
}

/// Twelve requests at a time, answered in the order they came.
void serve(RoutePolicy& policy, TestPool& pool, Instant& now, Rng& rng, std::uint64_t& id,
           std::vector<int>& served) {
  for (int round = 0; round < 50; ++round, now += 100ms) {
    std::vector<AttemptEvent> open;
    for (int i = 0; i < 12; ++i) {
      const Slot slot = pool.start(policy, {.id = ++id, .affinity = mix(id)}, now, rng);
      ASSERT_TRUE(pool.usable(slot));
      ++served[slot];
      open.push_back({.kind = AttemptEvent::Kind::ended,
                      .worker = slot,
                      .request = id,
                      .elapsed = 90ms,
                      .time_to_first_byte = 40ms,
                      .prompt_tokens = 100,
                      .output_tokens = 50});
    }
    now += 90ms;
    for (AttemptEvent event : open) {
      event.kind = AttemptEvent::Kind::first_byte;
      policy.on(event, pool.view(), now);
      event.kind = AttemptEvent::Kind::ended;
      pool.end(policy, event, now);
    }
    policy.tick(pool.view(), now);
  }
}

TEST_P(EveryPolicy, RecoversAfterAWorkerDiedAndCameBack) {
  const auto policy = make();
  TestPool pool(4);
  Rng rng(1);
  Instant now{std::chrono::hours(1)};
  std::uint64_t id = 0;
  std::vector<int> before(4), without(4), after(4), replaced(4);
  serve(*policy, pool, now, rng, id, before);
  pool.set_healthy(2, false);
  serve(*policy, pool, now, rng, id, without);
  pool.set_healthy(2, true);
  serve(*policy, pool, now, rng, id, after);
  pool.remove(2);
  ASSERT_EQ(pool.add(), 2u);  // another worker in the same slot
  serve(*policy, pool, now, rng, id, replaced);
  EXPECT_EQ(without[2], 0);
  for (const std::vector<int>& served : {before, after, replaced}) {
    for (const int count : served) EXPECT_NEAR(count, 150, 75) << GetParam()->name;
  }
}

INSTANTIATE_TEST_SUITE_P(, EveryPolicy, testing::ValuesIn([] {
                           std::vector<const RoutePolicyEntry*> all;
                           for (const RoutePolicyEntry& entry : route_policies()) all.push_back(&entry);
                           return all;
                         }()),
                         [](const auto& test) { return std::string(test.param->name); });

}  // namespace
}  // namespace heng
