// Changes to a stream of traffic: a cut in time, a sample, another rate, arrivals drawn anew in blocks.
#pragma once

#include <functional>
#include <memory>

#include "sim/traffic/traffic.h"

namespace heng {

struct ShapeOptions {
  Duration start{0};           // of the stream's own time; what comes before is left out
  Duration duration{0};        // of the stream's own time, from `start`; 0 = to the end
  double sample = 1;           // share of the requests to keep, chosen at random
  double streamed = 1;         // share of those whose answers are streamed, where the stream does not tell
  std::uint64_t requests = 0;  // at most so many; 0 = all
  double scale = 1;            // time passes so many times faster
  double rate = 0;             // requests per second on average, by stretching time; 0 = leave it
  Duration resample{0};        // gaps drawn anew in blocks of this length, contents in order; 0 = leave them
};

using OpenTraffic = std::function<Result<std::unique_ptr<TrafficSource>>()>;

/// The changed stream. `rate` and `resample` read the whole stream once beforehand; `resample` keeps eight
/// bytes of each request. Fails as the stream does, and if nothing is left of it.
Result<std::unique_ptr<TrafficSource>> shape_traffic(const OpenTraffic& open, const ShapeOptions& options,
                                                     std::uint64_t seed);

}  // namespace heng
