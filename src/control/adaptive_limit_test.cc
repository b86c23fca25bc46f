// The learned limit: grows while first bytes are on time, shrinks when they are not, stays in its bounds.
#include "control/adaptive_limit.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <functional>

#include "base/rng.h"

namespace heng {
namespace {

/// A worker kept at its limit that answers `seconds(in_flight, sample number)` after it was asked.
std::uint32_t run(AdaptiveLimit& limit, Instant& now, int answers,
                  const std::function<double(double, int)>& seconds) {
  for (int i = 0; i < answers; ++i) {
    now += 50ms;
    limit.on_first_byte(100, from_seconds(seconds(limit.limit(), i)), limit.limit(), now);
  }
  return limit.limit();
}

/// 0.1 s, and above `capacity` in addition the time in which an equal share of those in excess is served.
auto queue_beyond(double capacity) {
  return [capacity](double in_flight, int) { return 0.1 + std::max(0.0, in_flight - capacity) * 0.1; };
}

TEST(AdaptiveLimit, FindsWhereQueueingBegins) {
  for (const double capacity : {12.0, 40.0, 200.0}) {
    AdaptiveLimit limit({}, Instant{});
    Instant now{};
    run(limit, now, 6000, queue_beyond(capacity));
    double sum = 0;
    for (int i = 0; i < 2000; ++i) sum += run(limit, now, 1, queue_beyond(capacity));
    EXPECT_GT(sum / 2000, 0.8 * capacity);
    EXPECT_LT(sum / 2000, 1.25 * capacity + 5);
  }
}

TEST(AdaptiveLimit, FollowsAWorkerThatBecameSmallerAndBack) {
  AdaptiveLimit limit({}, Instant{});
  Instant now{};
  EXPECT_GT(run(limit, now, 6000, queue_beyond(100)), 80u);
  EXPECT_LT(run(limit, now, 3000, queue_beyond(20)), 40u);
  EXPECT_GT(run(limit, now, 6000, queue_beyond(100)), 80u);
}

TEST(AdaptiveLimit, DoesNotGrowUnused) {
  AdaptiveLimit limit({}, Instant{});
  Instant now{};
  for (int i = 0; i < 5000; ++i) limit.on_first_byte(100, 100ms, 3, now += 50ms);
  EXPECT_EQ(limit.limit(), 8u);
}

TEST(AdaptiveLimit, AMixtureOfCachedAndUncachedPromptsIsNoLoad) {
  for (const double hits : {0.0, 0.01, 0.05, 0.1, 0.3, 0.5, 0.9, 0.99}) {
    AdaptiveLimit limit({.max = 200}, Instant{});
    Instant now{};
    Rng rng(1);
    const auto mixture = [&](double, int) { return rng.uniform() < hits ? 0.02 : 2 + rng.uniform(); };
    EXPECT_EQ(run(limit, now, 20'000, mixture), 200u) << hits;
  }
}

TEST(AdaptiveLimit, SlowerAnswersThatNoLimitMakesFasterAreNoLoad) {
  AdaptiveLimit limit({.max = 200}, Instant{});
  Instant now{};
  EXPECT_EQ(run(limit, now, 6000, [](double, int) { return 0.1; }), 200u);
  EXPECT_GT(run(limit, now, 3000, [](double, int) { return 3.0; }), 150u) << "prompts no longer cached";
}

TEST(AdaptiveLimit, HeedsRefusalsOnceForEachBurst) {
  AdaptiveLimit limit({}, Instant{});
  Instant now{};
  run(limit, now, 3000, queue_beyond(1e9));
  const std::uint32_t before = limit.limit();
  now += 1s;
  for (int i = 0; i < 50; ++i) limit.on_refused(before, now);
  EXPECT_EQ(limit.limit(), static_cast<std::uint32_t>(before * 0.9));
}

TEST(AdaptiveLimitProperty, StaysWithinItsBoundsWhateverHappens) {
  EXPECT_TRUE(rc::check("min <= limit <= max", [] {
    AdaptiveLimitOptions options;
    options.min = *rc::gen::inRange<std::uint32_t>(1, 50);
    options.max = options.min + *rc::gen::inRange<std::uint32_t>(0, 500);
    AdaptiveLimit limit(options, Instant{});
    Instant now{};
    for (const int step : *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 10'000))) {
      now += std::chrono::milliseconds(step % 700);
      const auto in_flight = static_cast<std::uint32_t>(step % 600);
      if (step % 17 == 0) {
        limit.on_refused(in_flight, now);
      } else {
        for (int i = 0; i < 25; ++i)
          limit.on_first_byte(step * 10, std::chrono::milliseconds(step % 4000), in_flight, now);
      }
      RC_ASSERT(limit.limit() >= options.min);
      RC_ASSERT(limit.limit() <= options.max);
    }
  }));
}

}  // namespace
}  // namespace heng
