// The workers of one pool as a policy sees them: spans over arrays that the pool owns, rebuilt only when
// membership or health changes. Reading it copies and allocates nothing.
#pragma once

#include <cstdint>
#include <span>

#include "base/time.h"

namespace heng {

/// Index of a worker inside its pool's arrays. Stable while the worker is a member; reused after it has left.
using Slot = std::uint32_t;
inline constexpr Slot kNoSlot = 0xffffffff;

/// What a worker last said about its engine on its metrics page. As old as `at`; policies must do without.
struct EngineLoad {
  Instant at = Instant::min();  // when the gateway read it; min() = never
  float running = 0;            // requests in the engine's batch
  float waiting = 0;            // requests in the engine's own queue
  float kv_used = 0;            // share of the KV cache in use, 0 to 1; 0 where the engine does not say
  bool known() const { return at != Instant::min(); }
};

struct PoolView {
  std::span<const Slot> eligible;            // may be given new requests now; ascending, no duplicates
  std::span<const std::uint32_t> in_flight;  // [slots] attempts reserved and not ended; exact
  std::span<const double> weight;            // [slots] configured weight x slow-start share; > 0 if eligible
  std::span<const double> capacity;          // [slots] declared, in work per second; 0 = not declared
  std::span<const std::uint64_t> identity;   // [slots] hash of the worker's URL: equal on all gateways
  std::span<const EngineLoad> reported;      // [slots] by the workers themselves
  std::uint64_t generation = 0;              // changes with `eligible`, `identity` and configured values
};

}  // namespace heng
