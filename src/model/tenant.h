// Who sends a request: what an API key grants and how much of it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace heng {

/// 0 = no limit.
struct KeyLimits {
  std::uint32_t requests_per_minute = 0;
  std::uint64_t tokens_per_minute = 0;  // prompt and output together
  std::uint32_t concurrent = 0;         // requests waiting or under way at a time

  bool operator==(const KeyLimits&) const = default;
};

/// One API key's grant. Immutable and shared: requests keep theirs to their end, whatever a reload says of
/// the key meanwhile. The secret is not in it.
struct Tenant {
  std::string key_id;  // public: logs and messages name the key by it; unique
  std::string name;  // keys with the same name share resources and their place in the queue; default: key_id
  std::uint32_t priority = 5;       // 0 to 9, higher goes first
  double weight = 1;                // its share of the workers beside others' while requests wait
  KeyLimits limits;                 // of this key
  std::vector<std::string> models;  // names, or beginnings with a trailing "*"; empty = every model
};

using TenantPtr = std::shared_ptr<const Tenant>;

}  // namespace heng
