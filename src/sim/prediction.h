// What the engine model makes of measured requests, from arrivals, lengths and prefixes alone.
#pragma once

#include <span>
#include <vector>

#include "sim/engine.h"
#include "sim/traffic/measured.h"

namespace heng {

struct Timing {
  double ttft = 0, duration = 0;  // s
  std::uint32_t cached_tokens = 0;
};

/// Open loop through one engine; by request.
std::vector<Timing> simulate(const EngineParams& params, const MeasuredRun& run);

/// Time per token after the first, of two tokens or more.
inline double tpot(double ttft, double duration, std::uint32_t tokens) {
  return (duration - ttft) / (tokens - 1.0);
}

/// How well an engine with given parameters predicts runs, from arrivals, lengths and prefixes alone.
struct FitQuality {
  std::size_t requests = 0;
  double ttft_error = 0;                              // predicted mean over measured mean, less 1
  double tpot_error = 0;                              // of requests with two tokens or more
  double ttft_correlation = 0, tpot_correlation = 0;  // by request, in [-1, 1]
};

/// Fails, with what to do, if an engine of these limits would refuse a request.
Result<void> check_room(const EngineParams& engine, std::span<const MeasuredRun> runs);

/// Simulates every run open loop. Fails as `check_room` does.
Result<FitQuality> predict(const EngineParams& engine, std::span<const MeasuredRun> runs);

}  // namespace heng
