// Waiting requests: nobody is lost, the urgent go first, tenants share by tokens, floods shed themselves.
#include "flow/request_queue.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <vector>

namespace heng {
namespace {

constexpr auto kAnyone = [](const QueuedRequest&) { return true; };
constexpr Instant kLater = Instant(1h);

struct Line {
  explicit Line(std::size_t length) : queue(length) {}

  QueuedRequest& make(std::uint64_t tenant, double cost = 1, std::uint32_t priority = 5) {
    QueuedRequest& request = requests.emplace_back();
    request.tenant = tenant;
    request.cost = cost;
    request.priority = priority;
    request.deadline = kLater;
    return request;
  }
  QueuedRequest* push(std::uint64_t tenant, double cost = 1, std::uint32_t priority = 5) {
    return queue.push(make(tenant, cost, priority), now);
  }
  QueuedRequest* pop() { return queue.pop(now, kAnyone); }

  Instant now{};
  std::deque<QueuedRequest> requests;
  RequestQueue queue;
};

TEST(RequestQueue, OneTenantIsServedInOrderOfArrival) {
  Line line(10);
  for (int i = 0; i < 3; ++i) line.push(1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(line.pop(), &line.requests[i]);
  EXPECT_EQ(line.pop(), nullptr);
}

TEST(RequestQueue, TheUrgentGoFirstWhateverTheyWereServed) {
  Line line(10);
  line.push(1, 1, 5);
  line.push(2, 1, 0);
  line.push(3, 1e9, 9);
  EXPECT_EQ(line.pop()->priority, 9u);
  line.push(3, 1e9, 9);
  EXPECT_EQ(line.pop()->priority, 9u);
  EXPECT_EQ(line.pop()->priority, 5u);
  EXPECT_EQ(line.pop()->priority, 0u);
}

TEST(RequestQueue, AFloodDoesNotDelayTheOthers) {
  Line line(1000);
  for (int i = 0; i < 500; ++i) line.push(1, 10);
  for (int i = 0; i < 10; ++i) line.pop();
  line.push(2, 10);
  line.pop();
  line.pop();
  EXPECT_FALSE(line.requests.back().waiting()) << "second in turn at most";
}

TEST(RequestQueue, WhoReturnsFromIdleHasNotSavedUp) {
  Line line(1000);
  for (int i = 0; i < 300; ++i) line.push(1, 10);
  for (int i = 0; i < 100; ++i) line.pop();
  for (int i = 0; i < 100; ++i) line.push(2, 10);
  int second = 0;
  for (int i = 0; i < 20; ++i) second += line.pop()->tenant == 2;
  EXPECT_EQ(second, 10);
}

TEST(RequestQueue, WeightsAreShares) {
  Line line(1000);
  for (int i = 0; i < 100; ++i) {
    line.make(1, 10).weight = 3;
    line.queue.push(line.requests.back(), line.now);
    line.push(2, 10);
  }
  int first = 0;
  for (int i = 0; i < 80; ++i) first += line.pop()->tenant == 1;
  EXPECT_NEAR(first, 60, 1);
}

TEST(RequestQueue, LongAnswersAreChargedWhenKnown) {
  Line line(1000);
  for (int i = 0; i < 100; ++i) line.push(1, 10), line.push(2, 10);
  int first = 0;
  for (int i = 0; i < 44; ++i) {
    const bool is_first = line.pop()->tenant == 1;
    first += is_first;
    line.queue.charge(is_first ? 1 : 2, 1, is_first ? 90 : 0);  // tenant 1's answers were ten times as long
  }
  EXPECT_NEAR(first, 4, 1);
}

TEST(RequestQueue, ARepeatedRequestGoesBeforeItsTenantsOthers) {
  Line line(10);
  line.push(1);
  line.push(1);
  line.make(1).again = true;
  line.queue.push(line.requests.back(), line.now);
  EXPECT_EQ(line.pop(), &line.requests[2]);
  EXPECT_EQ(line.pop(), &line.requests[0]);
}

TEST(RequestQueue, WhoMayNotGoHoldsUpNobodyElse) {
  Line line(10);
  line.push(1);
  line.push(1);
  line.push(2);
  QueuedRequest* blocked = &line.requests[0];
  const auto others = [&](const QueuedRequest& request) { return &request != blocked; };
  EXPECT_EQ(line.queue.pop(line.now, others), &line.requests[2]);
  EXPECT_EQ(line.queue.pop(line.now, others), nullptr);
  EXPECT_EQ(line.pop(), blocked);
}

TEST(RequestQueue, OverflowShedsTheFloodNotTheOthers) {
  Line line(4);
  line.push(2);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(line.push(1), nullptr);
  const QueuedRequest* shed = line.push(1);
  EXPECT_EQ(shed, &line.requests.back()) << "the flood's own youngest";
  EXPECT_EQ(line.push(3), &line.requests[3]) << "room for the newcomer comes from the flood";
  EXPECT_TRUE(line.requests[0].waiting());
}

TEST(RequestQueue, ANewFloodDoesNotPushOutThoseServedBefore) {
  Line line(6);
  for (int i = 0; i < 6; ++i) line.push(1, 10);
  for (int i = 0; i < 4; ++i) line.pop();  // tenant 1 has been served and has two waiting
  int lost = 0;
  for (int i = 0; i < 100; ++i) {
    const QueuedRequest* shed = line.push(7, 10);
    lost += shed != nullptr && shed->tenant == 1;
  }
  EXPECT_EQ(lost, 0);
}

TEST(RequestQueue, OverflowTakesTheLowestClass) {
  Line line(2);
  line.push(1, 1, 3);
  line.push(2, 100, 5);
  EXPECT_EQ(line.push(2, 100, 9), &line.requests[0]);
  const QueuedRequest* shed = line.push(3, 1, 4);
  EXPECT_EQ(shed, &line.requests.back());
}

TEST(RequestQueue, DeadlinesComeOutInOrder) {
  Line line(10);
  line.make(1).deadline = Instant(2s);
  line.queue.push(line.requests.back(), line.now);
  line.make(2).deadline = Instant(1s);
  line.queue.push(line.requests.back(), line.now);
  EXPECT_EQ(line.queue.pop_expired(Instant(999ms)), nullptr);
  EXPECT_EQ(line.queue.pop_expired(Instant(2s)), &line.requests[1]);
  EXPECT_EQ(line.queue.pop_expired(Instant(2s)), &line.requests[0]);
  EXPECT_EQ(line.queue.pop_expired(Instant(2s)), nullptr);
}

TEST(RequestQueue, DrainTimeFollowsTheRate) {
  Line line(1000);
  for (int i = 0; i < 300; ++i) line.push(1);
  for (int i = 0; i < 200; ++i) {
    line.now += 100ms;
    line.pop();
  }
  EXPECT_NEAR(to_seconds(line.queue.drain_time(line.now)), 10, 0.5);
  EXPECT_LT(to_seconds(line.queue.drain_time(line.now + 1s)), 15) << "a second's silence may be chance";
  EXPECT_GT(to_seconds(line.queue.drain_time(line.now + 30s)), 1000) << "half a minute's is not";
}

TEST(RequestQueue, DrainTimeIsTheSameThroughoutBatchesThatEndTogether) {
  Line line(1000);
  for (int i = 0; i < 600; ++i) line.push(1);
  for (int batch = 0; batch < 20; ++batch) {
    line.now += 800ms;
    for (int i = 0; i < 24; ++i) line.pop();
  }
  for (const Duration since : {0ms, 100ms, 400ms, 799ms})
    EXPECT_NEAR(to_seconds(line.queue.drain_time(line.now + since)), 4, 1.5) << since.count() << " ns";
}

TEST(RequestQueue, RemembersABoundedNumberOfIdleTenants) {
  Line line(10);
  for (std::uint64_t tenant = 1; tenant <= 20'000; ++tenant) {
    line.push(tenant);
    line.pop();
  }
  EXPECT_LE(line.queue.tenants(), 4200u);
}

/// What Theorem 4.4 of the paper says, with whole requests for single tokens: two tenants that wait all the
/// time never differ by more than two of the most expensive requests in what they were served per weight.
TEST(RequestQueueProperty, BackloggedTenantsShareByWeight) {
  EXPECT_TRUE(rc::check("service per weight stays within two requests", [] {
    constexpr double kCostMax = 100;
    Line line(100'000);
    const auto tenants = *rc::gen::inRange<std::uint64_t>(2, 6);
    std::vector<double> weights(tenants);
    for (double& weight : weights) weight = *rc::gen::element(1.0, 2.0, 5.0);
    std::vector<double> served(tenants, 0);
    for (std::uint64_t tenant = 0; tenant < tenants; ++tenant) {
      for (int i = 0; i < 300; ++i) {
        QueuedRequest& request = line.make(tenant, *rc::gen::inRange(1, 101));
        request.weight = weights[tenant];
        line.queue.push(request, line.now);
      }
    }
    for (int i = 0; i < 120; ++i) {  // so few that nobody's line runs dry
      const QueuedRequest* request = line.pop();
      served[request->tenant] += request->cost / request->weight;
    }
    RC_ASSERT(*std::ranges::max_element(served) - *std::ranges::min_element(served) <= 2 * kCostMax);
  }));
}

TEST(RequestQueueProperty, EverybodyComesOutOnceAndTheUrgentFirst) {
  EXPECT_TRUE(rc::check("each request leaves once; pops and sheds keep to the classes", [] {
    Line line(*rc::gen::inRange<std::size_t>(0, 12));
    std::vector<QueuedRequest*> waiting;
    const auto leave = [&](QueuedRequest* request) {
      RC_ASSERT(!request->waiting());
      RC_ASSERT(std::erase(waiting, request) == 1);
    };
    const auto classes = [&](auto pick) {
      return (*pick(waiting, {}, [](const QueuedRequest* request) { return request->priority; }))->priority;
    };
    for (const int step : *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 200))) {
      line.now += 10ms;
      const auto tenant = static_cast<std::uint64_t>(step % 5);
      if (step < 110) {
        QueuedRequest& request = line.make(tenant, 1 + step % 7, static_cast<std::uint32_t>(step % 10));
        request.deadline = line.now + std::chrono::milliseconds(step * 10);
        request.again = step % 11 == 0;
        waiting.push_back(&request);
        if (QueuedRequest* shed = line.queue.push(request, line.now)) {
          RC_ASSERT(shed->priority == classes(std::ranges::min_element));
          leave(shed);
        }
      } else if (step < 150) {
        QueuedRequest* next = line.pop();
        RC_ASSERT((next == nullptr) == waiting.empty());
        if (next == nullptr) continue;
        RC_ASSERT(next->priority == classes(std::ranges::max_element));
        leave(next);
      } else if (step < 170) {
        while (QueuedRequest* late = line.queue.pop_expired(line.now)) {
          RC_ASSERT(late->deadline <= line.now);
          leave(late);
        }
      } else if (step < 190 && !waiting.empty()) {
        QueuedRequest* gone = waiting[static_cast<std::size_t>(step) % waiting.size()];
        line.queue.remove(*gone);
        leave(gone);
      } else {
        line.queue.charge(tenant, 1, step % 3 - 1);
      }
      RC_ASSERT(line.queue.size() == waiting.size());
      RC_ASSERT(line.queue.size() <= line.queue.length());
    }
  }));
}

}  // namespace
}  // namespace heng
