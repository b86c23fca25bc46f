// Tests of dynamic_weight: the worked example, reports, membership, and simulated engines of unknown speed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "policy/route/batching_scene.h"
#include "policy/route/registry.h"

namespace heng {
namespace {

using testing::DoubleNear;
using testing::Pointwise;

const Instant kStart{std::chrono::hours(1)};

std::unique_ptr<RoutePolicy> make(const std::vector<std::pair<std::string_view, double>>& options = {}) {
  const RoutePolicyEntry* entry = find_route_policy("dynamic_weight");
  OptionValues values = default_values(*entry);
  for (const auto& [key, value] : options) {
    const auto field = std::ranges::find(entry->fields, key, &OptionField::key);
    values.at(static_cast<std::size_t>(field - entry->fields.begin())) = value;
  }
  EXPECT_TRUE(check_values(*entry, values));
  return entry->make(values);
}

std::vector<double> shares_of(const std::vector<double>& weights) {
  std::vector<double> shares;
  for (const double w : weights) shares.push_back(w / std::accumulate(weights.begin(), weights.end(), 0.0));
  return shares;
}

TestPool declared_pool() {
  TestPool pool;
  for (const double capacity : {100, 100, 200, 200, 300}) pool.add(1, capacity);
  return pool;
}

TEST(DynamicWeight, WorkedExampleThroughReports) {
  TestPool pool = declared_pool();
  const auto policy = make({{"normalise", 0}, {"alpha", 0.5}, {"beta", 0.1}});
  policy->tick(pool.view(), kStart);
  EXPECT_THAT(policy->weights(), Pointwise(DoubleNear(1e-12), shares_of({50, 50, 100, 100, 150})));
  Slot slot = 0;
  for (const double load : {50, 60, 80, 90})
    EXPECT_TRUE(policy->report_load(slot++, load, pool.view(), kStart));
  EXPECT_THAT(policy->weights(), Pointwise(DoubleNear(1e-12), shares_of({50, 50, 100, 100, 150})));
  EXPECT_TRUE(policy->report_load(4, 40, pool.view(), kStart));  // now the set is full: one step
  EXPECT_THAT(policy->weights(), Pointwise(DoubleNear(1e-12), shares_of({55, 54, 112, 111, 176})));
}

TEST(DynamicWeight, ReportsThatMakeNoSenseAreRefused) {
  TestPool pool = declared_pool();
  const auto policy = make();
  EXPECT_FALSE(policy->report_load(5, 1, pool.view(), kStart));
  EXPECT_FALSE(policy->report_load(kNoSlot, 1, pool.view(), kStart));
  EXPECT_FALSE(policy->report_load(0, -1, pool.view(), kStart));
  EXPECT_FALSE(policy->report_load(0, std::nan(""), pool.view(), kStart));
  const RoutePolicyEntry* other = find_route_policy("round_robin");
  EXPECT_FALSE(other->make({})->report_load(0, 1, pool.view(), kStart));
}

TEST(DynamicWeight, ConstantReportsTendToTheSpareCapacity) {
  TestPool pool = declared_pool();
  const auto policy = make();
  for (int step = 0; step < 3000; ++step) {
    Slot slot = 0;
    for (const double load : {50, 60, 80, 90, 40}) policy->report_load(slot++, load, pool.view(), kStart);
  }
  EXPECT_THAT(policy->weights(), Pointwise(DoubleNear(1e-6), shares_of({50, 40, 120, 110, 260})));
}

/// Loads that follow the weights, as a reporter should send them, lead to the capacities: from equal, and in
/// overload.
TEST(DynamicWeight, ReportsThatFollowTheWeightsTendToTheCapacities) {
  for (const double total : {300.0, 2000.0}) {
    TestPool pool = declared_pool();
    const auto policy = make();
    std::ranges::fill(pool.capacity, 100);
    policy->tick(pool.view(), kStart);
    std::ranges::copy(std::vector<double>{100, 100, 200, 200, 300}, pool.capacity.begin());
    for (int step = 0; step < 200; ++step) {
      const std::vector<double> shares(policy->weights().begin(), policy->weights().end());
      for (Slot slot = 0; slot < 5; ++slot)
        policy->report_load(slot, total * shares[slot], pool.view(), kStart);
    }
    EXPECT_THAT(policy->weights(), Pointwise(DoubleNear(1e-6), shares_of({100, 100, 200, 200, 300})));
  }
}

TEST(DynamicWeight, WeightMultipliesTheShareAndIsNotFoughtAgainst) {
  TestPool pool;
  pool.add(1, 100), pool.add(1, 100);
  const auto policy = make();
  pool.weight[1] = 0.25;  // slow start
  Rng rng(1);
  Instant now = kStart;
  for (std::uint64_t id = 1; id <= 5000; ++id, now += 10ms) {
    const Slot slot = pool.start(*policy, {.id = id}, now, rng);
    pool.end(*policy,
             {.kind = AttemptEvent::Kind::ended,
              .worker = slot,
              .request = id,
              .elapsed = 5ms,
              .output_tokens = 1},
             now);
    policy->tick(pool.view(), now);
  }
  EXPECT_THAT(policy->weights(), Pointwise(DoubleNear(0.01), std::vector<double>{0.8, 0.2}));
  pool.weight[1] = 1;
  policy->tick(pool.view(), now);
  EXPECT_THAT(policy->weights(), Pointwise(DoubleNear(0.02), std::vector<double>{0.5, 0.5}));
}

double worst_error(const RoutePolicy& policy, const std::vector<double>& speeds) {
  const std::vector<double> target = shares_of(speeds);
  double worst = 0;
  for (std::size_t i = 0; i < target.size(); ++i) {
    worst = std::max(worst, std::abs(policy.weights()[i] / target[i] - 1));
  }
  return worst;
}

struct SceneErrors {
  double settled = 0;  // mean over steps 31 to 60 of the worst relative error of a share
  double changed = 0;  // the same over the 15th to 30th step after the fastest has become the slowest
};

/// 1 : 2 : 3 : 4 at the given utilisation, then worker 3 slows down to 1 while the utilisation stays. Mean of
/// 5 seeds.
SceneErrors play(double utilisation, const BatchingEngine& engine, double scale) {
  SceneErrors errors;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const auto policy = make();
    BatchingScene scene(*policy, engine, {scale, 2 * scale, 3 * scale, 4 * scale}, seed);
    scene.set_rate(utilisation * 10 * scale * engine.requests_per_s());
    for (int step = 1; step <= 60; ++step) {
      scene.run(1s);
      if (step > 30) errors.settled += worst_error(*policy, {1, 2, 3, 4}) / 30 / 5;
    }
    scene.set_speed(3, scale);
    scene.set_rate(utilisation * 7 * scale * engine.requests_per_s());
    for (int step = 1; step <= 30; ++step) {
      scene.run(1s);
      if (step > 15) errors.changed += worst_error(*policy, {1, 2, 3, 1}) / 15 / 5;
    }
  }
  return errors;
}

TEST(DynamicWeightScene, LearnsUnknownSpeedsAndFollowsAChange) {
  for (const double utilisation : {0.3, 0.5, 0.7, 0.9}) {
    const SceneErrors errors = play(utilisation, {}, 1);
    EXPECT_LT(errors.settled, 0.05) << utilisation;
    EXPECT_LT(errors.changed, 0.25) << utilisation;
  }
}

/// All queues grow without end here, and throughput is all anybody can see.
TEST(DynamicWeightScene, DoesNotRunAwayInOverload) {
  const SceneErrors errors = play(1.5, {}, 1);
  EXPECT_LT(errors.settled, 0.04);
  EXPECT_LT(errors.changed, 0.25);
}

TEST(DynamicWeightScene, OtherEnginesAndMoreTraffic) {
  const BatchingEngine small{.step_per_sequence_s = 0.004, .batch_max = 4};    // soon full
  const BatchingEngine large{.step_per_sequence_s = 0.0001, .batch_max = 64};  // hardly feels its batch
  const BatchingEngine reader{.prompt_mean = 2000};                            // prefill outweighs decoding
  for (const BatchingEngine& engine : {small, large, reader}) {
    EXPECT_LT(play(0.7, engine, 8).settled, 0.05) << engine.batch_max << " " << engine.prompt_mean;
  }
}

/// Why learning must correct for the batch: what the equal start looks like to someone who counts throughput.
TEST(DynamicWeightScene, StartsEqualAndApproachesInOneDirection) {
  const auto policy = make();
  BatchingScene scene(*policy, {}, {10, 40}, 1);
  scene.set_rate(0.5 * 50 * BatchingEngine{}.requests_per_s());
  scene.run(500ms);
  EXPECT_THAT(policy->weights(), testing::ElementsAre(0.5, 0.5));
  double last = 0.5;
  for (int step = 0; step < 12; ++step) {
    scene.run(1s);
    EXPECT_LT(policy->weights()[0], last + 0.01) << step;
    last = policy->weights()[0];
  }
  EXPECT_NEAR(last, 0.2, 0.04);
}

TEST(DynamicWeightScene, HoldsWithoutTrafficAndKeepsTheWeightsOfTheAbsent) {
  const auto policy = make();
  BatchingScene scene(*policy, {}, {4, 8, 12, 16}, 7);
  scene.set_rate(0.6 * 40 * BatchingEngine{}.requests_per_s());
  scene.run(40s);
  EXPECT_LT(worst_error(*policy, {1, 2, 3, 4}), 0.08);
  const std::vector<double> before(policy->weights().begin(), policy->weights().end());
  scene.set_rate(1e-6);
  scene.run(3600s);
  EXPECT_THAT(policy->weights(), Pointwise(DoubleNear(0.02), before));
  scene.pool().set_healthy(3, false);
  scene.set_rate(0.6 * 24 * BatchingEngine{}.requests_per_s());
  scene.run(20s);
  EXPECT_EQ(policy->weights()[3], 0);
  EXPECT_LT(std::abs(policy->weights()[0] * 6 - 1), 0.1);
  scene.pool().set_healthy(3, true);
  scene.run(100ms);  // before any step
  EXPECT_LT(worst_error(*policy, {1, 2, 3, 4}), 0.1);
}

TEST(DynamicWeight, ANewWorkerJoinsWithTheMean) {
  TestPool pool(2);
  const auto policy = make();
  policy->tick(pool.view(), kStart);
  for (int step = 0; step < 30; ++step) {
    policy->report_load(0, 300, pool.view(), kStart), policy->report_load(1, 100, pool.view(), kStart);
  }
  const double low = policy->weights()[0];
  EXPECT_LT(low, 0.45);
  pool.add();
  policy->tick(pool.view(), kStart);
  EXPECT_NEAR(policy->weights()[2], 1.0 / 3, 1e-12);
  EXPECT_NEAR(policy->weights()[0], low * 2 / 3, 1e-12);
}

}  // namespace
}  // namespace heng
