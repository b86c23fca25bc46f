// Health of a worker: which events eject it, what brings it back, and that no order of events leaves it
// stuck.
#include "control/worker_health.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <string>
#include <vector>

namespace heng {
namespace {

constexpr Instant kStart{1000s};

HealthOptions passive_only() {
  HealthOptions options;
  options.active = false;
  return options;
}

void probe(WorkerHealth& health, bool alive, Outcome cause, Instant at) {
  health.on_probe_sent(at);
  health.on_probe(alive, cause, at);
}

TEST(WorkerHealth, NamesItsStates) {
  EXPECT_EQ(to_string(HealthState::unknown), "unknown");
  EXPECT_EQ(to_string(HealthState::healthy), "healthy");
  EXPECT_EQ(to_string(HealthState::suspect), "suspect");
  EXPECT_EQ(to_string(HealthState::ejected), "ejected");
}

TEST(WorkerHealth, StartsUnknownUsableAndAsksForAProbeAtOnce) {
  const WorkerHealth health({}, kStart);
  EXPECT_EQ(health.state(), HealthState::unknown);
  EXPECT_TRUE(health.eligible());
  EXPECT_TRUE(health.probe_due(kStart));
  EXPECT_EQ(health.ramp(kStart), 1);
  EXPECT_EQ(health.since(), kStart);
}

TEST(WorkerHealth, ProbesOncePerInterval) {
  WorkerHealth health({}, kStart);
  health.on_probe_sent(kStart);
  EXPECT_FALSE(health.probe_due(kStart + 1s));
  health.on_probe(true, Outcome::ok, kStart + 1s);
  EXPECT_EQ(health.state(), HealthState::healthy);
  EXPECT_FALSE(health.probe_due(kStart + 1999ms));
  EXPECT_TRUE(health.probe_due(kStart + 2s));
}

TEST(WorkerHealth, SendsNoSecondProbeWhileOneIsOutButForgetsALostOne) {
  WorkerHealth health({}, kStart);
  health.on_probe_sent(kStart);
  EXPECT_FALSE(health.probe_due(kStart + 3999ms));
  EXPECT_TRUE(health.probe_due(kStart + 4s));
  EXPECT_EQ(health.state(), HealthState::unknown) << "a lost report is no verdict";
}

struct AttemptCase {
  std::string name;
  std::vector<Outcome> outcomes;
  HealthState expected;
};

TEST(WorkerHealth, JudgesAttempts) {
  using enum Outcome;
  const std::vector<AttemptCase> cases = {
      {"a good answer", {ok}, HealthState::healthy},
      {"one server error", {server_error}, HealthState::suspect},
      {"two faults", {reset, timeout}, HealthState::suspect},
      {"three faults in a row", {server_error, reset, protocol}, HealthState::ejected},
      {"a good answer between faults", {timeout, timeout, ok, timeout, timeout}, HealthState::suspect},
      {"faults, then good", {reset, reset, ok}, HealthState::healthy},
      {"refused at once", {refused}, HealthState::ejected},
      {"a burst of 4xx", std::vector<Outcome>(50, client_error), HealthState::healthy},
      {"a burst of 429 and 503", std::vector<Outcome>(50, overloaded), HealthState::healthy},
      {"only cancellations", std::vector<Outcome>(50, canceled), HealthState::unknown},
      {"cancellation neither adds nor clears",
       {reset, canceled, reset, canceled, reset},
       HealthState::ejected},
      {"4xx is an answer and clears", {reset, reset, client_error, reset, reset}, HealthState::suspect},
  };
  for (const auto& one : cases) {
    WorkerHealth health({}, kStart);
    for (const Outcome outcome : one.outcomes) health.on_attempt(outcome, kStart);
    EXPECT_EQ(health.state(), one.expected) << one.name;
    EXPECT_EQ(health.eligible(), one.expected != HealthState::ejected) << one.name;
  }
}

TEST(WorkerHealth, SilentWorkerIsEjectedAfterFallFailedProbes) {
  WorkerHealth health({}, kStart);
  probe(health, true, Outcome::ok, kStart);
  probe(health, false, Outcome::timeout, kStart + 4s);
  EXPECT_EQ(health.state(), HealthState::suspect);
  EXPECT_TRUE(health.eligible());
  EXPECT_EQ(health.last_fault(), Outcome::timeout);
  probe(health, false, Outcome::timeout, kStart + 8s);
  EXPECT_EQ(health.state(), HealthState::ejected);
  EXPECT_EQ(health.since(), kStart + 8s);
}

TEST(WorkerHealth, GoodProbeEndsSuspicion) {
  WorkerHealth health({}, kStart);
  for (int round = 0; round < 10; ++round) {
    const Instant at = kStart + round * 10s;
    probe(health, false, Outcome::timeout, at);
    EXPECT_EQ(health.state(), HealthState::suspect);
    probe(health, true, Outcome::ok, at + 4s);
    EXPECT_EQ(health.state(), HealthState::healthy);
  }
}

TEST(WorkerHealth, FlowingStreamsExcuseMissedProbes) {
  WorkerHealth health({}, kStart);
  Instant now = kStart;
  for (; now < kStart + 30s; now += 2s) {
    health.on_progress(now);
    probe(health, false, Outcome::timeout, now + 1s);
    EXPECT_EQ(health.state(), HealthState::suspect);
  }
  // The last progress was at kStart + 28 s; silence must last fall x interval = 4 s.
  probe(health, false, Outcome::timeout, kStart + 31s);
  EXPECT_TRUE(health.eligible());
  probe(health, false, Outcome::timeout, kStart + 32s);
  EXPECT_FALSE(health.eligible());
}

TEST(WorkerHealth, RefusedProbeEjectsAtOnceEvenWhileStreamsFlow) {
  WorkerHealth health({}, kStart);
  health.on_progress(kStart);
  probe(health, false, Outcome::refused, kStart);
  EXPECT_EQ(health.state(), HealthState::ejected);
  EXPECT_EQ(health.last_fault(), Outcome::refused);
}

TEST(WorkerHealth, CanceledProbeSaysNothing) {
  WorkerHealth health({}, kStart);
  for (int i = 0; i < 10; ++i) probe(health, false, Outcome::canceled, kStart + i * 2s);
  EXPECT_EQ(health.state(), HealthState::unknown);
  EXPECT_TRUE(health.probe_due(kStart + 20s));
}

TEST(WorkerHealth, ReturnsAfterRiseGoodProbesInARow) {
  HealthOptions options;
  options.rise = 2;
  WorkerHealth health(options, kStart);
  health.on_attempt(Outcome::refused, kStart);
  EXPECT_FALSE(health.probe_due(kStart + 999ms));
  EXPECT_TRUE(health.probe_due(kStart + 1s));
  probe(health, true, Outcome::ok, kStart + 1s);
  EXPECT_FALSE(health.eligible());
  probe(health, false, Outcome::timeout, kStart + 2s);
  probe(health, true, Outcome::ok, kStart + 3s);
  EXPECT_FALSE(health.eligible()) << "the failure between starts the count again";
  EXPECT_TRUE(health.probe_due(kStart + 4s));
  probe(health, true, Outcome::ok, kStart + 4s);
  EXPECT_EQ(health.state(), HealthState::healthy);
}

TEST(WorkerHealth, ProbeSentBeforeTheEjectionCannotUndoIt) {
  WorkerHealth health({}, kStart);
  health.on_probe_sent(kStart);
  health.on_attempt(Outcome::refused, kStart + 5ms);
  health.on_probe(true, Outcome::ok, kStart + 10ms);
  EXPECT_FALSE(health.eligible());
  probe(health, true, Outcome::ok, kStart + 1005ms);
  EXPECT_TRUE(health.eligible());
}

TEST(WorkerHealth, AttemptsFromBeforeTheEjectionDoNotUndoIt) {
  WorkerHealth health({}, kStart);
  health.on_attempt(Outcome::refused, kStart);
  health.on_attempt(Outcome::ok, kStart + 1ms);
  health.on_progress(kStart + 1ms);
  EXPECT_FALSE(health.eligible());
}

TEST(WorkerHealth, FaultsBeforeTheEjectionAreForgottenOnReturn) {
  WorkerHealth health({}, kStart);
  for (int i = 0; i < 3; ++i) health.on_attempt(Outcome::server_error, kStart);
  ASSERT_FALSE(health.eligible());
  probe(health, true, Outcome::ok, kStart + 1s);
  ASSERT_TRUE(health.eligible());
  health.on_attempt(Outcome::server_error, kStart + 2s);
  health.on_attempt(Outcome::server_error, kStart + 2s);
  EXPECT_TRUE(health.eligible());
}

TEST(WorkerHealth, ReturnedWorkerIsRampedUpLinearly) {
  WorkerHealth health({}, kStart);
  health.on_attempt(Outcome::refused, kStart);
  const Instant back = kStart + 1s;
  probe(health, true, Outcome::ok, back);
  EXPECT_DOUBLE_EQ(health.ramp(back), 0.1);
  EXPECT_DOUBLE_EQ(health.ramp(back + 5s), 0.55);
  EXPECT_DOUBLE_EQ(health.ramp(back + 10s), 1);
  EXPECT_DOUBLE_EQ(health.ramp(back + 1h), 1);
}

TEST(WorkerHealth, NoRampWhenSlowStartIsOff) {
  HealthOptions options;
  options.slow_start = 0s;
  WorkerHealth health(options, kStart);
  health.on_attempt(Outcome::refused, kStart);
  probe(health, true, Outcome::ok, kStart + 1s);
  EXPECT_EQ(health.ramp(kStart + 1s), 1);
}

TEST(WorkerHealth, WithoutProbesOneTrialRequestFindsOut) {
  WorkerHealth health(passive_only(), kStart);
  EXPECT_FALSE(health.probe_due(kStart + 1h));
  health.on_attempt(Outcome::refused, kStart);
  health.tick(kStart + 999ms);
  EXPECT_FALSE(health.eligible());
  health.tick(kStart + 1s);
  EXPECT_TRUE(health.eligible());
  EXPECT_EQ(health.state(), HealthState::ejected) << "not proven yet";
  health.on_attempt_started(kStart + 1s);
  EXPECT_FALSE(health.eligible()) << "one trial at a time";
  health.on_attempt(Outcome::client_error, kStart + 2s);
  EXPECT_EQ(health.state(), HealthState::healthy);
  EXPECT_DOUBLE_EQ(health.ramp(kStart + 2s), 0.1);
}

TEST(WorkerHealth, TrialPauseDoublesTo30SecondsAndStartsAnewAfterAReturn) {
  WorkerHealth health(passive_only(), kStart);
  Instant now = kStart;
  health.on_attempt(Outcome::refused, now);
  for (const Duration pause : {1s, 2s, 4s, 8s, 16s, 30s, 30s}) {
    health.tick(now + pause - 1ms);
    EXPECT_FALSE(health.eligible());
    now += pause;
    health.tick(now);
    ASSERT_TRUE(health.eligible()) << to_seconds(pause);
    health.on_attempt_started(now);
    health.on_attempt(Outcome::refused, now);
  }
  now += 30s;
  health.tick(now);
  health.on_attempt_started(now);
  health.on_attempt(Outcome::ok, now);
  ASSERT_EQ(health.state(), HealthState::healthy);
  health.on_attempt(Outcome::refused, now);
  health.tick(now + 1s);
  EXPECT_TRUE(health.eligible());
}

TEST(WorkerHealth, CanceledOrEndlessTrialIsOfferedAgain) {
  WorkerHealth health(passive_only(), kStart);
  health.on_attempt(Outcome::refused, kStart);
  health.tick(kStart + 1s);
  health.on_attempt_started(kStart + 1s);
  health.on_attempt(Outcome::canceled, kStart + 2s);
  EXPECT_TRUE(health.eligible());
  health.on_attempt_started(kStart + 2s);
  health.tick(kStart + 31s);
  EXPECT_FALSE(health.eligible());
  health.tick(kStart + 32s);
  EXPECT_TRUE(health.eligible());
}

TEST(WorkerHealth, LongSuspendOfTheMachineEjectsNobody) {
  WorkerHealth health({}, kStart);
  probe(health, true, Outcome::ok, kStart);
  const Instant woken = kStart + 24h;
  health.tick(woken);
  EXPECT_TRUE(health.eligible());
  EXPECT_TRUE(health.probe_due(woken));
  probe(health, true, Outcome::ok, woken);
  EXPECT_EQ(health.state(), HealthState::healthy);
}

HealthOptions any_options(bool active) {
  HealthOptions options;
  options.active = active;
  options.interval = *rc::gen::inRange(1, 5000) * 1ms;
  options.timeout = *rc::gen::inRange(1, 5000) * 1ms;
  options.probe_back = *rc::gen::inRange(1, 3000) * 1ms;
  options.fall = *rc::gen::inRange(1u, 5u);
  options.rise = *rc::gen::inRange(1u, 5u);
  options.passive_faults = *rc::gen::inRange(1u, 6u);
  return options;
}

Outcome any_outcome() { return static_cast<Outcome>(*rc::gen::inRange(0, 9)); }

Instant random_events(WorkerHealth& health) {
  Instant now = kStart;
  const int events = *rc::gen::inRange(0, 80);
  for (int i = 0; i < events; ++i) {
    now += *rc::gen::inRange(0, 3000) * 1ms;
    switch (*rc::gen::inRange(0, 6)) {
      case 0:
        health.on_probe_sent(now);
        break;
      case 1:
        health.on_probe(*rc::gen::arbitrary<bool>(), any_outcome(), now);
        break;
      case 2:
        health.on_attempt_started(now);
        break;
      case 3:
        health.on_attempt(any_outcome(), now);
        break;
      case 4:
        health.on_progress(now);
        break;
      default:
        health.tick(now);
    }
    RC_ASSERT(health.state() == HealthState::ejected || health.eligible());
    RC_ASSERT(health.ramp(now) > 0 && health.ramp(now) <= 1);
  }
  return now;
}

// "Stuck" is the failure seen elsewhere: a lost or canceled probe after which a worker is never asked again.
RC_GTEST_PROP(WorkerHealthProperty, GoodWorkerReturnsWhateverHappenedBefore, ()) {
  const HealthOptions options = any_options(true);
  WorkerHealth health(options, kStart);
  Instant now = random_events(health);
  constexpr Duration kTurn = 10ms;
  const Duration lost_probe = 2 * options.timeout;
  const Instant latest =
      now + lost_probe + options.rise * (options.probe_back + kTurn) + options.interval + kTurn;
  while (!health.eligible() && now <= latest) {
    if (health.probe_due(now)) probe(health, true, Outcome::ok, now);
    now += kTurn;
  }
  RC_ASSERT(health.eligible());
}

RC_GTEST_PROP(WorkerHealthProperty, GoodWorkerIsTriedAgainWithoutProbes, ()) {
  const HealthOptions options = any_options(false);
  WorkerHealth health(options, kStart);
  Instant now = random_events(health);
  const Instant latest = now + options.trial_pause_max + 100ms;
  for (; health.state() == HealthState::ejected && now <= latest; now += 100ms) {
    health.tick(now);
    if (!health.eligible()) continue;
    health.on_attempt_started(now);
    health.on_attempt(Outcome::ok, now);
  }
  RC_ASSERT(health.state() != HealthState::ejected);
}

RC_GTEST_PROP(WorkerHealthProperty, NothingButFaultsEjects, ()) {
  WorkerHealth health(any_options(*rc::gen::arbitrary<bool>()), kStart);
  const int events = *rc::gen::inRange(0, 200);
  for (int i = 0; i < events; ++i) {
    const Outcome outcome = any_outcome();
    if (is_worker_fault(outcome)) continue;
    health.on_attempt(outcome, kStart + i * 1s);
    RC_ASSERT(health.state() != HealthState::ejected && health.state() != HealthState::suspect);
  }
}

}  // namespace
}  // namespace heng
