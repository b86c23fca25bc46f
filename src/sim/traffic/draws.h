// Random numbers of the distributions that traffic needs.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"

namespace heng {

/// Lengths with a mean and a coefficient of variation, log-normal; `cv` 0 = always the mean.
struct LengthSpread {
  double mean = 0;
  double cv = 1;

  double draw(Rng& rng) const {
    if (cv == 0) return mean;
    const double variance = std::log1p(cv * cv);
    return mean * std::exp(std::sqrt(variance) * rng.normal() - variance / 2);
  }
};

/// Gamma of scale 1 (Marsaglia and Tsang 2000); a shape below 1 by one of shape + 1 and a power.
inline double draw_gamma(Rng& rng, double shape) {
  const double boost = shape < 1 ? std::pow(1 - rng.uniform(), 1 / shape) : 1;
  const double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = rng.normal();
    const double v = 1 + c * x;
    if (v <= 0) continue;
    const double cube = v * v * v;
    if (std::log1p(-rng.uniform()) < x * x / 2 + d - d * cube + d * std::log(cube)) return boost * d * cube;
  }
}

/// Weibull of scale 1.
inline double draw_weibull(Rng& rng, double shape) { return std::pow(rng.exponential(1), 1 / shape); }

/// Ranks 0 to count - 1 with probability proportional to 1 / (rank + 1)^exponent. O(log count) a draw.
class Zipf {
 public:
  Zipf(std::size_t count, double exponent) {
    double sum = 0;
    for (std::size_t rank = 1; rank <= count; ++rank) {
      sum += std::pow(static_cast<double>(rank), -exponent);
      cumulative_.push_back(sum);
    }
  }
  std::size_t draw(Rng& rng) const {
    const double at = rng.uniform() * cumulative_.back();
    const auto found = std::ranges::upper_bound(cumulative_, at);
    return std::min(static_cast<std::size_t>(found - cumulative_.begin()), cumulative_.size() - 1);
  }

 private:
  std::vector<double> cumulative_;
};

}  // namespace heng
