// Health of a worker: which events eject it, what brings it back, and that no order of events leaves it
// stuck.
#include "control/worker_health.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace heng {
namespace {

constexpr Instant kStart{1000s};
constexpr Duration kTick = 100ms;

HealthOptions passive_only() {
  HealthOptions options;
  options.active = false;
  return options;
}

RequestView request(std::uint64_t id, double prompt_tokens = 50) {
  RequestView view;
  view.id = id;
  view.prompt_tokens = prompt_tokens;
  view.stream = true;
  return view;
}

void probe(WorkerHealth& health, bool alive, Outcome cause, Instant at) {
  health.tick(at);
  health.on_probe_sent(at);
  health.on_probe(alive, cause, at);
}

/// One request that begins and ends so.
void attempt(WorkerHealth& health, Outcome outcome, Instant at) {
  health.on_attempt_started(request(1), at);
  health.on_attempt(1, outcome, at);
}

TEST(WorkerHealth, NamesItsStatesAndFaults) {
  EXPECT_EQ(to_string(HealthState::unknown), "unknown");
  EXPECT_EQ(to_string(HealthState::healthy), "healthy");
  EXPECT_EQ(to_string(HealthState::suspect), "suspect");
  EXPECT_EQ(to_string(HealthState::ejected), "ejected");
  EXPECT_EQ(to_string(Fault::refused), "refused");
  EXPECT_EQ(to_string(Fault::probe), "probe");
}

TEST(WorkerHealth, StartsUnknownUsableAndAsksForAProbeAtOnce) {
  const WorkerHealth health({}, kStart);
  EXPECT_EQ(health.state(), HealthState::unknown);
  EXPECT_EQ(health.standing(), Standing::fine);
  EXPECT_TRUE(health.probe_due(kStart));
  EXPECT_EQ(health.ramp(kStart), 1);
  EXPECT_EQ(health.since(), kStart);
}

TEST(WorkerHealth, LateWorkerAnswersAProbeFirstAndThenStartsSlowly) {
  WorkerHealth health({}, kStart, true);
  EXPECT_EQ(health.standing(), Standing::doubted);
  probe(health, true, Outcome::ok, kStart + 1s);
  EXPECT_EQ(health.standing(), Standing::fine);
  EXPECT_DOUBLE_EQ(health.ramp(kStart + 1s), 0.1);
  EXPECT_DOUBLE_EQ(health.ramp(kStart + 6s), 0.55);
  EXPECT_DOUBLE_EQ(health.ramp(kStart + 11s), 1);
}

TEST(WorkerHealth, LateWorkerWithoutProbesIsUsedAtOnceButLittle) {
  WorkerHealth health(passive_only(), kStart, true);
  EXPECT_EQ(health.standing(), Standing::fine);
  EXPECT_DOUBLE_EQ(health.ramp(kStart + 1h), 0.1);
  attempt(health, Outcome::ok, kStart + 1h);
  EXPECT_DOUBLE_EQ(health.ramp(kStart + 1h + 10s), 1);
}

TEST(WorkerHealth, ProbesOncePerInterval) {
  WorkerHealth health({}, kStart);
  health.on_probe_sent(kStart);
  EXPECT_FALSE(health.probe_due(kStart + 500ms));
  health.on_probe(true, Outcome::ok, kStart + 500ms);
  EXPECT_EQ(health.state(), HealthState::healthy);
  EXPECT_FALSE(health.probe_due(kStart + 999ms));
  EXPECT_TRUE(health.probe_due(kStart + 1s));
}

TEST(WorkerHealth, SendsNoSecondProbeWhileOneIsOutButForgetsALostOne) {
  WorkerHealth health({}, kStart);
  health.on_probe_sent(kStart);
  EXPECT_FALSE(health.probe_due(kStart + 1999ms));
  EXPECT_TRUE(health.probe_due(kStart + 2s));
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
      {"one server error", {server_error}, HealthState::unknown},
      {"three faults in a row", {server_error, reset, protocol}, HealthState::ejected},
      {"a good answer between faults", {timeout, timeout, ok, timeout, timeout}, HealthState::healthy},
      {"faults, then good", {reset, reset, ok}, HealthState::healthy},
      {"refused at once", {refused}, HealthState::ejected},
      {"a burst of 4xx", std::vector<Outcome>(50, client_error), HealthState::healthy},
      {"a burst of 429 and 503", std::vector<Outcome>(50, overloaded), HealthState::healthy},
      {"only cancellations", std::vector<Outcome>(50, canceled), HealthState::unknown},
      {"cancellation neither adds nor clears",
       {reset, canceled, reset, canceled, reset},
       HealthState::ejected},
      {"4xx is an answer and clears", {reset, reset, client_error, reset, reset}, HealthState::healthy},
  };
  for (const auto& one : cases) {
    WorkerHealth health({}, kStart);
    for (const Outcome outcome : one.outcomes) attempt(health, outcome, kStart);
    EXPECT_EQ(health.state(), one.expected) << one.name;
  }
}

TEST(WorkerHealth, TellsOutliersFromTheDead) {
  WorkerHealth health({}, kStart);
  for (int i = 0; i < 3; ++i) attempt(health, Outcome::server_error, kStart);
  EXPECT_EQ(health.standing(), Standing::outlier);
  probe(health, false, Outcome::refused, kStart + 1s);
  EXPECT_EQ(health.standing(), Standing::dead);
}

TEST(WorkerHealth, CountsCausesApart) {
  WorkerHealth health({}, kStart);
  attempt(health, Outcome::timeout, kStart);
  health.on_attempt_started(request(7), kStart);
  health.on_flowing(7, Outcome::ok, kStart + 1s);
  health.on_attempt(7, Outcome::timeout, kStart + 9s);
  attempt(health, Outcome::client_error, kStart + 9s);
  attempt(health, Outcome::overloaded, kStart + 9s);
  attempt(health, Outcome::canceled, kStart + 9s);
  attempt(health, Outcome::server_error, kStart + 9s);
  attempt(health, Outcome::reset, kStart + 9s);
  attempt(health, Outcome::protocol, kStart + 9s);
  attempt(health, Outcome::refused, kStart + 9s);
  probe(health, false, Outcome::server_error, kStart + 9s);
  for (std::size_t i = 0; i < kFaults; ++i) {
    EXPECT_EQ(health.faults(static_cast<Fault>(i)), 1u) << to_string(static_cast<Fault>(i));
  }
}

TEST(WorkerHealth, FaultOfARequestAsksForAProbeAtOnce) {
  WorkerHealth health({}, kStart);
  probe(health, true, Outcome::ok, kStart);
  EXPECT_FALSE(health.probe_due(kStart + 300ms));
  attempt(health, Outcome::reset, kStart + 300ms);
  EXPECT_TRUE(health.probe_due(kStart + 300ms));
}

// --- probes ---

TEST(WorkerHealth, IdleWorkerIsOutAfterFallFailedProbes) {
  WorkerHealth health({}, kStart);
  probe(health, true, Outcome::ok, kStart);
  probe(health, false, Outcome::timeout, kStart + 1s);
  EXPECT_EQ(health.standing(), Standing::doubted);
  EXPECT_EQ(health.last_fault(), Outcome::timeout);
  probe(health, false, Outcome::timeout, kStart + 2s);
  EXPECT_EQ(health.standing(), Standing::dead);
  EXPECT_EQ(health.since(), kStart + 2s);
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

TEST(WorkerHealth, RefusedProbeEjectsAtOnceEvenWhileStreamsFlow) {
  WorkerHealth health({}, kStart);
  health.on_progress(kStart);
  probe(health, false, Outcome::refused, kStart);
  EXPECT_EQ(health.standing(), Standing::dead);
  EXPECT_EQ(health.last_fault(), Outcome::refused);
  EXPECT_FALSE(health.waits_in_vain(request(1), kStart, kStart)) << "what it has begun it may finish";
}

TEST(WorkerHealth, CanceledProbeSaysNothing) {
  WorkerHealth health({}, kStart);
  for (int i = 0; i < 10; ++i) probe(health, false, Outcome::canceled, kStart + i * 2s);
  EXPECT_EQ(health.state(), HealthState::unknown);
  EXPECT_TRUE(health.probe_due(kStart + 20s));
}

// --- a worker in scripted time ---

/// A worker with a steady load of streams, ticked and probed as the gateway does it, and stopped or blocked
/// for a while by the test.
struct Scene {
  explicit Scene(HealthOptions with = {}) : options(with), health(with, kStart) {}

  /// Streams of 0.8 s with a piece every 50 ms, `gap` apart.
  Duration gap = 50ms;
  Duration first_byte = 50ms;
  double prompt_tokens = 50;
  bool probes_pass = true;         // also while it is blocked
  Instant blocked_until = kStart;  // no byte before
  bool sends_to_suspects = false;

  void run(Duration span) {
    for (const Instant end = now + span; now < end; now += 10ms) turn();
  }

  HealthOptions options;
  WorkerHealth health;
  Instant now = kStart;
  std::optional<Instant> suspected, ejected;
  std::uint32_t probes = 0;
  std::size_t waiting() const { return streams.size(); }

 private:
  struct Stream {
    std::uint64_t id;
    Instant begun;
    Duration served{};
    bool answered = false;
  };

  void turn() {
    const bool blocked = now < blocked_until;
    const bool wanted =
        health.standing() == Standing::fine || (sends_to_suspects && health.standing() == Standing::doubted);
    if (now >= next_arrival && wanted) {
      streams.push_back({++last_id, now});
      health.on_attempt_started(request(last_id, prompt_tokens), now);
      next_arrival = now + gap;
    }
    if (probe_out && (probes_pass || !blocked) && now >= *probe_out) {
      probe_out.reset();
      health.on_probe(true, Outcome::ok, now);
    } else if (probe_out && now >= probe_sent + options.timeout) {
      probe_out.reset();
      health.on_probe(false, Outcome::timeout, now);
    }
    if (!blocked) serve();
    if ((now - kStart) % kTick == 0ms) {
      health.tick(now);
      if (health.probe_due(now)) {
        ++probes;
        health.on_probe_sent(now);
        probe_sent = now;
        probe_out = now + 10ms;
      }
    }
    if (!suspected && health.standing() == Standing::doubted) suspected = now;
    if (!ejected && health.state() == HealthState::ejected) ejected = now;
  }

  void serve() {
    for (Stream& stream : streams) {
      stream.served += 10ms;
      if (stream.served < first_byte) continue;
      if (!std::exchange(stream.answered, true)) health.on_flowing(stream.id, Outcome::ok, now);
      if (stream.served % 50ms == 0ms) health.on_progress(now);
      if (stream.served >= first_byte + 800ms) health.on_attempt(stream.id, Outcome::ok, now);
    }
    std::erase_if(streams, [&](const Stream& stream) { return stream.served >= first_byte + 800ms; });
  }

  std::vector<Stream> streams;
  std::uint64_t last_id = 0;
  Instant next_arrival = kStart;
  Instant probe_sent{};
  std::optional<Instant> probe_out;
};

TEST(WorkerHealth, StoppedWorkerIsDoubtedWithinASecondAndOutWithinTwo) {
  Scene scene;
  scene.run(5s);
  EXPECT_EQ(scene.health.state(), HealthState::healthy);
  EXPECT_LE(scene.probes, 6u) << "no early probes while streams flow";
  scene.probes_pass = false;
  scene.blocked_until = Instant::max();
  const Instant stopped = scene.now;
  scene.run(2s);
  ASSERT_TRUE(scene.suspected && scene.ejected);
  EXPECT_LE(*scene.suspected - stopped, 1s);
  EXPECT_LE(*scene.ejected - stopped, 1700ms);
  EXPECT_GT(*scene.ejected - stopped, 1400ms) << "the silence allowed";
  EXPECT_TRUE(scene.health.waits_in_vain(request(1), stopped, scene.now));
  EXPECT_GT(scene.health.silences(), 0u);
}

TEST(WorkerHealth, StopEndsWithinASecondOfItsContinuation) {
  Scene scene;
  scene.probes_pass = false;
  scene.run(1s);
  scene.blocked_until = scene.now + 5s;
  scene.run(5s);
  ASSERT_TRUE(scene.ejected);
  scene.run(1200ms);
  EXPECT_EQ(scene.health.state(), HealthState::healthy);
  EXPECT_FALSE(scene.health.waits_in_vain(request(1), kStart, scene.now));
  EXPECT_LT(scene.health.ramp(scene.now), 0.3);
}

TEST(WorkerHealth, ByteEndsTheDoubtOfASilentWorkerAtOnce) {
  Scene scene;
  scene.probes_pass = false;
  scene.run(1s);
  scene.blocked_until = scene.now + 990ms;
  scene.run(980ms);
  ASSERT_EQ(scene.health.state(), HealthState::suspect);
  scene.run(100ms);
  EXPECT_EQ(scene.health.state(), HealthState::healthy);
}

TEST(WorkerHealth, SilentWorkerThatAnswersProbesIsAskedSeldomAndStays) {
  Scene scene;
  scene.run(1s);
  scene.probes = 0;
  scene.blocked_until = scene.now + 60s;
  scene.run(60s);
  EXPECT_FALSE(scene.ejected || scene.suspected);
  EXPECT_LE(scene.probes, 65u) << "about one per interval";
}

TEST(WorkerHealth, FlowingStreamsExcuseMissedProbesButNotNewRequests) {
  WorkerHealth health({}, kStart);
  health.on_attempt_started(request(1), kStart);
  Instant now = kStart;
  for (int i = 0; i < 30; ++i, now += 1s) {
    health.on_probe_sent(now + 1ms);
    for (int k = 1; k <= 10; ++k) {
      health.on_progress(now + k * 100ms);
      health.tick(now + k * 100ms);
    }
    health.on_probe(false, Outcome::timeout, now + 1s);
    EXPECT_EQ(health.standing(), Standing::doubted);
  }
  health.on_probe_sent(now + 1ms);
  for (int k = 1; k <= 10; ++k) health.tick(now + k * 100ms);
  health.on_probe(false, Outcome::timeout, now + 1001ms);
  EXPECT_EQ(health.state(), HealthState::suspect) << "silent for 1 s only";
  for (int k = 11; k <= 16; ++k) health.tick(now + k * 100ms);
  EXPECT_EQ(health.state(), HealthState::ejected);
}

TEST(WorkerHealth, WholeAnswersExcuseSilenceOnlyWhereProbesAreBlockedToo) {
  for (const bool answers_probes : {false, true}) {
    WorkerHealth health({}, kStart);
    RequestView whole = request(1);
    whole.stream = false;
    Instant now = kStart;
    health.on_attempt_started(whole, now);
    for (int i = 0; i < 60; ++i, now += kTick) {
      health.tick(now);
      if (!answers_probes || !health.probe_due(now)) continue;
      health.on_probe_sent(now);
      health.on_probe(true, Outcome::ok, now);
    }
    health.on_flowing(1, Outcome::ok, now);
    health.on_attempt(1, Outcome::ok, now);
    whole.id = 2;
    health.on_attempt_started(whole, now);
    health.on_probe_sent(now += 1ms);
    for (int i = 0; i < 9; ++i) health.tick(now += kTick);
    health.on_probe(false, Outcome::timeout, now += kTick);
    for (int i = 0; i < 10; ++i) health.tick(now += kTick);
    EXPECT_EQ(health.state() == HealthState::ejected, answers_probes);
  }
}

TEST(WorkerHealth, ShortPromptsMayLeaveAWorkerThatALongOneKeepsSilent) {
  Scene scene;
  scene.run(5s);
  const RequestView prompt = request(1000000, 30000);
  const Instant begun = scene.now;
  scene.health.on_attempt_started(prompt, begun);
  scene.probes_pass = false;
  scene.blocked_until = begun + 30s;
  scene.run(1s);
  EXPECT_EQ(scene.health.silences(), 0u);
  scene.run(1s);
  EXPECT_EQ(scene.health.silences(), 1u);
  EXPECT_EQ(scene.health.state(), HealthState::suspect);
  EXPECT_TRUE(scene.health.waits_in_vain(request(1), begun, scene.now));
  EXPECT_FALSE(scene.health.waits_in_vain(prompt, begun, scene.now));
  scene.run(29s);
  EXPECT_FALSE(scene.ejected);
}

RC_GTEST_PROP(WorkerHealthProperty, StoppedWorkerIsNoticedWhateverTheLoad, ()) {
  Scene scene;
  scene.gap = *rc::gen::inRange(1, 20) * 10ms;
  scene.first_byte = *rc::gen::inRange(1, 25) * 10ms;
  scene.prompt_tokens = *rc::gen::inRange(1, 400);
  scene.sends_to_suspects = *rc::gen::arbitrary<bool>();
  scene.run(20s + *rc::gen::inRange(0, 100) * 10ms);
  RC_ASSERT(scene.health.state() == HealthState::healthy);
  scene.probes_pass = false;
  scene.blocked_until = Instant::max();
  const Instant stopped = scene.now;
  scene.run(3s);
  RC_ASSERT(scene.suspected && *scene.suspected - stopped <= 1s);
  RC_ASSERT(scene.ejected && *scene.ejected - stopped <= 2s);
}

RC_GTEST_PROP(WorkerHealthProperty, PrefillThatBlocksEverythingEjectsNobody, ()) {
  Scene scene;
  scene.gap = *rc::gen::inRange(2, 20) * 10ms;
  const double tokens_per_s = *rc::gen::inRange(100, 20000);
  const bool learned = *rc::gen::arbitrary<bool>();
  scene.prompt_tokens = *rc::gen::inRange(10, 200);
  scene.first_byte = 10ms * (2 + static_cast<int>(100 * scene.prompt_tokens / tokens_per_s));
  if (learned) scene.run(20s);
  // Prompts of an engine this fast that take 30 s; above 1000 tokens/s, so long that no cache hides it.
  const double prefill_s = *rc::gen::inRange(1, 31);
  RequestView prompt = request(1000000, prefill_s * tokens_per_s);
  const Instant begun = scene.now;
  scene.health.on_attempt_started(prompt, begun);
  scene.probes_pass = false;
  scene.blocked_until = begun + from_seconds(prefill_s);
  scene.run(from_seconds(prefill_s) + 100ms);
  RC_ASSERT(!scene.ejected);
  scene.health.on_flowing(prompt.id, Outcome::ok, scene.now);
  scene.run(2s);
  RC_ASSERT(!scene.ejected);
  RC_ASSERT(scene.health.state() == HealthState::healthy);
}

// --- return ---

TEST(WorkerHealth, ReturnsAfterRiseGoodProbesInARow) {
  HealthOptions options;
  options.rise = 2;
  WorkerHealth health(options, kStart);
  attempt(health, Outcome::refused, kStart);
  EXPECT_FALSE(health.probe_due(kStart + 999ms));
  EXPECT_TRUE(health.probe_due(kStart + 1s));
  probe(health, true, Outcome::ok, kStart + 1s);
  EXPECT_EQ(health.standing(), Standing::dead);
  probe(health, false, Outcome::reset, kStart + 2s);
  probe(health, true, Outcome::ok, kStart + 3s);
  EXPECT_EQ(health.standing(), Standing::dead) << "the failure between starts the count again";
  probe(health, true, Outcome::ok, kStart + 4s);
  EXPECT_EQ(health.state(), HealthState::healthy);
}

TEST(WorkerHealth, ProbeSentBeforeTheEjectionCannotUndoIt) {
  WorkerHealth health({}, kStart);
  health.on_probe_sent(kStart);
  attempt(health, Outcome::refused, kStart + 5ms);
  health.on_probe(true, Outcome::ok, kStart + 1005ms);
  EXPECT_EQ(health.state(), HealthState::ejected);
  probe(health, true, Outcome::ok, kStart + 1100ms);
  EXPECT_EQ(health.state(), HealthState::healthy);
}

TEST(WorkerHealth, AttemptsFromBeforeTheEjectionDoNotUndoIt) {
  WorkerHealth health({}, kStart);
  health.on_attempt_started(request(9), kStart);
  attempt(health, Outcome::refused, kStart);
  health.on_flowing(9, Outcome::ok, kStart + 1ms);
  health.on_attempt(9, Outcome::ok, kStart + 1ms);
  EXPECT_EQ(health.state(), HealthState::ejected);
}

TEST(WorkerHealth, FlappingWorkerStaysAwayLongerEachTimeUntilAGoodMinute) {
  WorkerHealth health({}, kStart);
  Instant now = kStart;
  for (const Duration hold : {1s, 2s, 4s, 8s, 16s, 30s, 30s}) {
    attempt(health, Outcome::refused, now);
    probe(health, true, Outcome::ok, now + hold - 1ms);
    EXPECT_EQ(health.state(), HealthState::ejected) << to_seconds(hold);
    now += hold;
    probe(health, true, Outcome::ok, now);
    ASSERT_EQ(health.state(), HealthState::healthy) << to_seconds(hold);
  }
  now += 60s;
  attempt(health, Outcome::refused, now);
  probe(health, true, Outcome::ok, now + 1s);
  EXPECT_EQ(health.state(), HealthState::healthy);
}

TEST(WorkerHealth, ReturnedWorkerIsRampedUpLinearly) {
  WorkerHealth health({}, kStart);
  attempt(health, Outcome::refused, kStart);
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
  attempt(health, Outcome::refused, kStart);
  probe(health, true, Outcome::ok, kStart + 1s);
  EXPECT_EQ(health.ramp(kStart + 1s), 1);
}

TEST(WorkerHealth, OneTrialRequestFindsOutWhetherAnOutlierIsBack) {
  for (const HealthOptions& options : {HealthOptions{}, passive_only()}) {
    WorkerHealth health(options, kStart);
    for (int i = 0; i < 3; ++i) attempt(health, Outcome::server_error, kStart);
    probe(health, true, Outcome::ok, kStart + 999ms);
    EXPECT_EQ(health.standing(), Standing::outlier) << "its probes were good all the time";
    health.tick(kStart + 1s);
    EXPECT_EQ(health.standing(), Standing::fine);
    EXPECT_EQ(health.state(), HealthState::ejected) << "not proven yet";
    health.on_attempt_started(request(5), kStart + 1s);
    EXPECT_EQ(health.standing(), Standing::outlier) << "one trial at a time";
    health.on_attempt_started(request(6), kStart + 1s);
    health.on_flowing(6, Outcome::ok, kStart + 1s);
    EXPECT_EQ(health.state(), HealthState::ejected) << "another request is not the trial";
    health.on_flowing(5, Outcome::client_error, kStart + 2s);
    EXPECT_EQ(health.state(), HealthState::healthy) << "before the end of a long answer";
    EXPECT_DOUBLE_EQ(health.ramp(kStart + 2s), 0.1);
  }
}

TEST(WorkerHealth, TrialPauseDoublesTo30Seconds) {
  WorkerHealth health(passive_only(), kStart);
  Instant now = kStart;
  attempt(health, Outcome::refused, now);
  for (const Duration pause : {1s, 2s, 4s, 8s, 16s, 30s, 30s}) {
    health.tick(now + pause - 1ms);
    EXPECT_EQ(health.standing(), Standing::dead);
    now += pause;
    health.tick(now);
    ASSERT_EQ(health.standing(), Standing::fine) << to_seconds(pause);
    attempt(health, Outcome::refused, now);
  }
  health.tick(now + 30s);
  attempt(health, Outcome::ok, now + 30s);
  EXPECT_EQ(health.state(), HealthState::healthy);
}

TEST(WorkerHealth, CanceledOrEndlessTrialIsOfferedAgain) {
  WorkerHealth health(passive_only(), kStart);
  attempt(health, Outcome::refused, kStart);
  health.tick(kStart + 1s);
  attempt(health, Outcome::canceled, kStart + 1s);
  EXPECT_EQ(health.standing(), Standing::fine);
  health.on_attempt_started(request(2), kStart + 2s);
  health.tick(kStart + 31s);
  EXPECT_EQ(health.standing(), Standing::dead);
  health.tick(kStart + 32s);
  EXPECT_EQ(health.standing(), Standing::fine);
}

TEST(WorkerHealth, NoTrialForTheDeadWhereProbesCanTell) {
  WorkerHealth health({}, kStart);
  for (int i = 0; i < 3; ++i) attempt(health, Outcome::server_error, kStart);
  health.tick(kStart + 1s);
  ASSERT_EQ(health.standing(), Standing::fine);
  attempt(health, Outcome::refused, kStart + 1s);
  health.tick(kStart + 1h);
  EXPECT_EQ(health.standing(), Standing::dead);
  probe(health, true, Outcome::ok, kStart + 1h);
  EXPECT_EQ(health.state(), HealthState::healthy);
}

TEST(WorkerHealth, ChangedOptionsKeepTheState) {
  WorkerHealth health({}, kStart);
  attempt(health, Outcome::refused, kStart);
  HealthOptions options;
  options.rise = 2;
  health.set_options(options);
  EXPECT_EQ(health.standing(), Standing::dead);
  probe(health, true, Outcome::ok, kStart + 1s);
  EXPECT_EQ(health.standing(), Standing::dead);
  probe(health, true, Outcome::ok, kStart + 2s);
  EXPECT_EQ(health.standing(), Standing::fine);
}

// --- any order of events ---

HealthOptions any_options(bool active) {
  HealthOptions options;
  options.active = active;
  options.interval = *rc::gen::inRange(1, 5000) * 1ms;
  options.timeout = *rc::gen::inRange(1, 5000) * 1ms;
  options.probe_back = *rc::gen::inRange(1, 3000) * 1ms;
  options.silence = *rc::gen::inRange(10, 5000) * 1ms;
  options.fall = *rc::gen::inRange(1u, 5u);
  options.rise = *rc::gen::inRange(1u, 5u);
  options.passive_faults = *rc::gen::inRange(1u, 6u);
  return options;
}

Outcome any_outcome() { return static_cast<Outcome>(*rc::gen::inRange(0, 9)); }

Instant random_events(WorkerHealth& health, bool probes) {
  Instant now = kStart;
  std::set<std::uint64_t> under_way;
  std::uint64_t last_id = 1000;
  const int events = *rc::gen::inRange(0, 80);
  const auto any_under_way = [&] {
    return *std::next(under_way.begin(), *rc::gen::inRange<std::size_t>(0, under_way.size()));
  };
  for (int i = 0; i < events; ++i) {
    now += *rc::gen::inRange(0, 3000) * 1ms;
    const int what = *rc::gen::inRange(probes ? 0 : 2, 7);
    if (what == 0) health.on_probe_sent(now);
    if (what == 1) health.on_probe(*rc::gen::arbitrary<bool>(), any_outcome(), now);
    if (what == 2) {
      under_way.insert(++last_id);
      health.on_attempt_started(request(last_id), now);
    }
    if (what == 3 && !under_way.empty()) {
      const std::uint64_t ended = any_under_way();
      under_way.erase(ended);
      health.on_attempt(ended, any_outcome(), now);
    }
    if (what == 4 && !under_way.empty()) health.on_flowing(any_under_way(), any_outcome(), now);
    if (what == 5) health.on_progress(now);
    if (what == 6) health.tick(now);
    RC_ASSERT(health.state() == HealthState::ejected || health.standing() <= Standing::doubted);
    RC_ASSERT(health.ramp(now) > 0 && health.ramp(now) <= 1);
  }
  return now;
}

// "Stuck" is the failure seen elsewhere: a lost or canceled probe after which a worker is never asked again,
// a trial that never ends.
RC_GTEST_PROP(WorkerHealthProperty, GoodWorkerReturnsWhateverHappenedBefore, ()) {
  const HealthOptions options = any_options(*rc::gen::arbitrary<bool>());
  WorkerHealth health(options, kStart, *rc::gen::arbitrary<bool>());
  Instant now = random_events(health, options.active);
  const Instant latest = now + 2 * options.timeout + options.hold_max + options.interval +
                         options.rise * (options.probe_back + kTick) + 2 * kTick;
  for (; now <= latest; now += kTick) {
    health.tick(now);
    if (health.probe_due(now)) probe(health, true, Outcome::ok, now);
    if (health.state() == HealthState::ejected && health.standing() == Standing::fine)
      attempt(health, Outcome::ok, now);
  }
  RC_ASSERT(health.standing() == Standing::fine);
}

RC_GTEST_PROP(WorkerHealthProperty, NothingButFaultsEjects, ()) {
  WorkerHealth health(any_options(*rc::gen::arbitrary<bool>()), kStart);
  const int events = *rc::gen::inRange(0, 200);
  for (int i = 0; i < events; ++i) {
    const Outcome outcome = any_outcome();
    if (is_worker_fault(outcome)) continue;
    attempt(health, outcome, kStart + i * 1s);
    RC_ASSERT(health.standing() == Standing::fine);
  }
}

}  // namespace
}  // namespace heng
