// Tokens that each worker has still to prefill, as far as a gateway knows: counted from the choice of the
// worker to the first byte of its answer.
#pragma once

#include <algorithm>

#include "policy/route/attempt_table.h"
#include "policy/route/slot_table.h"

namespace heng {

/// Owned by a policy. Constant cost; allocates only when there are more requests or workers than ever before.
class WaitingTokens {
 public:
  void sync(const PoolView& pool) { workers_.sync(pool); }

  void add(std::uint64_t request, Slot slot, double tokens, const PoolView& pool) {
    waiting_.put(request, slot, {tokens, pool.identity[slot]});
    ++workers_[slot].requests;
    workers_[slot].tokens += tokens;
  }

  /// At the first byte or the end, whichever comes first; the second is ignored.
  void remove(std::uint64_t request, Slot slot, const PoolView& pool) {
    const std::optional<Waiting> waiting = waiting_.take(request, slot);
    if (!waiting || waiting->identity != pool.identity[slot]) return;  // or the slot has changed hands
    Worker& worker = workers_[slot];
    // Rounding errors end with the last request.
    worker.tokens = --worker.requests == 0 ? 0 : std::max(worker.tokens - waiting->tokens, 0.0);
  }

  double of(Slot slot) const { return workers_[slot].tokens; }

 private:
  struct Waiting {
    double tokens = 0;
    std::uint64_t identity = 0;
  };
  struct Worker {
    std::uint32_t requests = 0;
    double tokens = 0;
  };

  AttemptTable<Waiting> waiting_;
  SlotTable<Worker> workers_;
};

}  // namespace heng
