// What the API keys have used of their limits.
#pragma once

#include <string>
#include <unordered_map>

#include "flow/rate_limit.h"
#include "host/metrics.h"
#include "model/tenant.h"

namespace heng {

/// Owned by the gateway. One entry for every key with limits that has been used; keys come from the
/// configuration only.
class KeyUses {
 public:
  /// By the limits as they are now; what was used under others stays used. Null if the key has none. Valid as
  /// long as this object.
  KeyUse* of(const Tenant& tenant, Instant now) {
    const bool limited = tenant.limits != KeyLimits{};
    const auto known = uses_.find(tenant.key_id);
    if (known == uses_.end()) {
      return limited ? &uses_.try_emplace(tenant.key_id, tenant.limits, now).first->second : nullptr;
    }
    known->second.set_limits(tenant.limits, now);
    return limited ? &known->second : nullptr;
  }

  void expose_gauges(MetricRegistry& registry, Instant now);

 private:
  std::unordered_map<std::string, KeyUse> uses_;  // by key id; entries stay where they are
};

}  // namespace heng
