// Gaps between readings are slept through, everything else is lived, and time never runs backwards.
#include "base/lived_clock.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <vector>

namespace heng {
namespace {

TEST(LivedClock, StandsStillInALongGap) {
  LivedClock clock;
  clock.forgive_gaps(500ms);
  const Instant start{1000s};
  EXPECT_EQ(clock.read(start), start);
  EXPECT_EQ(clock.read(start + 400ms), start + 400ms);
  EXPECT_EQ(clock.read(start + 60400ms), start + 900ms) << "of a minute's sleep only the longest gap counts";
  EXPECT_EQ(clock.slept(), 59500ms);
  EXPECT_EQ(clock.read(start + 60500ms), start + 1s) << "and then it goes on as before";
}

TEST(LivedClock, CountsEverythingUntilToldOtherwise) {
  LivedClock clock;
  const Instant start{1000s};
  static_cast<void>(clock.read(start));
  EXPECT_EQ(clock.read(start + 1h), start + 1h);
  EXPECT_EQ(clock.slept(), 0s);
}

RC_GTEST_PROP(LivedClockProperty, NeverRunsBackwardsNorFasterThanTime,
              (const std::vector<std::uint32_t>& gaps)) {
  LivedClock clock;
  clock.forgive_gaps(500ms);
  Instant monotonic{1000s};
  Instant lived = clock.read(monotonic);
  for (const std::uint32_t gap_us : gaps) {
    const Duration gap = std::chrono::microseconds(gap_us);
    monotonic += gap;
    const Instant next = clock.read(monotonic);
    RC_ASSERT(next - lived == std::min<Duration>(gap, 500ms));
    lived = next;
  }
}

}  // namespace
}  // namespace heng
