// Tests of the feedback arithmetic: the worked example, and its claims as properties over random pools.
#include "model/feedback_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace heng {
namespace {

using Values = std::vector<double>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
const WeightBounds kUnbounded{0, kInfinity};

double total(const Values& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

/// Loads that follow the shares.
Values loads_for(const Values& weights, double total_load) {
  const double sum = total(weights);
  Values loads;
  for (const double weight : weights) loads.push_back(total_load * weight / sum);
  return loads;
}

/// Distance of each share from R_i / sum R.
Values distances(const Values& weights, const Values& capacity) {
  Values result;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    result.push_back(weights[i] / total(weights) - capacity[i] / total(capacity));
  }
  return result;
}

double largest(const Values& values) {
  double result = 0;
  for (const double value : values) result = std::max(result, std::abs(value));
  return result;
}

/// 2 to 12 workers, capacities and starts three decades wide, a load between the given percentages of
/// capacity.
struct Scene {
  Values capacity, weights;
  double load = 0;
  double sum() const { return total(weights); }
};

Scene any_scene(int low_percent = 5, int high_percent = 300) {
  Scene scene;
  const int n = *rc::gen::inRange(2, 13);
  for (int i = 0; i < n; ++i) {
    scene.capacity.push_back(*rc::gen::inRange(1, 1000));
    scene.weights.push_back(*rc::gen::inRange(1, 1000) / 7.0);
  }
  scene.load = total(scene.capacity) * *rc::gen::inRange(low_percent, high_percent) / 100.0;
  return scene;
}

double any_share(int low_percent, int high_percent) {
  return *rc::gen::inRange(low_percent, high_percent) / 100.0;
}

TEST(FeedbackWeights, WorkedExample) {
  const Values capacity{100, 100, 200, 200, 300}, load{50, 60, 80, 90, 40};
  Values weights;
  for (const double r : capacity) weights.push_back(0.5 * r);
  EXPECT_EQ(plain_step(weights, capacity, load, 0.1, {0, 1e9}), PlainStep::moved);
  EXPECT_THAT(weights, testing::Pointwise(testing::DoubleNear(1e-9), Values{55, 54, 112, 111, 176}));
}

TEST(FeedbackWeights, BoundsWithoutSolutionAreRefused) {
  EXPECT_TRUE(check_bounds(4, 4, {0.1, 2}));
  EXPECT_TRUE(check_bounds(3, 0.3, {0.1, 0.1}));
  EXPECT_FALSE(check_bounds(4, 4, {1.1, 2}));
  EXPECT_FALSE(check_bounds(4, 4, {0.1, 0.9}));
  EXPECT_FALSE(check_bounds(4, 4, {-1, 2}));
  EXPECT_FALSE(check_bounds(4, 4, {2, 1}));
  Values weights{1, 2};
  const Result<void> refused = normalised_step(weights, Values{1, 1}, Values{0, 0}, 0.1, 10, {0, 4});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::invalid);
}

TEST(FeedbackWeights, ScalingWorksAtTheEdges) {
  Values nobody;
  EXPECT_TRUE(scale_to_sum(nobody, 0, {0, 1}));
  Values one{17};
  ASSERT_TRUE(scale_to_sum(one, 3, {0, 5}));
  EXPECT_DOUBLE_EQ(one[0], 3);
  Values negative{-5, 0, 4};
  ASSERT_TRUE(scale_to_sum(negative, 6, {1, 4}));
  EXPECT_THAT(negative, testing::Pointwise(testing::DoubleNear(1e-9), Values{1, 1, 4}));
  Values hopeless{-5, -1};
  ASSERT_TRUE(scale_to_sum(hopeless, 6, {0, 6}));
  EXPECT_THAT(hopeless, testing::ElementsAre(3, 3));
  Values forced{1, 9};
  ASSERT_TRUE(scale_to_sum(forced, 4, {2, 3}));
  EXPECT_THAT(forced, testing::ElementsAre(2, 2));
}

RC_GTEST_PROP(FeedbackWeightsProperty, OneStepShrinksEveryDistanceByTheFactor, ()) {
  Scene scene = any_scene();
  const double beta =
      any_share(1, 100) * scene.sum() / scene.load;  // up to the no-overshoot bound: no weight < 0
  const double factor = convergence_factor(scene.sum(), beta, scene.load, total(scene.capacity));
  const Values before = distances(scene.weights, scene.capacity), load = loads_for(scene.weights, scene.load);
  Values plain = scene.weights, normalised = scene.weights;
  plain_step(plain, scene.capacity, load, beta, kUnbounded);
  RC_ASSERT(
      normalised_step(normalised, scene.capacity, load, beta, scene.sum(), {0, scene.sum()}).has_value());
  for (const Values& weights : {plain, normalised}) {
    const Values after = distances(weights, scene.capacity);
    for (std::size_t i = 0; i < after.size(); ++i) RC_ASSERT(std::abs(after[i] - factor * before[i]) < 1e-9);
  }
  RC_ASSERT(factor >= -1e-12);  // no overshoot
  RC_ASSERT(std::abs(total(normalised) - scene.sum()) < 1e-9 * scene.sum());
}

RC_GTEST_PROP(FeedbackWeightsProperty, BetaRangeIsExact, ()) {
  const Scene scene = any_scene();
  const double capacity = total(scene.capacity), excess = 2 * scene.load - capacity;
  if (excess <= 0) {  // T <= sum R / 2: any beta converges
    const double beta = scene.sum() / scene.load * *rc::gen::inRange(1, 100000);
    RC_ASSERT(std::abs(convergence_factor(scene.sum(), beta, scene.load, capacity)) < 1);
    return;
  }
  RC_PRE(excess > 1e-6 * capacity);
  const double bound = 2 * scene.sum() / excess;
  RC_ASSERT(std::abs(convergence_factor(scene.sum(), bound * 0.999, scene.load, capacity)) < 1);
  RC_ASSERT(std::abs(convergence_factor(scene.sum(), bound, scene.load, capacity) + 1) < 1e-6);
}

/// Near the limit no bound binds, so the loop is the linear one: it must grow or shrink as the factor says.
RC_GTEST_PROP(FeedbackWeightsProperty, BeyondTheBoundItDiverges, ()) {
  Scene scene = any_scene(60, 300);
  const double capacity = total(scene.capacity);
  const double sum = scene.sum(), bound = 2 * sum / (2 * scene.load - capacity);
  // Between this bound and S / (T - sum R) the scaled sum is still positive; the first is always the smaller
  // one.
  const double ceiling = scene.load > capacity ? sum / (scene.load - capacity) : 3 * bound;
  const double beta = bound + any_share(10, 60) * (ceiling - bound);
  for (std::size_t i = 0; i < scene.weights.size(); ++i) {
    scene.weights[i] = sum * scene.capacity[i] / capacity * (1 + 1e-6 * (i % 2 == 0 ? 1 : -1));
  }
  const double before = largest(distances(scene.weights, scene.capacity));
  for (int step = 0; step < 3; ++step) {
    const Values load = loads_for(scene.weights, scene.load);
    RC_ASSERT(normalised_step(scene.weights, scene.capacity, load, beta, sum, {0, sum}).has_value());
  }
  RC_ASSERT(largest(distances(scene.weights, scene.capacity)) > before);
}

RC_GTEST_PROP(FeedbackWeightsProperty, ClampsHoldAndTheLimitIsTheScaledCapacity, ()) {
  Scene scene = any_scene();
  const double n = static_cast<double>(scene.weights.size()), sum = scene.sum();
  const WeightBounds bounds{any_share(5, 95) * sum / n, (1 + any_share(5, 300)) * sum / n};
  const double beta = effective_beta(any_share(5, 100) * sum / scene.load, sum, scene.load);
  for (int step = 0; step < 2000; ++step) {
    const Values load = loads_for(scene.weights, scene.load);
    RC_ASSERT(normalised_step(scene.weights, scene.capacity, load, beta, sum, bounds).has_value());
    for (const double w : scene.weights) RC_ASSERT(w >= bounds.min && w <= bounds.max);
    RC_ASSERT(std::abs(total(scene.weights) - sum) < 1e-9 * sum);
  }
  Values limit = scene.capacity;
  RC_ASSERT(scale_to_sum(limit, sum, bounds).has_value());
  double ratio = 0;
  for (std::size_t i = 0; i < limit.size(); ++i) {
    RC_ASSERT(std::abs(scene.weights[i] - limit[i]) < 1e-6 * sum);
    if (limit[i] <= bounds.min || limit[i] >= bounds.max) continue;
    if (ratio == 0) ratio = limit[i] / scene.capacity[i];
    RC_ASSERT(std::abs(limit[i] / scene.capacity[i] / ratio - 1) <
              1e-9);  // off the bounds: in proportion to R
  }
}

RC_GTEST_PROP(FeedbackWeightsProperty, FollowsAChangeOfSpeed, ()) {
  Scene scene = any_scene();
  const double sum = scene.sum();
  for (int step = 0; step < 400; ++step) {
    if (step == 200) scene.capacity[0] *= any_share(10, 400);
    const double beta = effective_beta(any_share(20, 50) * sum / scene.load, sum, scene.load);
    const Values load = loads_for(scene.weights, scene.load);
    const double before = largest(distances(scene.weights, scene.capacity));
    RC_ASSERT(normalised_step(scene.weights, scene.capacity, load, beta, sum, {0, sum}).has_value());
    RC_ASSERT(largest(distances(scene.weights, scene.capacity)) <= before + 1e-12);
  }
  const double slowest = convergence_factor(sum, 0.2 * sum / scene.load, scene.load, total(scene.capacity));
  RC_ASSERT(largest(distances(scene.weights, scene.capacity)) < std::pow(std::max(slowest, 0.5), 200) + 1e-9);
}

RC_GTEST_PROP(FeedbackWeightsProperty, OneStepOfDelayIsStableWithTheControllersBeta, ()) {
  Scene scene = any_scene();
  const double sum = scene.sum();
  const double beta = effective_beta(kInfinity, sum, scene.load);
  Values seen = loads_for(scene.weights, scene.load);
  for (int step = 0; step < 4000; ++step) {
    const Values next = loads_for(scene.weights, scene.load);
    RC_ASSERT(normalised_step(scene.weights, scene.capacity, seen, beta, sum, {0, sum}).has_value());
    seen = next;
  }
  // z^2 - g z + h = 0 with g = S / D, h = S / 2D, D = S / 2 + beta sum R: |z| < 1, near 1 only under heavy
  // overload.
  RC_ASSERT(largest(distances(scene.weights, scene.capacity)) < 1e-6);
}

/// A step of delay halves the stable range: S / (2T - sum R) instead of twice that.
TEST(FeedbackWeights, TwiceTheDelayedBoundDiverges) {
  const Values capacity{100, 300};
  const double sum = 400, load = 380, bound = sum / (2 * load - 400);
  for (const double beta : {0.9 * bound, 1.1 * bound}) {
    Values weights{100 + 1e-6, 300 - 1e-6};
    const double before = largest(distances(weights, capacity));
    Values seen = loads_for(weights, load);
    for (int step = 0; step < 100; ++step) {
      const Values next = loads_for(weights, load);
      ASSERT_TRUE(normalised_step(weights, capacity, seen, beta, sum, {0, sum}));
      seen = next;
    }
    EXPECT_EQ(largest(distances(weights, capacity)) > before, beta > bound) << beta;
  }
}

RC_GTEST_PROP(FeedbackWeightsProperty, PlainFormDriftsByTheSpareCapacity, ()) {
  Scene scene = any_scene();
  const double beta = any_share(1, 20) * scene.sum() / scene.load;
  const double drift = beta * (total(scene.capacity) - scene.load), start = scene.sum();
  for (int step = 1; step <= 3; ++step) {
    plain_step(scene.weights, scene.capacity, loads_for(scene.weights, scene.load), beta, kUnbounded);
    RC_ASSERT(std::abs(scene.sum() - (start + step * drift)) < 1e-9 * start);
  }
}

RC_GTEST_PROP(FeedbackWeightsProperty, PlainFormStopsInOverload, ()) {
  Scene scene = any_scene(110, 300);
  const double capacity = total(scene.capacity);
  scene.weights = scene.capacity;
  const double beta = any_share(1, 30) * scene.sum() / scene.load;
  const double steps = scene.sum() / (beta * (scene.load - capacity));
  int taken = 1;
  while (plain_step(scene.weights, scene.capacity, loads_for(scene.weights, scene.load), beta,
                    {1e-9, kInfinity}) == PlainStep::moved) {
    RC_ASSERT(++taken <= steps + 2);
  }
  RC_ASSERT(std::abs(taken - steps) <= 1.01);
  for (const double weight : scene.weights) RC_ASSERT(weight == 1e-9);
}

/// Reports that ignore the weights: shares tend to (R - L) / sum (R - L), not to R / sum R.
TEST(FeedbackWeights, ConstantReportsTendToTheSpareCapacity) {
  const Values capacity{100, 100, 200, 200, 300}, load{50, 60, 80, 90, 40};
  const double spare = total(capacity) - total(load);
  Values plain{50, 50, 100, 100, 150}, normalised = plain;
  for (int step = 0; step < 20000; ++step) {
    plain_step(plain, capacity, load, 0.1, kUnbounded);
    ASSERT_TRUE(normalised_step(normalised, capacity, load, 0.1, 450, {0, 450}));
  }
  for (std::size_t i = 0; i < load.size(); ++i) {
    EXPECT_NEAR(plain[i] / total(plain), (capacity[i] - load[i]) / spare, 1e-3);
    EXPECT_NEAR(normalised[i] / 450, (capacity[i] - load[i]) / spare, 1e-9);
  }
}

/// In overload that limit repels: two starts on its two sides end at opposite bounds.
TEST(FeedbackWeights, ConstantReportsAboveCapacityHaveNoStableLimit) {
  const Values capacity{100, 100}, load{110, 120};  // (R - L) / sum: 1/3, 2/3
  for (const double first : {0.32, 0.35}) {
    Values weights{100 * first, 100 - 100 * first};
    for (int step = 0; step < 500; ++step) {
      ASSERT_TRUE(normalised_step(weights, capacity, load, 0.1, 100, {1, 99}));
    }
    EXPECT_NEAR(weights[0], first < 1.0 / 3 ? 1 : 99, 1e-9);
  }
}

}  // namespace
}  // namespace heng
