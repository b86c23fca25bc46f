// What the tally counts, and as what.
#include "sim/tally.h"

#include <gtest/gtest.h>

#include "sim/measures.h"

namespace heng {
namespace {

double measure(const Tally& tally, std::string_view name) { return find_measure(name)->of(tally); }

TEST(Tally, WithoutStreamThereIsNoFirstTokenAndTheWholeAnswerHasTheTimeOfBothObjectives) {
  Tally tally({.workers = 1, .speeds = {1}, .ttft_objective = 1s, .tpot_objective = 100ms});
  tally.on_arrival(Instant(1s));
  const auto answered = [&](bool stream, Duration ttft, Duration duration) {
    tally.on_end({.arrived = Instant(1s),
                  .stream = stream,
                  .ttft = ttft,
                  .duration = duration,
                  .prompt_tokens = 10,
                  .output_tokens = 11});
  };
  answered(true, 1s, 2s);
  answered(false, 2s, 2s);
  EXPECT_EQ(tally.good(), 2u);
  answered(true, 1100ms, 2s);
  answered(true, 500ms, 2s);
  answered(false, 2001ms, 2001ms);
  EXPECT_EQ(tally.good(), 2u);
  EXPECT_EQ(tally.ttft().count(), 3u);
  EXPECT_EQ(tally.tpot().count(), 3u);
  EXPECT_EQ(tally.duration().count(), 5u);
  EXPECT_NEAR(measure(tally, "ttft_p99_ms"), 1100, 5);
}

/// One request a second from 0 s on, each taking so long; those of the first 10 s are not counted.
Tally steady(int requests, Duration takes, Duration last_takes) {
  Tally tally({.workers = 1, .speeds = {1}, .warmup = 10s});
  const auto end = [&](int i, Duration took) {
    tally.on_end({.arrived = Instant(i * 1s), .ttft = 1s, .duration = took, .output_tokens = 100});
  };
  const auto late = static_cast<int>(takes / 1s);
  for (int i = 0; i < requests + late; ++i) {
    if (i >= late && i - late < requests - 1) end(i - late, takes);
    if (i < requests) tally.on_arrival(Instant(i * 1s));
  }
  end(requests - 1, last_takes);
  return tally;
}

TEST(Tally, RatesAreOfWhatEndsWhileRequestsCome) {
  for (const Duration last : {Duration(5s), Duration(1000s)}) {
    const Tally tally = steady(111, 5s, last);
    EXPECT_DOUBLE_EQ(measure(tally, "requests_per_s"), 1);
    EXPECT_DOUBLE_EQ(measure(tally, "output_tokens_per_s"), 100);
    EXPECT_DOUBLE_EQ(measure(tally, "ended_s"), 100 + to_seconds(last));
    EXPECT_EQ(tally.completed(), 101u);
  }
}

TEST(Tally, RatesOfABatchAreToItsEnd) {
  const Tally tally = steady(21, 20s, 20s);
  EXPECT_DOUBLE_EQ(measure(tally, "requests_per_s"), 11.0 / 30);
}

}  // namespace
}  // namespace heng
