// What each tenant takes of what all share: memory and second attempts.
#pragma once

#include <string>
#include <unordered_map>

#include "base/buffer.h"
#include "config/config.h"
#include "flow/retry_budget.h"
#include "model/tenant.h"

namespace heng {

struct TenantUse {
  RetryBudget retries;
  MemoryAccount memory;
};

/// Owned by the gateway. One entry for every tenant that has sent a request, since tenants come from the
/// configuration only; without keys everybody is one.
class TenantUses {
 public:
  explicit TenantUses(const RetryConfig& retry) : own_(own_budget(retry)), together_(common_budget(retry)) {}

  /// Budgets begin anew.
  void set_retry(const RetryConfig& retry) {
    own_ = own_budget(retry);
    together_ = common_budget(retry);
    for (auto& [name, use] : uses_) use.retries = own_;
  }
  /// Null without keys. Valid as long as this object.
  TenantUse& of(const Tenant* tenant) {
    const std::string& name = tenant == nullptr ? nobody_ : tenant->name;
    return uses_.try_emplace(name, own_, MemoryAccount()).first->second;
  }

  /// A client's own retry takes from its tenant's budget, not from what others need.
  void on_request(TenantUse& use, Instant now, bool client_retry) {
    use.retries.on_request(now, client_retry);
    if (!client_retry) together_.on_request(now);
  }
  bool may_retry(TenantUse& use, Instant now) {
    return use.retries.available(now) && together_.available(now);
  }
  bool take_retry(TenantUse& use, Instant now) {
    return may_retry(use, now) && use.retries.take(now) && together_.take(now);
  }

 private:
  static RetryBudget own_budget(const RetryConfig& retry) { return {retry.budget_ratio, retry.budget_floor}; }
  /// Twice the floor, so that whoever uses up theirs leaves the others one.
  static RetryBudget common_budget(const RetryConfig& retry) {
    return {retry.budget_ratio, 2 * retry.budget_floor};
  }

  std::string nobody_;
  RetryBudget own_;                                  // of a tenant that is new
  RetryBudget together_;                             // bounds all tenants' second attempts
  std::unordered_map<std::string, TenantUse> uses_;  // by name; entries stay where they are
};

}  // namespace heng
