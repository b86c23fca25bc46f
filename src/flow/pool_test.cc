// Pools: reservations are exact, removed workers leave after their last request, tables and budgets stay
// bounded.
#include "flow/pool.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "flow/retry_budget.h"
#include "flow/sticky_table.h"
#include "policy/route/registry.h"

namespace heng {
namespace {

Pool make_pool(std::string_view policy = "least_connections") {
  const RoutePolicyEntry* entry = find_route_policy(policy);
  return Pool(entry->make(default_values(*entry)), Rng(1));
}

void end(Pool& pool, Slot slot, Instant now = {}) {
  AttemptEvent event;
  event.kind = AttemptEvent::Kind::ended;
  event.worker = slot;
  pool.end(event, now);
}

TEST(Pool, ReservesAtSelection) {
  Pool pool = make_pool();
  for (std::uint64_t i = 1; i <= 4; ++i) pool.add(i, 1, 0);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(pool.reserve({}, {}));
  for (Slot slot = 0; slot < 4; ++slot) EXPECT_EQ(pool.in_flight(slot), 2u);
  EXPECT_EQ(pool.in_flight(), 8u);
}

TEST(Pool, AvoidsTheWorkerJustTried) {
  Pool pool = make_pool("round_robin");
  const Slot only = pool.add(1, 1, 0);
  EXPECT_FALSE(pool.reserve({}, {}, only));
  const Slot other = pool.add(2, 1, 0);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(pool.reserve({}, {}, only), other);
}

TEST(Pool, RemovedWorkerLeavesAfterItsLastRequest) {
  Pool pool = make_pool();
  const Slot first = pool.add(1, 1, 0);
  ASSERT_EQ(pool.reserve({}, {}), first);
  pool.remove(first);
  EXPECT_FALSE(pool.reserve({}, {}));
  EXPECT_FALSE(pool.reserve_on(first, {}, {}));
  EXPECT_NE(pool.add(2, 1, 0), first) << "the slot still has a request";
  end(pool, first);
  EXPECT_EQ(pool.add(3, 1, 0), first);
}

TEST(Pool, DoubtedWorkerKeepsWhatLivesThere) {
  Pool pool = make_pool();
  const Slot doubted = pool.add(1, 1, 0);
  const Slot good = pool.add(2, 1, 0);
  pool.set_eligible(doubted, false, true);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(pool.reserve({}, {}), good);
  EXPECT_FALSE(pool.reserve_on(doubted, {}, {})) << "a session can move";
  EXPECT_TRUE(pool.reserve_on(doubted, {}, {}, true));
  pool.set_eligible(doubted, false);
  EXPECT_FALSE(pool.reserve_on(doubted, {}, {}, true));
}

TEST(Pool, UnhealthyWorkerIsNotChosen) {
  Pool pool = make_pool();
  const Slot a = pool.add(1, 1, 0);
  const Slot b = pool.add(2, 1, 0);
  pool.set_eligible(a, false);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(pool.reserve({}, {}), b);
  EXPECT_FALSE(pool.reserve_on(a, {}, {}));
  pool.set_eligible(b, false);
  EXPECT_FALSE(pool.reserve({}, {}));
}

TEST(Pool, DrainedWorkerIsNotChosenHoweverHealthy) {
  Pool pool = make_pool();
  const Slot a = pool.add(1, 1, 0);
  const Slot b = pool.add(2, 1, 0);
  ASSERT_TRUE(pool.reserve_on(a, {}, {}));
  pool.set_drained(a, true);
  pool.set_eligible(a, false);
  pool.set_eligible(a, true);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(pool.reserve({}, {}), b);
  EXPECT_FALSE(pool.reserve_on(a, {}, {}));
  EXPECT_TRUE(pool.is_member(a)) << "it stays, and so does what is learned about it";
  EXPECT_EQ(pool.in_flight(a), 1u);
  pool.set_drained(b, true);
  EXPECT_EQ(pool.room(), Pool::Room::none);
  pool.set_drained(a, false);
  EXPECT_EQ(pool.reserve({}, {}), a);
  pool.remove(b);
  EXPECT_TRUE(pool.is_leaving(b));
  for (int i = 0; i < 5; ++i) end(pool, b);
  EXPECT_FALSE(pool.is_leaving(b));
  EXPECT_EQ(pool.add(3, 1, 0), b);
  EXPECT_FALSE(pool.is_drained(b)) << "the next worker begins anew";
}

TEST(Pool, IsDesertedWhenNobodyComesBackByItself) {
  Pool pool = make_pool();
  EXPECT_TRUE(pool.is_deserted());
  const Slot one = pool.add(1, 1, 0), other = pool.add(2, 1, 0);
  pool.set_drained(one, true);
  pool.set_eligible(other, false);
  EXPECT_EQ(pool.room(), Pool::Room::none);
  EXPECT_FALSE(pool.is_deserted()) << "who has failed may return";
  pool.reserve_on(one, {}, {}, true);
  pool.remove(other);
  EXPECT_TRUE(pool.is_deserted());
  pool.set_drained(one, false);
  EXPECT_FALSE(pool.is_deserted());
}

TEST(Pool, FullWorkersGetNothing) {
  Pool pool = make_pool("round_robin");
  const Slot a = pool.add(1, 1, 0);
  const Slot b = pool.add(2, 1, 0);
  pool.set_limit(a, 1);
  pool.set_limit(b, 2);
  EXPECT_EQ(pool.reserve({}, {}), a);
  EXPECT_FALSE(pool.reserve_on(a, {}, {}));
  EXPECT_EQ(pool.reserve({}, {}), b);
  EXPECT_EQ(pool.room(b), Pool::Room::full) << "for a second attempt";
  EXPECT_EQ(pool.reserve({}, {}), b);
  EXPECT_EQ(pool.room(), Pool::Room::full);
  EXPECT_FALSE(pool.reserve({}, {}));
  end(pool, a);
  EXPECT_EQ(pool.room(), Pool::Room::free);
  EXPECT_EQ(pool.reserve({}, {}), a);
}

TEST(Pool, PoolLimitCountsAllWorkers) {
  Pool pool = make_pool();
  pool.add(1, 1, 0);
  pool.add(2, 1, 0);
  pool.set_pool_limit(3);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(pool.reserve({}, {}));
  EXPECT_FALSE(pool.reserve({}, {}));
  EXPECT_EQ(pool.room(), Pool::Room::full);
  pool.set_pool_limit(4);
  EXPECT_TRUE(pool.reserve({}, {}));
}

TEST(Pool, WhatIsUnderWayElsewhereCountsLikeItsOwn) {
  Pool pool = make_pool();
  const Slot first = pool.add(1, 1, 0);
  const Slot second = pool.add(2, 1, 0);
  pool.set_limit(first, 2);
  pool.set_limit(second, 2);
  pool.set_elsewhere(first, 2);
  EXPECT_EQ(pool.in_flight(first), 2u);
  EXPECT_EQ(pool.reserve({}, {}), second);
  pool.set_elsewhere(kNoSlot, 3);
  EXPECT_EQ(pool.in_flight(), 6u);
  pool.set_pool_limit(6);
  EXPECT_EQ(pool.room(), Pool::Room::full);
  pool.set_elsewhere(kNoSlot, 0);
  EXPECT_EQ(pool.reserve({}, {}), second);
  EXPECT_FALSE(pool.reserve({}, {}));
  pool.set_elsewhere(first, 1);
  EXPECT_EQ(pool.reserve({}, {}), first);
  end(pool, first);
  pool.remove(first);
  EXPECT_EQ(pool.in_flight(), 2u);
  EXPECT_EQ(pool.add(3, 1, 0), first) << "nothing of its own is under way there";
  EXPECT_EQ(pool.in_flight(first), 0u);
}

TEST(Pool, FullIsNotGone) {
  Pool pool = make_pool();
  EXPECT_EQ(pool.room(), Pool::Room::none);
  const Slot only = pool.add(1, 1, 0);
  pool.set_limit(only, 1);
  ASSERT_TRUE(pool.reserve({}, {}));
  EXPECT_EQ(pool.room(), Pool::Room::full);
  pool.set_eligible(only, false);
  EXPECT_EQ(pool.room(), Pool::Room::none);
}

TEST(Pool, ALoweredLimitWaitsForThoseUnderWay) {
  Pool pool = make_pool();
  const Slot only = pool.add(1, 1, 0);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(pool.reserve({}, {}));
  pool.set_limit(only, 2);
  end(pool, only);
  EXPECT_FALSE(pool.reserve({}, {}));
  end(pool, only);
  EXPECT_TRUE(pool.reserve({}, {}));
  pool.set_limit(only, 0);
  EXPECT_FALSE(pool.limited());
}

TEST(Pool, CountsStayExactUnderRandomEvents) {
  EXPECT_TRUE(rc::check("in flight = reserved - ended, for each slot, whatever joins and leaves", [] {
    const auto& policies = route_policies();
    Pool pool = make_pool(policies[*rc::gen::inRange<std::size_t>(0, policies.size())].name);
    std::vector<Slot> reserved;
    std::vector<Slot> members;
    Instant now{};
    const auto steps = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 100));
    for (const int step : steps) {
      now += 50ms;
      if (step < 40) {
        RequestView request;
        request.affinity = static_cast<std::uint64_t>(step);
        if (const auto slot =
                pool.reserve(request, now, step % 4 == 0 && !members.empty() ? members[0] : kNoSlot)) {
          RC_ASSERT(pool.is_member(*slot));
          RC_ASSERT(pool.limit(*slot) == 0 || pool.in_flight(*slot) <= pool.limit(*slot));
          reserved.push_back(*slot);
        } else if (step % 4 != 0) {
          RC_ASSERT(pool.room() != Pool::Room::free);
        }
      } else if (step < 70 && !reserved.empty()) {
        end(pool, reserved.back(), now);
        reserved.pop_back();
      } else if (step < 80) {
        members.push_back(pool.add(static_cast<std::uint64_t>(step) + members.size(), 1 + step % 3, 0));
      } else if (step < 90 && !members.empty()) {
        pool.remove(members.back());
        members.pop_back();
      } else if (!members.empty()) {
        pool.set_eligible(members[0], step % 2 == 0);
        pool.set_limit(members.back(), static_cast<std::uint32_t>(step % 5));
        pool.set_pool_limit(static_cast<std::uint32_t>(step % 3) * 4);
        pool.tick(now);
      }
      std::uint32_t total = 0;
      for (Slot slot = 0; slot < pool.slots(); ++slot) {
        RC_ASSERT(pool.in_flight(slot) == static_cast<std::uint32_t>(std::ranges::count(reserved, slot)));
        total += pool.in_flight(slot);
      }
      RC_ASSERT(pool.in_flight() == total);
    }
  }));
}

TEST(StickyTable, RemembersRecentKeysWithinFixedMemory) {
  StickyTable table(4);
  Instant now{};
  EXPECT_FALSE(table.find(7, now));
  for (std::uint64_t key = 1; key <= 100; ++key) table.put(key, key * 10, now += 1s);
  for (std::uint64_t key = 85; key <= 100; ++key) EXPECT_EQ(table.find(key, now += 1s), key * 10);
  EXPECT_FALSE(table.find(84, now));
  table.find(85, now += 1s);
  table.put(1, 1, now += 1s);  // same set as 85, 89, 93, 97: the one not used for longest goes
  EXPECT_TRUE(table.find(85, now));
  EXPECT_FALSE(table.find(89, now));
}

TEST(RetryBudget, AllowsTheFloorWhenQuiet) {
  RetryBudget budget(0.1, 3);
  Instant now{};
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(budget.take(now));
  EXPECT_FALSE(budget.take(now));
  EXPECT_TRUE(budget.take(now + 4s));
}

TEST(RetryBudget, KeepsRetriesAtTheirShareOfTraffic) {
  RetryBudget budget(0.1, 5);
  Instant now{};
  int retries = 0;
  for (int i = 0; i < 100'000; ++i) {
    now += 1ms;
    budget.on_request(now);
    if (budget.take(now)) ++retries;  // everything fails
  }
  EXPECT_NEAR(retries, 10'000 + 5 * 10, 200);
}

TEST(RetryBudget, AQuietNightDoesNotSaveUpAStorm) {
  RetryBudget budget(0.1, 5);
  Instant now{};
  for (int i = 0; i < 100'000; ++i) budget.on_request(now += 1ms);
  now += 3600s;
  int retries = 0;
  while (budget.take(now)) ++retries;
  EXPECT_EQ(retries, 5);
}

}  // namespace
}  // namespace heng
