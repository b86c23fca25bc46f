// ServeGen's client mixes (Xiang et al., arXiv:2505.09999): each client's rate and burstiness by window.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "sim/traffic/traffic.h"

namespace heng {

/// Whether this is the heading of a table of rates.
bool is_servegen(std::string_view first_line);

/// Draws requests from `*_rates.csv[.gz]`, with lengths from the `*_lengths.csv[.gz]` beside it. In a window
/// of 600 s a client of rate r sends about 600 r requests, whose gaps follow its Gamma or Weibull
/// distribution, scaled to fill the window. Clients without lengths of their own take those of another
/// client, always the same. Memory: the tables, and a window of arrivals for each client.
Result<std::unique_ptr<TrafficSource>> open_servegen(const std::string& path, std::uint64_t seed);

}  // namespace heng
