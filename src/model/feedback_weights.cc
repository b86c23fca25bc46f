// Implementation of the feedback steps; the derivations stand beside the declarations.
#include "model/feedback_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace heng {
namespace {

/// The c in question. sum clamp(c W, min, max) rises piecewise linearly with c; its slope changes where a
/// weight leaves the lower bound (c = min / W) and where it reaches the upper one (c = max / W).
double scale_for(std::span<const double> weights, double sum, const WeightBounds& bounds) {
  struct Corner {
    double c;
    double slope;
  };
  std::vector<Corner> corners;
  corners.reserve(2 * weights.size());
  for (const double weight : weights) {
    corners.push_back({bounds.min / weight, weight});
    corners.push_back({bounds.max / weight, -weight});
  }
  std::ranges::sort(corners, {}, &Corner::c);
  double at = 0, value = bounds.min * static_cast<double>(weights.size()), slope = 0;
  for (const Corner& corner : corners) {
    const double next = value + slope * (corner.c - at);
    if (next >= sum) break;
    value = next;
    at = corner.c;
    slope += corner.slope;
  }
  if (slope <= 0) return at;
  double c = at + (sum - value) / slope;
  // The sweep has added up rounding; the set of weights off the bounds is known now, so solve once more with
  // it.
  double fixed = 0, free = 0;
  for (const double weight : weights) {
    const double scaled = c * weight;
    if (scaled <= bounds.min) {
      fixed += bounds.min;
    } else if (scaled >= bounds.max) {
      fixed += bounds.max;
    } else {
      free += weight;
    }
  }
  return free > 0 ? (sum - fixed) / free : c;
}

}  // namespace

Result<void> check_bounds(std::size_t n, double sum, const WeightBounds& bounds) {
  const double count = static_cast<double>(n);
  const double slack = 1e-12 * sum;  // n times a bound given as sum / n may round past the sum
  if (bounds.min >= 0 && bounds.min <= bounds.max && count * bounds.min <= sum + slack &&
      sum <= count * bounds.max + slack) {
    return {};
  }
  return fail(ErrorCode::invalid,
              fmt::format("no {} weights between {} and {} have the sum {}", n, bounds.min, bounds.max, sum));
}

double effective_beta(double beta, double sum, double total_load) {
  return total_load > 0 ? std::min(beta, sum / (2 * total_load)) : beta;
}

double convergence_factor(double sum, double beta, double total_load, double total_capacity) {
  return (sum - beta * total_load) / (sum + beta * (total_capacity - total_load));
}

Result<void> scale_to_sum(std::span<double> weights, double sum, const WeightBounds& bounds) {
  if (Result<void> fine = check_bounds(weights.size(), sum, bounds); !fine) return fine;
  if (weights.empty()) return {};
  const double largest = *std::ranges::max_element(weights);
  for (double& weight : weights) weight = largest > 0 ? std::max(weight, 1e-12 * largest) : 1;
  const double c = scale_for(weights, sum, bounds);
  for (double& weight : weights) weight = std::clamp(c * weight, bounds.min, bounds.max);
  return {};
}

PlainStep plain_step(std::span<double> weights, std::span<const double> capacity,
                     std::span<const double> load, double beta, const WeightBounds& bounds) {
  HENG_ASSERT(capacity.size() == weights.size() && load.size() == weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] += beta * (capacity[i] - load[i]);
  const bool ran_down = std::accumulate(weights.begin(), weights.end(), 0.0) <=
                        bounds.min * static_cast<double>(weights.size());
  for (double& weight : weights) weight = ran_down ? bounds.min : std::clamp(weight, bounds.min, bounds.max);
  return ran_down ? PlainStep::stopped : PlainStep::moved;
}

Result<void> normalised_step(std::span<double> weights, std::span<const double> capacity,
                             std::span<const double> load, double beta, double sum,
                             const WeightBounds& bounds) {
  HENG_ASSERT(capacity.size() == weights.size() && load.size() == weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] += beta * (capacity[i] - load[i]);
  return scale_to_sum(weights, sum, bounds);
}

}  // namespace heng
