// The arithmetic of weights moved by feedback: W <- W + beta (R - L), its normalised form, and what it tends
// to.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"

namespace heng {

// Notation. Worker i has capacity R_i and was offered load L_i (work sent to it, not work it finished), both
// in work per second. Weights W_i are in the same unit: W_i(0) = alpha R_i. S = sum W, T = sum L, shares w_i
// = W_i / S. If loads follow the shares, L_i = T w_i, one step gives W_i' = (S - beta T) w_i + beta R_i,
// hence
//     w_i' - R_i / sum R = (w_i - R_i / sum R) (S - beta T) / (S + beta (sum R - T)).

struct WeightBounds {
  double min = 0;  // >= 0
  double max = 0;  // >= min
};

/// Fails unless n min <= sum <= n max: no weights within the bounds have that sum otherwise.
Result<void> check_bounds(std::size_t n, double sum, const WeightBounds& bounds);

/// min(beta, sum / 2T): half the bound up to which shares do not overshoot, and inside the range in which the
/// loop is stable although loads answer to the weights one step late. sum > 0, total_load >= 0.
double effective_beta(double beta, double sum, double total_load);

/// What one step multiplies the distance of every share from R_i / sum R by, while no bound binds and loads
/// follow the shares. Below 0: the shares overshoot; below -1: they diverge.
double convergence_factor(double sum, double beta, double total_load, double total_capacity);

/// Multiplies all weights by the one c for which sum clamp(c W_i, min, max) = sum, then clamps. Weights that
/// are not positive count as next to nothing (all alike if none is positive), so that c exists. Fails as
/// check_bounds does. O(n log n), allocates.
Result<void> scale_to_sum(std::span<double> weights, double sum, const WeightBounds& bounds);

enum class PlainStep : std::uint8_t {
  moved,
  stopped,  // the sum has run down to n min: all weights are equal there and say nothing about the workers
};

/// W <- clamp(W + beta (R - L), min, max). Off the bounds the sum moves by beta (sum R - T), so below
/// capacity it grows and the shares move ever more slowly; above capacity it ends after about S / (beta (T -
/// sum R)) steps. All spans have the same length.
PlainStep plain_step(std::span<double> weights, std::span<const double> capacity,
                     std::span<const double> load, double beta, const WeightBounds& bounds);

/// The plain step, then scale_to_sum. With loads that follow the shares and beta <= sum / T, the limit is
/// clamp(k R_i, min, max) with the one k that gives the sum: scale_to_sum applied to R. With loads that do
/// not follow the shares it is the same with R_i - L_i in place of R_i, if sum (R - L) > 0; if that is
/// negative there is no stable limit between the bounds: which weights grow depends on where they began.
Result<void> normalised_step(std::span<double> weights, std::span<const double> capacity,
                             std::span<const double> load, double beta, double sum,
                             const WeightBounds& bounds);

}  // namespace heng
