// Learns how fast the workers of a pool are relative to each other, from the requests they finish.
#pragma once

#include <array>
#include <span>

#include "base/stats.h"
#include "model/attempt.h"
#include "policy/route/attempt_table.h"
#include "policy/route/slot_table.h"

namespace heng {

struct SpeedOptions {
  double prompt_cost;     // work of a prompt token, where an output token is 1
  double half_intervals;  // evidence halves in so many intervals ...
  double half_requests;   // ... but not before this many new requests have finished
};

/// Engines batch: a decode step serves all running requests and takes longer the more there are. A busy
/// worker thus finishes more work per busy second, and each of its requests takes longer: neither tells its
/// speed. With a decode step of (t0 + t1 b) / speed for b requests, work is done at the rate
///
///     R b / (h + b),   h = t0 / t1,
///
/// which also holds, with another h, when prefills interrupt the decoding, and turns flat where a queue
/// begins. So R_i = work done / effort, effort being the integral of b / (h + b) over time: work per busy
/// second, corrected for batch size. h belongs to the kind of engine, not to a worker. It is estimated from
/// how requests of the *same* worker that end in the same interval differ: seconds per unit of work go with h
/// + b. (Differences between workers or over time are speed.) At equal utilisation all workers see the same b
/// and h drops out: its error decides how the weights get to their limit, not where that is. An h too small
/// would feed on itself (who has more load looks faster); one too large only damps; so the estimate leans to
/// the large side.
class SpeedEstimate {
 public:
  explicit SpeedEstimate(const SpeedOptions& options);

  void sync(const PoolView& pool) { workers_.sync(pool); }
  void on_started(const AttemptEvent& event, Instant now);
  void on_ended(const AttemptEvent& event, Instant now);
  /// Lets old evidence fade; to be called once per step of the controller. A worker that has finished nothing
  /// forgets nothing.
  void end_interval(Instant now);

  /// Work a request with this prompt will probably bring: its output is the mean of those seen.
  double expected_work(double prompt_tokens) const;
  /// Capacities of the eligible workers, in the order of pool.eligible, on an arbitrary common scale. Workers
  /// that have finished too little get the (geometric) mean of the others.
  void capacities(const PoolView& pool, std::span<double> out) const;
  /// The h of the model: requests in flight at which a worker reaches half its greatest rate.
  double half_batch() const { return half_batch_; }

 private:
  static constexpr std::array<double, 9> kHalfBatches{1, 2, 4, 8, 16, 32, 64, 128, 256};

  struct Worker {
    double in_flight = 0;                       // attempts we have seen start and not end
    double area = 0;                            // integral of in_flight over time, request-seconds
    Instant at{};                               // up to when area and effort are counted
    double requests = 0, work = 0, effort = 0;  // fading
    // This interval's finished requests, weighted by work: r = log of seconds per work / (h + batch), for
    // each h.
    double fresh = 0, weight = 0;
    std::array<double, kHalfBatches.size()> r{}, rr{};

    void advance(Instant now, double half_batch);
  };

  void learn_batching(Worker& worker, double seconds, double work, double batch);
  void fit_half_batch();
  double work_of(const AttemptEvent& event) const;

  SpeedOptions options_;
  SlotTable<Worker> workers_;
  AttemptTable<double> areas_;  // the worker's area when the attempt started
  Ewma output_;                 // output tokens of a request, whole pool
  double half_batch_;
  double spread_weight_ = 0;  // fading: how many requests stand behind spread_
  std::array<double, kHalfBatches.size()>
      spread_{};  // fading: squared differences within worker and interval
};

}  // namespace heng
