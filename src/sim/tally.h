// What a simulation is measured by: latencies, goodput, cache hits, balance, and their course over time.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/time.h"
#include "model/pool_view.h"
#include "sim/latency_histogram.h"

namespace heng {

enum class RequestEnd : std::uint8_t { completed, refused, failed };
enum class TurnedAway : std::uint8_t { no, queue_full, queue_timeout };

/// How one request went, as its client saw it.
struct RequestRecord {
  std::uint64_t id = 0;  // from 1, in order of arrival
  RequestEnd end = RequestEnd::completed;
  TurnedAway turned_away = TurnedAway::no;  // by a gateway's queue; those are refused
  Instant arrived;
  bool stream = true;
  Duration queued{};    // in a gateway, before all attempts
  Duration ttft{};      // arrival to the answer's first byte, over all attempts; without stream, to its last
  Duration duration{};  // arrival to the end
  std::uint32_t prompt_tokens = 0;
  std::uint32_t cached_tokens = 0;
  std::uint32_t output_tokens = 0;
  std::uint32_t attempts = 0;
  Slot worker = kNoSlot;  // of the last attempt
  bool cut = false;       // the context had no room for the whole answer

  /// Time per output token after the first; zero if there were not two. Of a streamed answer.
  Duration tpot() const { return output_tokens < 2 ? Duration(0) : (duration - ttft) / (output_tokens - 1); }
};

struct TallyOptions {
  std::size_t workers = 0;
  std::vector<double> speeds;  // [workers] load is counted relative to it
  Duration ttft_objective = 2s;
  Duration tpot_objective = 100ms;
  Duration warmup{0};  // requests that arrive earlier are not counted
};

/// What was completed within a time.
struct Throughput {
  Duration time{};
  std::uint64_t requests = 0, good = 0, output_tokens = 0;
};

/// A stretch of time; sums over its samples, one a second.
struct TimelineSpan {
  double samples = 0;
  std::vector<double> in_flight;          // [workers]
  double queued = 0;                      // waiting in gateways
  std::vector<double> weights;            // [workers] the policy's shares on the first gateway; may be empty
  std::vector<std::uint64_t> assigned;    // [workers] attempts begun
  std::uint64_t completed = 0, lost = 0;  // lost: refused or failed
  std::uint64_t streamed = 0;             // of the completed
  std::uint64_t prompt_tokens = 0, cached_tokens = 0;
  double ttft_s = 0;  // sum over the streamed
};

/// Owned by one simulation. Memory does not grow with its length.
class Tally {
 public:
  explicit Tally(TallyOptions options);

  void on_arrival(Instant now);
  void on_attempt(Slot worker, Instant now);
  void on_end(const RequestRecord& record);
  /// Once a second: requests in flight over all gateways and waiting in the engine, by worker, and waiting in
  /// the gateways.
  void sample(Instant now, std::span<const std::uint32_t> in_flight, std::span<const std::uint32_t> waiting,
              std::uint64_t queued, std::span<const double> weights);

  const TallyOptions& options() const { return options_; }
  std::uint64_t completed() const { return completed_; }
  std::uint64_t refused() const { return refused_; }
  std::uint64_t failed() const { return failed_; }
  std::uint64_t turned_away(TurnedAway why) const { return turned_away_[static_cast<std::size_t>(why)]; }
  std::uint64_t had_to_wait() const { return had_to_wait_; }  // in a gateway
  std::uint64_t cut() const { return cut_; }                  // of the completed
  std::uint64_t retries() const { return retries_; }
  std::uint64_t good() const { return good_; }  // completed within the objectives
  std::uint64_t counted() const { return completed_ + refused_ + failed_; }
  std::uint64_t prompt_tokens() const { return prompt_tokens_; }  // of completed requests, like the next two
  std::uint64_t cached_tokens() const { return cached_tokens_; }
  std::uint64_t output_tokens() const { return output_tokens_; }
  const LatencyHistogram& ttft() const { return ttft_; }  // of streamed requests, like the next
  const LatencyHistogram& tpot() const { return tpot_; }
  const LatencyHistogram& queued() const { return queued_; }  // of completed requests, like the next
  const LatencyHistogram& duration() const { return duration_; }
  /// From the first counted arrival to the last counted end.
  Duration span() const { return last_ > first_ ? last_ - first_ : Duration(0); }
  /// While requests still came, from the first counted arrival to the last, whenever those requests had come:
  /// so neither the start nor one very long answer at the end matters. Where that is less than half of the
  /// counted (a batch, an overload): all of them, to the last end.
  Throughput throughput() const;
  double cached_share() const { return ratio(cached_tokens_, prompt_tokens_); }
  /// Mean over time of (most / mean) requests in flight per unit of speed, weighted by load; 1 = even.
  double imbalance() const { return mean_load_ > 0 ? most_load_ / mean_load_ : 1; }
  double queue_mean() const { return samples_ > 0 ? queue_sum_ / samples_ : 0; }  // waiting in engines
  std::uint64_t queue_max() const { return queue_max_; }

  std::span<const TimelineSpan> timeline() const { return timeline_; }
  Duration timeline_step() const { return step_; }

 private:
  static double ratio(std::uint64_t part, std::uint64_t whole) {
    return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
  }
  bool is_good(const RequestRecord& record) const;
  TimelineSpan& span_at(Instant at);
  void halve();

  TallyOptions options_;
  std::uint64_t completed_ = 0, refused_ = 0, failed_ = 0, retries_ = 0, good_ = 0, cut_ = 0;
  std::uint64_t prompt_tokens_ = 0, cached_tokens_ = 0, output_tokens_ = 0;
  std::uint64_t had_to_wait_ = 0;
  std::array<std::uint64_t, 3> turned_away_{};  // [TurnedAway]
  LatencyHistogram ttft_, tpot_, duration_, queued_;
  Instant first_ = Instant::max(), last_ = Instant::min();  // counted arrival; counted end
  Throughput since_first_, at_last_arrival_;                // what was completed since then
  double most_load_ = 0, mean_load_ = 0, samples_ = 0, queue_sum_ = 0;
  std::uint64_t queue_max_ = 0;
  std::vector<TimelineSpan> timeline_;
  Duration step_ = 1s;
};

}  // namespace heng
