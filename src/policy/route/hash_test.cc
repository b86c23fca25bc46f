// Tests of the consistent hash with bounded load.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "policy/route/registry.h"
#include "policy/route/test_pool.h"

namespace heng {
namespace {

std::unique_ptr<RoutePolicy> make_hash() {
  const RoutePolicyEntry* entry = find_route_policy("hash");
  return entry->make(default_values(*entry));
}

constexpr std::uint64_t kKeys = 20000;

std::vector<Slot> homes(RoutePolicy& policy, const TestPool& pool) {
  Rng rng(1);
  std::vector<Slot> result;
  for (std::uint64_t key = 1; key <= kKeys; ++key) {
    result.push_back(*policy.choose({.affinity = key}, pool.view(), {}, rng));
  }
  return result;
}

TEST(Hash, KeysStayAndSpreadEvenly) {
  TestPool pool(10);
  const auto policy = make_hash(), other = make_hash();
  const std::vector<Slot> first = homes(*policy, pool);
  EXPECT_EQ(first, homes(*policy, pool));
  EXPECT_EQ(first, homes(*other, pool));
  for (Slot slot = 0; slot < 10; ++slot) {
    EXPECT_NEAR(static_cast<double>(std::ranges::count(first, slot)), kKeys / 10.0, 0.35 * kKeys / 10.0);
  }
}

TEST(Hash, OnlyTheKeysOfALeavingWorkerMoveAndTheyComeBack) {
  TestPool pool(10);
  const auto policy = make_hash();
  const std::vector<Slot> before = homes(*policy, pool);
  pool.set_healthy(3, false);
  const std::vector<Slot> without = homes(*policy, pool);
  for (std::size_t i = 0; i < kKeys; ++i) {
    ASSERT_NE(without[i], 3u);
    ASSERT_TRUE(before[i] == 3 || without[i] == before[i]);
  }
  pool.set_healthy(3, true);
  EXPECT_EQ(homes(*policy, pool), before);
}

TEST(Hash, AJoiningWorkerOnlyTakes) {
  TestPool pool(10);
  const auto policy = make_hash();
  const std::vector<Slot> before = homes(*policy, pool);
  const Slot joined = pool.add();
  const std::vector<Slot> after = homes(*policy, pool);
  for (std::size_t i = 0; i < kKeys; ++i) ASSERT_TRUE(after[i] == before[i] || after[i] == joined);
  EXPECT_NEAR(static_cast<double>(std::ranges::count(after, joined)), kKeys / 11.0, 0.35 * kKeys / 11.0);
}

TEST(Hash, WeightScalesTheKeysOfAWorker) {
  TestPool pool(4);
  const auto policy = make_hash();
  const std::vector<Slot> before = homes(*policy, pool);
  pool.weight[2] = 0.25;
  const std::vector<Slot> ramping = homes(*policy, pool);
  for (std::size_t i = 0; i < kKeys; ++i) {
    ASSERT_TRUE(ramping[i] == before[i] || before[i] == 2);
  }
  const double kept = static_cast<double>(std::ranges::count(ramping, 2u)) /
                      static_cast<double>(std::ranges::count(before, 2u));
  EXPECT_NEAR(kept, 0.25, 0.12);
}

TEST(Hash, AHotKeySpillsOverWithinTheBound) {
  TestPool pool(5);
  const auto policy = make_hash();
  Rng rng(1);
  for (std::uint64_t i = 1; i <= 1000; ++i) {
    const Slot slot = pool.start(*policy, {.id = i, .affinity = 42}, {}, rng);
    const double bound = std::max(4.0, std::ceil(1.25 * static_cast<double>(i) / 5));
    ASSERT_LE(pool.in_flight[slot], bound);
  }
  EXPECT_EQ(*std::ranges::max_element(pool.in_flight), 250u);
}

TEST(Hash, WithoutAKeyTheLoadDecides) {
  TestPool pool(4);
  const auto policy = make_hash();
  Rng rng(1);
  for (std::uint64_t i = 0; i < 400; ++i) pool.start(*policy, {.id = i}, {}, rng);
  for (const std::uint32_t in_flight : pool.in_flight) EXPECT_NEAR(in_flight, 100, 3);
}

}  // namespace
}  // namespace heng
