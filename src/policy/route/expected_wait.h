// The expected wait of SMG's `least_load`, which its `cache_aware` uses too.
#pragma once

#include <algorithm>
#include <cmath>

#include "policy/route/least.h"
#include "policy/route/slot_table.h"

namespace heng {

/// Seconds until a worker has drained what waits there, plus a barrier against full KV caches:
///
///     (tokens queued + tokens sent since the last report) / throughput + weight k / (1 - k)
///
/// as in https://github.com/smg-project/smg model_gateway/src/policies/least_load.rs at 11b1fe0 (2026-08).
/// Engines whose load is read from a metrics page report waiting requests and no rate: as there, each counts
/// as a mean prompt, and the rate is the configured one. Left out is the cap on waiting requests (off by
/// default), since a policy here may not refuse.
class ExpectedWait {
 public:
  struct Options {
    double kv_pressure_weight = 0.15;   // seconds
    double mean_prefill_tokens = 1024;  // of a request whose length is not known
    double throughput = 2000;           // tokens per second
  };

  explicit ExpectedWait(const Options& options) : options_(options) {}

  /// To be called before anything else: a new report covers what was sent before it.
  void sync(const PoolView& pool) {
    sent_.sync(pool);
    for (const Slot slot : pool.eligible) {
      if (sent_[slot].reported_at == pool.reported[slot].at) continue;
      sent_[slot] = {.reported_at = pool.reported[slot].at};
    }
  }

  /// One of `pool.eligible`, which may be a part of the pool; one of several equal ones at random.
  std::optional<Slot> choose(const PoolView& pool, Rng& rng) const {
    double best_known = HUGE_VAL;
    for (const Slot slot : pool.eligible) {
      if (pool.reported[slot].known()) best_known = std::min(best_known, seconds(pool, slot));
    }
    return least(pool, rng, [&](Slot slot) -> double {
      if (pool.reported[slot].known()) return seconds(pool, slot);
      const double requests = pool.in_flight[slot];
      // Nobody reports: the shortest queue. Else unknown is neither idle nor busy.
      if (best_known == HUGE_VAL) return requests;
      return best_known + requests * options_.mean_prefill_tokens / options_.throughput;
    });
  }

  void sent(Slot slot, double prompt_tokens) {
    sent_[slot].tokens += prompt_tokens > 0 ? prompt_tokens : options_.mean_prefill_tokens;
  }

 private:
  struct Sent {
    Instant reported_at = Instant::min();
    double tokens = 0;  // since then
  };

  double seconds(const PoolView& pool, Slot slot) const {
    const EngineLoad& load = pool.reported[slot];
    const double queued = load.waiting * options_.mean_prefill_tokens;
    const double used = std::clamp<double>(load.kv_used, 0, 0.999);
    return (queued + sent_[slot].tokens) / options_.throughput +
           options_.kv_pressure_weight * used / (1 - used);
  }

  Options options_;
  SlotTable<Sent> sent_;
};

}  // namespace heng
