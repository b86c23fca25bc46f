// Learns how many requests a worker can have at a time before they wait inside it instead of in our queue.
#pragma once

#include <array>
#include <cstdint>

#include "base/time.h"

namespace heng {

struct AdaptiveLimitOptions {
  std::uint32_t min = 4;
  std::uint32_t max = 1024;
  double tolerance = 2;    // a first byte is late beyond tolerance x unloaded time + slack
  Duration slack = 200ms;  // a fuller batch has longer steps; that alone is no queue
};

/// An engine with continuous batching answers more requests at a time only a little slower each, until its
/// batch or its KV memory is full; from then on they queue in it, and the time to first byte grows by the
/// whole wait of everybody. So the signal is a window in which hardly anyone's first byte was on time (a
/// standing queue, as CoDel tells it from a burst: Nichols, Jacobson 2012), and the answer is additive
/// increase while the limit is used, multiplicative decrease when late: step sqrt(limit), factor 0.9, as
/// Netflix's concurrency-limits (Gradient2Limit, AIMDLimit). On time is relative to the 20th percentile by
/// size of the prompt (octaves of tokens), learned at low load like Envoy's minRTT, so a mixture of cached
/// and uncached prompts is measured against itself. If decreasing does not help, it is not load that makes
/// the answers late, and the percentiles are learned anew. One worker's; O(1), no allocation, deterministic.
class AdaptiveLimit {
 public:
  AdaptiveLimit(const AdaptiveLimitOptions& options, Instant now);

  void set_options(const AdaptiveLimitOptions& options);
  std::uint32_t limit() const { return static_cast<std::uint32_t>(limit_); }

  /// `in_flight`: on the worker, this request included.
  void on_first_byte(double prompt_tokens, Duration elapsed, std::uint32_t in_flight, Instant now);
  /// An answer that came all at once, so that nobody saw its first token: on time relative to answers of the
  /// same length.
  void on_whole_answer(double output_tokens, Duration elapsed, std::uint32_t in_flight, Instant now);
  /// The worker itself answered 429 or 503.
  void on_refused(std::uint32_t in_flight, Instant now);

 private:
  /// Seconds to the first byte of prompts of one size: an estimate of a low percentile.
  struct Unloaded {
    double seconds = 0;
    std::uint32_t samples = 0;       // of the first
    std::array<double, 20> first{};  // ascending
    void learn(double sample);
  };
  struct Window {
    Instant began;
    std::uint32_t samples = 0;
    std::uint32_t on_time = 0;
    double log_ratio = 0;  // sum of ln(time / unloaded time)
    bool limit_used = false;
  };

  void take(Unloaded& unloaded, Duration elapsed, std::uint32_t in_flight, Instant now);
  void judge(Instant now);
  void decrease(double mean_log_ratio, Instant now);
  void change(double limit, Instant now);

  AdaptiveLimitOptions options_;
  double limit_;
  bool doubling_ = true;  // until the first sign of load
  int learning_;          // windows left in which everything counts as unloaded
  int decreases_ = 0;     // in a row
  double late_at_first_ = 0;
  Instant changed_;
  Window window_;
  static constexpr std::size_t kOctaves = 24;
  std::array<Unloaded, 2 * kOctaves> unloaded_;  // by octave of prompt tokens, then of output tokens
};

}  // namespace heng
