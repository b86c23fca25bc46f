// Tests of the forgetting averages.
#include "base/stats.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <vector>

namespace heng {
namespace {

const Instant kStart{std::chrono::hours(5)};

TEST(Decay, HalvesEveryHalfLife) {
  EXPECT_DOUBLE_EQ(decay(0s, 2s), 1);
  EXPECT_DOUBLE_EQ(decay(2s, 2s), 0.5);
  EXPECT_DOUBLE_EQ(decay(6s, 2s), 0.125);
}

TEST(Ewma, BeginsWithItsFirstSample) {
  Ewma mean(10s);
  EXPECT_EQ(mean.mean(), 0);
  EXPECT_EQ(mean.weight_at(kStart), 0);
  mean.add(7, kStart);
  EXPECT_DOUBLE_EQ(mean.mean(), 7);
  EXPECT_DOUBLE_EQ(mean.weight_at(kStart + 10s), 0.5);
  EXPECT_DOUBLE_EQ(mean.mean(), 7);
}

TEST(Ewma, OlderSamplesCountHalfPerHalfLife) {
  Ewma mean(10s);
  mean.add(0, kStart);
  mean.add(3, kStart + 10s);
  EXPECT_DOUBLE_EQ(mean.mean(), 2);  // (0 x 1/2 + 3 x 1) / 1.5
}

TEST(Ewma, WeightsScaleSamples) {
  Ewma mean(1s);
  mean.add(1, kStart, 3);
  mean.add(5, kStart, 1);
  EXPECT_DOUBLE_EQ(mean.mean(), 2);
  mean.add(100, kStart, 0);
  EXPECT_DOUBLE_EQ(mean.mean(), 2);
}

TEST(Ewma, ALateSampleDoesNotTurnTimeBack) {
  Ewma mean(1s);
  mean.add(1, kStart + 5s);
  mean.add(3, kStart);
  EXPECT_DOUBLE_EQ(mean.mean(), 2);
  EXPECT_DOUBLE_EQ(mean.weight_at(kStart + 6s), 1);
}

RC_GTEST_PROP(EwmaProperty, EqualsTheDirectSum, ()) {
  const auto gaps_ms = *rc::gen::nonEmpty<std::vector<std::uint16_t>>();
  const double half_life_s = *rc::gen::inRange(1, 100) / 10.0;
  Ewma mean(from_seconds(half_life_s));
  std::vector<double> times, values;
  Instant now = kStart;
  for (const std::uint16_t gap : gaps_ms) {
    now += std::chrono::milliseconds(gap % 3000);
    times.push_back(to_seconds(now - kStart));
    values.push_back(static_cast<double>(gap % 17));
    mean.add(values.back(), now);
  }
  double sum = 0, weight = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double share = std::exp2((times[i] - times.back()) / half_life_s);
    sum += share * values[i];
    weight += share;
  }
  RC_ASSERT(std::abs(mean.mean() - sum / weight) < 1e-9);
  RC_ASSERT(std::abs(mean.weight_at(now) - weight) < 1e-9 * weight);
}

}  // namespace
}  // namespace heng
