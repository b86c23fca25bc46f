// Made-up traffic: Poisson arrivals with bursts, conversations that grow, prefixes of unequal popularity.
#pragma once

#include <memory>

#include "sim/traffic/draws.h"
#include "sim/traffic/traffic.h"

namespace heng {

struct SyntheticOptions {
  double rate = 10;                // requests per second on average, bursts left out
  std::uint64_t requests = 10000;  // so many, then it ends
  LengthSpread prompt{1000, 1};    // tokens that are new in each request
  LengthSpread output{200, 1};
  Duration burst_every{0};  // 0 = no bursts
  Duration burst_lasts = 5s;
  double burst_factor = 10;
  double turns = 1;            // of a conversation, on average (geometric); each repeats all before it
  Duration think = 20s;        // mean time (exponential) from one turn's arrival to the next
  std::uint32_t prefixes = 0;  // 0 = none; else each conversation begins with one of so many ...
  double zipf = 1;             // ... the k-th most popular with weight 1 / k^zipf ...
  std::uint32_t prefix_tokens = 1000;  // ... of this length
};

/// Memory: the conversations that have not ended.
std::unique_ptr<TrafficSource> make_synthetic(const SyntheticOptions& options, std::uint64_t seed);

}  // namespace heng
