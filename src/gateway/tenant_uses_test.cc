// Retry budgets of tenants: nobody uses up another's, and all together stay bounded.
#include "gateway/tenant_uses.h"

#include <gtest/gtest.h>

namespace heng {
namespace {

struct TenantRetries : testing::Test {
  TenantUse& use_of(std::string name) {
    Tenant tenant;
    tenant.name = std::move(name);
    return uses.of(&tenant);
  }
  /// How many of so many failing requests are tried again.
  int retries(TenantUse& use, int requests) {
    int taken = 0;
    for (int i = 0; i < requests; ++i) {
      uses.on_request(use, now, false);
      taken += uses.take_retry(use, now) ? 1 : 0;
    }
    return taken;
  }
  TenantUses uses{RetryConfig{.budget_ratio = 0.125, .budget_floor = 10}};
  TenantUse& alice = use_of("alice");
  TenantUse& mallory = use_of("mallory");
  Instant now = Instant{} + 1000s;
};

TEST_F(TenantRetries, ClientsOwnTakeFromTheirTenantOnly) {
  for (int i = 0; i < 1000; ++i) uses.on_request(mallory, now, true);
  EXPECT_FALSE(uses.may_retry(mallory, now));
  EXPECT_FALSE(uses.take_retry(mallory, now));
  EXPECT_EQ(retries(alice, 10), 10);
}

TEST_F(TenantRetries, OneTenantsFailuresLeaveAnotherItsFloor) {
  EXPECT_EQ(retries(mallory, 1000), 10 + 125);
  EXPECT_EQ(retries(alice, 10), 10);
}

TEST_F(TenantRetries, AllTogetherStayBounded) {
  int taken = 0;
  for (int i = 0; i < 100; ++i) taken += retries(use_of(std::to_string(i)), 8);
  EXPECT_EQ(taken, 2 * 10 + 100) << "twice the floor and an eighth of the requests";
}

TEST_F(TenantRetries, WithoutKeysEverybodyIsOne) {
  EXPECT_EQ(&uses.of(nullptr), &uses.of(nullptr));
  EXPECT_EQ(retries(uses.of(nullptr), 80), 10 + 10);
}

TEST_F(TenantRetries, AReloadReplacesTheBudgetsAndKeepsTheRest) {
  alice.memory.held_bytes = 7;
  uses.set_retry({.budget_ratio = 0, .budget_floor = 3});
  EXPECT_EQ(&use_of("alice"), &alice);
  EXPECT_EQ(alice.memory.held_bytes, 7u);
  EXPECT_EQ(retries(alice, 100), 3);
}

}  // namespace
}  // namespace heng
