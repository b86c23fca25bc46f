// The interface of a routing policy: a deterministic state machine that picks a worker for a request.
#pragma once

#include <optional>
#include <span>

#include "base/rng.h"
#include "base/time.h"
#include "model/attempt.h"
#include "model/pool_view.h"
#include "model/request.h"

namespace heng {

/// Owned by one pool, called from its thread only. Reads no clock, socket or global; the same calls in the
/// same order give the same choices, in the gateway and in the simulator.
class RoutePolicy {
 public:
  virtual ~RoutePolicy() = default;

  /// A member of `pool.eligible`, or nothing when that is empty. The caller reserves the worker in the same
  /// step (in_flight rises, then `on(started)` follows), so a choice always sees all choices before it.
  virtual std::optional<Slot> choose(const RequestView& request, const PoolView& pool, Instant now,
                                     Rng& rng) = 0;

  /// Facts about an attempt. `started` comes right after `choose`; `first_byte` at most once; `ended` exactly
  /// once.
  virtual void on(const AttemptEvent& event, const PoolView& pool, Instant now) {
    static_cast<void>(event), static_cast<void>(pool), static_cast<void>(now);
  }

  /// Called about every 100 ms; controllers act here when their own interval has passed.
  virtual void tick(const PoolView& pool, Instant now) { static_cast<void>(pool), static_cast<void>(now); }

  /// Current share of each slot, [slots], summing to 1 over the eligible; empty when the policy keeps no
  /// weights.
  virtual std::span<const double> weights() const { return {}; }

  /// Load offered to a worker, in work per second, as somebody outside measured it (`POST /balance`). Once
  /// every eligible worker has a new report the weights move by one step, at once. False: the policy takes no
  /// reports, the worker is no member, or the load is negative or not finite.
  virtual bool report_load(Slot worker, double load, const PoolView& pool, Instant now) {
    static_cast<void>(worker), static_cast<void>(load), static_cast<void>(pool), static_cast<void>(now);
    return false;
  }
};

}  // namespace heng
