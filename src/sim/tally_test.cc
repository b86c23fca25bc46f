// What the tally counts, and as what.
#include "sim/tally.h"

#include <gtest/gtest.h>

#include "sim/measures.h"

namespace heng {
namespace {

double measure(const Tally& tally, std::string_view name) { return find_measure(name)->of(tally); }

TEST(Tally, WithoutStreamThereIsNoFirstTokenAndTheWholeAnswerHasTheTimeOfBothObjectives) {
  Tally tally({.workers = 1, .speeds = {1}, .ttft_objective = 1s, .tpot_objective = 100ms});
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

}  // namespace
}  // namespace heng
