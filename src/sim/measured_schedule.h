// The measured schedule of a run: which requests decoded when, and what the steps between computed.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "sim/fit_math.h"
#include "sim/traffic/measured.h"

namespace heng {

/// What the steps between the first and the last token of each request computed follows from everybody's
/// times without a simulation, which jumps where a request just misses a step. Times of tokens are the ends
/// of steps, so a prompt whose first token came in between was computed in between. Exact but for fractions
/// of a step and what preemption computes again. O(requests x those in flight).
class MeasuredSchedule {
 public:
  /// `cached`: tokens of each prompt that were not computed. `budget`: prompt tokens in a step.
  MeasuredSchedule(const MeasuredRun& run, std::span<const std::uint32_t> cached, double budget);

  /// By request: steps, prompt tokens, decoding sequences, tokens of context read, attention pairs.
  std::vector<fitting::Vector> work() const;
  /// Steps pass as these times (in ns) say, no longer evenly over each request's time.
  void pace(const fitting::Vector& ns);

 private:
  struct Span {
    double first, last, steps, prompt, cached;
    std::size_t index;
  };
  struct Chunk {
    double end, tokens, pairs;  // tokens and pairs: of all chunks up to this one
  };

  void place_chunks(double seconds);
  std::pair<double, double> prefilled(double from, double until) const;
  double steps_of(const Span& span, double from, double until) const;
  double clock(double at) const;

  double budget_;
  std::vector<Span> spans_;                       // in order of first tokens
  std::vector<Chunk> chunks_;                     // in order of their ends
  std::vector<std::pair<double, double>> clock_;  // s, and steps passed or any measure of them
};

}  // namespace heng
