// The line that speeds are read from.
#include "policy/route/fading_line.h"

#include <gtest/gtest.h>

namespace heng {
namespace {

constexpr double kKeep = 0.98, kPriorPoints = 10;

FadingLine through(const LineEstimate& truth, const LineEstimate& prior, int points) {
  FadingLine line;
  for (int i = 0; i < points; ++i) {
    const double x = 100 * (1 + i % 20);
    line.add(x, truth.at(x), kKeep, prior);
  }
  return line;
}

TEST(FadingLine, FewPointsGiveThePriorScaledToThem) {
  const LineEstimate prior{.base = 0.02, .slope = 1e-4};
  EXPECT_EQ(FadingLine().estimate(prior, kPriorPoints).slope, prior.slope);
  const LineEstimate twice{.base = 0.04, .slope = 2e-4};
  const LineEstimate found = through(twice, prior, 1).estimate(prior, kPriorPoints);
  EXPECT_GT(found.slope, prior.slope);
  EXPECT_LT(found.slope, twice.slope);
}

TEST(FadingLine, ManyPointsGiveTheirOwnLine) {
  const LineEstimate prior{.base = 0.02, .slope = 1e-4};
  const LineEstimate truth{.base = 0.1, .slope = 3e-4};
  const LineEstimate found = through(truth, prior, 500).estimate(prior, kPriorPoints);
  for (const double x : {200, 1000, 2000}) EXPECT_NEAR(found.at(x), truth.at(x), 0.2 * truth.at(x));
}

TEST(FadingLine, APriorThroughTheOriginDoesNotHideThePoints) {
  const LineEstimate prior{.base = 0, .slope = 1e-4};
  for (const double slope : {0.5e-4, 1e-4, 3e-4}) {
    const LineEstimate found = through({.base = 0, .slope = slope}, prior, 500).estimate(prior, kPriorPoints);
    EXPECT_NEAR(found.slope, slope, 0.2 * slope);
  }
}

}  // namespace
}  // namespace heng
