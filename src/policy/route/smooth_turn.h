// The smooth weighted turn: workers take turns in proportion to weights, spread as evenly as possible.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "model/pool_view.h"

namespace heng {

/// nginx's rule (ngx_http_upstream_round_robin.c, 2012): everyone gains credit equal to its weight, the
/// richest is chosen and pays the sum of all weights. Weights 5, 1, 1 give a a b a c a a, never five a's in a
/// row. Weights may change between turns. Owned by a policy; linear, allocates only in `reset`.
class SmoothTurn {
 public:
  /// To be called when the membership or the eligible set has changed: whoever was away comes back without
  /// the credit or debt it left with.
  void reset(const PoolView& pool) {
    std::vector<double> kept(pool.identity.size(), 0.0);
    for (const Slot slot : pool.eligible) {
      if (slot < credit_.size()) kept[slot] = credit_[slot];
    }
    credit_ = std::move(kept);
  }

  /// weight_of(slot) > 0.
  template <class WeightOf>
  std::optional<Slot> pick(const PoolView& pool, WeightOf weight_of) {
    if (pool.eligible.empty()) return std::nullopt;
    double sum = 0;
    Slot best = kNoSlot;
    double most = 0;
    for (const Slot slot : pool.eligible) {
      const double weight = weight_of(slot);
      sum += weight;
      const double credit = credit_[slot] += weight;
      if (credit <= most && best != kNoSlot) continue;
      best = slot;
      most = credit;
    }
    credit_[best] -= sum;
    return best;
  }

 private:
  std::vector<double> credit_;  // [slots]; sums to about 0 over the eligible
};

/// shares[slot] = weight_of(slot) / sum over the eligible, 0 elsewhere. Allocates only when the pool grows.
template <class WeightOf>
void fill_shares(std::vector<double>& shares, const PoolView& pool, WeightOf weight_of) {
  shares.assign(pool.identity.size(), 0.0);
  double sum = 0;
  for (const Slot slot : pool.eligible) sum += shares[slot] = weight_of(slot);
  for (const Slot slot : pool.eligible) shares[slot] /= sum;
}

}  // namespace heng
