// Picking the worker with the least cost without favouring the first of several equal ones.
#pragma once

#include <optional>

#include "base/rng.h"
#include "model/pool_view.h"

namespace heng {

/// Requests a worker would hold if it got the next one, relative to its weight.
inline double relative_load(const PoolView& pool, Slot slot) {
  return (static_cast<double>(pool.in_flight[slot]) + 1) / pool.weight[slot];
}

/// The eligible worker with the least cost(slot); one of several equal ones at random, so that gateways that
/// see the same pool do not send their next requests to the same worker. Linear; one random number, if there
/// is a tie.
template <class Cost>
std::optional<Slot> least(const PoolView& pool, Rng& rng, Cost cost) {
  if (pool.eligible.empty()) return std::nullopt;
  Slot best = pool.eligible.front();
  double best_cost = cost(best);
  std::size_t ties = 1;
  for (const Slot slot : pool.eligible.subspan(1)) {
    const double c = cost(slot);
    if (c < best_cost) {
      best = slot;
      best_cost = c;
      ties = 1;
    } else if (c == best_cost) {
      ++ties;
    }
  }
  if (ties == 1) return best;
  std::size_t skip = rng.below(ties);
  for (const Slot slot : pool.eligible) {
    if (cost(slot) == best_cost && skip-- == 0) return slot;
  }
  return best;
}

/// The less loaded of two different random workers; of two equal ones the first drawn. Constant cost.
inline std::optional<Slot> less_loaded_of_two(const PoolView& pool, Rng& rng) {
  const std::size_t n = pool.eligible.size();
  if (n == 0) return std::nullopt;
  if (n == 1) return pool.eligible.front();
  const std::size_t a = rng.below(n);
  std::size_t b = rng.below(n - 1);
  if (b >= a) ++b;
  const Slot first = pool.eligible[a], second = pool.eligible[b];
  return relative_load(pool, second) < relative_load(pool, first) ? second : first;
}

}  // namespace heng
