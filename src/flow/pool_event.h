// Everything a pool is told, as values: what a recording keeps, and a replay tells another pool.
#pragma once

#include <cstdint>

#include "model/attempt.h"
#include "model/pool_view.h"
#include "model/request.h"

namespace heng {

class Pool;

/// One call of a pool, with its answer. Which members mean something follows from `kind`.
struct PoolEvent {
  enum class Kind : std::uint8_t {
    add,             // worker = the answer; identity, weight, capacity
    set_weight,      // worker, weight, capacity
    remove,          // worker
    set_eligible,    // worker, yes, usable
    set_drained,     // worker, yes
    set_ramp,        // worker, weight = the share
    set_reported,    // worker, reported
    set_limit,       // worker, limit
    set_pool_limit,  // limit
    set_elsewhere,   // worker or kNoSlot, limit = how many are in flight there
    reserve,         // worker = the answer, kNoSlot if none; asked = the one to avoid; request, at
    reserve_on,      // worker = the answer, kNoSlot if refused; asked, yes = bound; request, at
    first_byte,      // worker, attempt, at
    end,             // worker, attempt, at
    tick,            // at
    report_load,     // worker = the answer, kNoSlot if refused; asked, weight = the load; at
  };
  Kind kind = Kind::tick;
  Instant at{};
  Slot worker = kNoSlot;
  Slot asked = kNoSlot;
  std::uint64_t identity = 0;
  double weight = 0;
  double capacity = 0;
  std::uint32_t limit = 0;
  bool yes = false;
  bool usable = false;
  EngineLoad reported{};
  RequestView request{};
  AttemptEvent attempt{};
};

/// Hears of every call of its pool that can change a later choice, in order, after it is done.
class PoolObserver {
 public:
  virtual ~PoolObserver() = default;
  /// `event` and what it refers to are valid during the call only.
  virtual void on_event(const PoolEvent& event) = 0;
};

/// Whether the pool could have been told so: the workers are there, what ends has begun, numbers are in
/// range.
bool fits(const Pool& pool, const PoolEvent& event);
/// Makes the same call, which must fit; the pool's answer, or `event.worker` of calls that have none.
Slot apply(Pool& pool, const PoolEvent& event);

}  // namespace heng
