// Tests of response_time.
#include <gtest/gtest.h>

#include "policy/route/registry.h"
#include "policy/route/test_pool.h"

namespace heng {
namespace {

class ResponseTimeTest : public testing::Test {
 protected:
  void answer(Slot slot, Duration first_byte, Outcome outcome = Outcome::ok) {
    AttemptEvent event{
        .kind = AttemptEvent::Kind::first_byte, .worker = slot, .time_to_first_byte = first_byte};
    if (outcome == Outcome::ok) policy_->on(event, pool_.view(), now_);
    event.kind = AttemptEvent::Kind::ended;
    event.outcome = outcome;
    event.elapsed = first_byte;
    policy_->on(event, pool_.view(), now_);
  }
  Slot choice() { return *policy_->choose({}, pool_.view(), now_, rng_); }

  std::unique_ptr<RoutePolicy> policy_ =
      find_route_policy("response_time")->make(default_values(*find_route_policy("response_time")));
  TestPool pool_{2};
  Rng rng_{1};
  Instant now_{std::chrono::hours(1)};
};

TEST_F(ResponseTimeTest, WeighsLatencyAgainstRequestsInFlight) {
  answer(0, 100ms), answer(1, 300ms);
  EXPECT_EQ(choice(), 0u);
  pool_.in_flight[0] = 1;
  EXPECT_EQ(choice(), 0u);  // 0.1 x 2 < 0.3
  pool_.in_flight[0] = 3;
  EXPECT_EQ(choice(), 1u);  // 0.1 x 4 > 0.3
  pool_.weight[1] = 0.5;
  EXPECT_EQ(choice(), 0u);
}

TEST_F(ResponseTimeTest, BelievesAPeakAtOnceAndForgetsItSlowly) {
  for (int i = 0; i < 50; ++i, now_ += 1s) answer(0, 100ms), answer(1, 200ms);
  answer(0, 5s), answer(1, 200ms);
  EXPECT_EQ(choice(), 1u);
  for (int i = 0; i < 10; ++i, now_ += 1s) answer(0, 100ms), answer(1, 200ms);
  EXPECT_EQ(choice(), 1u);
  for (int i = 0; i < 60; ++i, now_ += 1s) answer(0, 100ms), answer(1, 200ms);
  EXPECT_EQ(choice(), 0u);
}

TEST_F(ResponseTimeTest, SilenceLetsASlowWorkerBeTriedAgain) {
  answer(0, 5s);
  for (int i = 0; i < 60; ++i, now_ += 1s) {
    answer(1, 200ms);
    if (choice() == 0) break;
  }
  EXPECT_EQ(choice(), 0u);
  EXPECT_GT(now_ - Instant(std::chrono::hours(1)), 20s);
}

TEST_F(ResponseTimeTest, FailingFastIsNotBeingFast) {
  answer(0, 100ms), answer(1, 300ms);
  answer(0, 1ms, Outcome::server_error);
  EXPECT_EQ(choice(), 1u);
  answer(1, 1ms, Outcome::canceled);  // says nothing
  EXPECT_EQ(choice(), 1u);
}

TEST_F(ResponseTimeTest, AnUnknownWorkerGetsOneRequestToBeginWith) {
  answer(0, 100ms);
  EXPECT_EQ(choice(), 1u);
  pool_.in_flight[1] = 1;
  EXPECT_EQ(choice(), 0u);
  pool_.in_flight[0] = 1000;
  EXPECT_EQ(choice(), 0u);
}

TEST_F(ResponseTimeTest, OrderSurvivesManyEpochs) {
  for (int day = 0; day < 30; ++day) {
    now_ += std::chrono::hours(24);
    answer(0, 300ms), answer(1, 100ms);
    ASSERT_EQ(choice(), 1u);
  }
}

}  // namespace
}  // namespace heng
