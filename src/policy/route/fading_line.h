// A straight line through points that lose weight as new ones come.
#pragma once

#include <algorithm>

namespace heng {

/// y = base + slope x, both at least 0.
struct LineEstimate {
  double base = 0;
  double slope = 0;
  double at(double x) const { return base + slope * x; }
};

/// Least squares of relative errors, each point fading by `keep` with every later one, drawn towards a prior
/// line (ridge regression) that counts as `prior_points` points: few points give the prior scaled to them,
/// many their own line. A single point beyond all measure counts as one kFarthest times off.
class FadingLine {
 public:
  void add(double x, double y, double keep, const LineEstimate& prior) {
    const double expected = prior.at(x);
    if (expected <= 0 || y <= 0) return;
    y = std::clamp(y, expected / kFarthest, expected * kFarthest);
    const double weight = 1 / (expected * expected);
    count_ = keep * count_ + 1;
    ratio_ = keep * ratio_ + y / expected;
    w_ = keep * w_ + weight;
    wx_ = keep * wx_ + weight * x;
    wy_ = keep * wy_ + weight * y;
    wxx_ = keep * wxx_ + weight * x * x;
    wxy_ = keep * wxy_ + weight * x * y;
  }

  /// All points lose weight though no new one has come.
  void fade(double keep) {
    for (double* sum : {&count_, &ratio_, &w_, &wx_, &wy_, &wxx_, &wxy_}) *sum *= keep;
  }

  double count() const { return count_; }

  LineEstimate estimate(const LineEstimate& prior, double prior_points) const {
    if (count_ <= 0) return prior;
    // First how much slower or faster than the prior all in all, then where the points say otherwise.
    const double scale = (ratio_ + prior_points) / (count_ + prior_points);
    const LineEstimate scaled{prior.base * scale, prior.slope * scale};
    const double base_pull = prior_points / std::max(prior.base * prior.base, kTiny);
    const double slope_pull = prior_points / std::max(prior.slope * prior.slope, kTiny);
    const double a = w_ + base_pull, b = wx_, d = wxx_ + slope_pull;
    const double p = wy_ + base_pull * scaled.base, q = wxy_ + slope_pull * scaled.slope;
    const double determinant = a * d - b * b;
    if (!(determinant > 0)) return scaled;
    const LineEstimate line{(p * d - q * b) / determinant, (q * a - p * b) / determinant};
    return {std::max(line.base, 0.0), std::max(line.slope, 0.5 * scaled.slope)};
  }

 private:
  static constexpr double kFarthest = 16;
  static constexpr double kTiny = 1e-30;  // its inverse, multiplied by others like it, must not overflow
  double count_ = 0, ratio_ = 0;
  double w_ = 0, wx_ = 0, wy_ = 0, wxx_ = 0, wxy_ = 0;
};

}  // namespace heng
