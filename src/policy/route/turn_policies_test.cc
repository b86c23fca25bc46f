// Tests of round_robin, weighted_round_robin, least_connections and two_choices.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>

#include "policy/route/registry.h"
#include "policy/route/test_pool.h"

namespace heng {
namespace {

std::unique_ptr<RoutePolicy> make(std::string_view name) {
  const RoutePolicyEntry* entry = find_route_policy(name);
  return entry->make(default_values(*entry));
}

std::string turns(RoutePolicy& policy, const TestPool& pool, int count) {
  Rng rng(1);
  std::string result;
  for (int i = 0; i < count; ++i) result += static_cast<char>('a' + *policy.choose({}, pool.view(), {}, rng));
  return result;
}

TEST(RoundRobin, TakesTurnsWhateverTheWeights) {
  TestPool pool;
  pool.add(5), pool.add(1), pool.add(1);
  EXPECT_EQ(turns(*make("round_robin"), pool, 7), "abcabca");
}

TEST(RoundRobin, KeepsItsPlaceWhenWorkersComeAndGo) {
  TestPool pool(4);
  const auto policy = make("round_robin");
  EXPECT_EQ(turns(*policy, pool, 2), "ab");
  pool.set_healthy(1, false);
  EXPECT_EQ(turns(*policy, pool, 3), "cda");
  pool.set_healthy(1, true);
  EXPECT_EQ(turns(*policy, pool, 3), "bcd");
}

TEST(WeightedRoundRobin, SpreadsTurnsSmoothly) {
  TestPool pool;
  pool.add(5), pool.add(1), pool.add(1);
  EXPECT_EQ(turns(*make("weighted_round_robin"), pool, 14), "aabacaaaabacaa");
}

TEST(WeightedRoundRobin, ReturningWorkerComesBackWithoutArrears) {
  TestPool pool(3);
  const auto policy = make("weighted_round_robin");
  turns(*policy, pool, 1);
  pool.set_healthy(2, false);
  turns(*policy, pool, 100);
  pool.set_healthy(2, true);
  const std::string after = turns(*policy, pool, 30);
  EXPECT_EQ(std::ranges::count(after, 'c'), 10);
  EXPECT_EQ(after.find("cc"), std::string::npos);
}

TEST(WeightedRoundRobin, FollowsTheRampAndShowsShares) {
  TestPool pool;
  pool.add(2), pool.add(2);
  const auto policy = make("weighted_round_robin");
  EXPECT_TRUE(policy->weights().empty());
  pool.weight[1] = 0.5;  // ramping: no change of generation
  EXPECT_EQ(std::ranges::count(turns(*policy, pool, 50), 'b'), 10);
  policy->tick(pool.view(), {});
  EXPECT_THAT(policy->weights(), testing::ElementsAre(0.8, 0.2));
}

TEST(LeastConnections, CountsRelativeToWeight) {
  TestPool pool;
  pool.add(1), pool.add(4);
  const auto policy = make("least_connections");
  Rng rng(1);
  std::vector<int> chosen(2);
  for (std::uint64_t i = 0; i < 50; ++i) ++chosen[pool.start(*policy, {.id = i}, {}, rng)];
  EXPECT_THAT(chosen, testing::ElementsAre(10, 40));
}

TEST(LeastConnections, TiesDoNotPileOnTheFirst) {
  TestPool pool(5);
  const auto policy = make("least_connections");
  Rng rng(3);
  std::vector<int> chosen(5);
  for (int i = 0; i < 5000; ++i) ++chosen[*policy->choose({}, pool.view(), {}, rng)];
  EXPECT_THAT(chosen, testing::Each(testing::AllOf(testing::Gt(880), testing::Lt(1120))));
}

TEST(TwoChoices, NeverTakesTheWorstAndKeepsThePoolEven) {
  TestPool pool(20);
  const auto policy = make("two_choices");
  Rng rng(5);
  pool.in_flight[7] = 1000;
  for (std::uint64_t i = 0; i < 1900; ++i) ASSERT_NE(pool.start(*policy, {.id = i}, {}, rng), 7u);
  for (Slot slot = 0; slot < 20; ++slot) {
    EXPECT_NEAR(pool.in_flight[slot], slot == 7 ? 1000 : 100, 5);
  }
}

}  // namespace
}  // namespace heng
