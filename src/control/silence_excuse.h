// How long a worker's silence may be explained by the requests that wait on it.
#pragma once

#include <cstdint>

#include "base/time.h"
#include "model/request.h"
#include "policy/route/attempt_table.h"

namespace heng {

/// What one worker has shown about the time to the first byte, and who waits for one. Owned by its
/// WorkerHealth. Allocates only when more requests wait than ever before.
///
/// The excuse of a streamed request is its prompt: tokens x the longest that tokens have lately taken, never
/// less than 1 ms a token (prefix caches make engines look faster than they are with a new prompt). The
/// longest is a maximum that fades by 5% a request, of (1.5 x time to first byte) / tokens, so of an upper
/// bound, since queues and overheads are in it; and where the first byte took more than 0.1 s, of 4 x the
/// excess / tokens, since a batch may hold several such prompts. Before any answer 16 ms a token are assumed,
/// four times what a small CPU engine takes. Prompts of the usual size so excuse little more than the usual
/// time to first byte.
///
/// A request that is not streamed is silent until it is complete, and only engines that answer no probes
/// while they work need an excuse for that: twice the slowest recent whole answer (fading alike), unless the
/// worker has lately answered three probes in such silences.
///
/// The latest excuse counts, not their sum: a first byte comes when the first of them is through.
class SilenceExcuse {
 public:
  void on_started(const RequestView& request, Instant now);
  /// Its answer flows, or has ended. `good`: to be learned from. False: it did not wait any more.
  bool on_done(std::uint64_t request, bool good, Instant now);
  void on_probe_answered_in_silence() { ++answered_; }
  /// The worker did not answer probes for a while but was alive.
  void on_probe_blocked() { answered_ = 0; }

  /// Until when this request alone would explain that nothing comes.
  Instant explained_until(const RequestView& request, Instant since) const;
  /// Until when those waiting explain that nothing comes; `Instant{}` if nobody waits.
  Instant explained_until() const;
  std::size_t waiting() const { return waiting_.size(); }

 private:
  struct Waiting {
    RequestView request;
    Instant since;
  };
  AttemptTable<Waiting> waiting_;
  double per_token_s_ = 0.016;
  double whole_answer_s_ = 0;
  std::uint32_t answered_ = 0;  // probes in silence, in a row
};

}  // namespace heng
