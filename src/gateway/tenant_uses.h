// What each tenant takes of what all share.
#pragma once

#include <string>
#include <unordered_map>

#include "base/buffer.h"
#include "model/tenant.h"

namespace heng {

struct TenantUse {
  MemoryAccount memory;
};

/// Owned by the gateway. One entry for every tenant that has sent a request; tenants come from the
/// configuration only.
class TenantUses {
 public:
  /// Valid as long as this object.
  TenantUse& of(const Tenant& tenant) { return uses_[tenant.name]; }

 private:
  std::unordered_map<std::string, TenantUse> uses_;  // by name; entries stay where they are
};

}  // namespace heng
