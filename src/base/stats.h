// Running averages that forget, for samples that arrive at irregular times.
#pragma once

#include <cmath>

#include "base/result.h"
#include "base/time.h"

namespace heng {

/// Share of an old weight that is left after `elapsed`; 1/2 after one half-life.
inline double decay(Duration elapsed, Duration half_life) {
  return std::exp2(-to_seconds(elapsed) / to_seconds(half_life));
}

/// Mean of samples whose weight halves every half-life. Samples of one instant count alike, in any order, and
/// silence leaves the mean where it was: only its weight fades. A value type of one thread; O(1), no
/// allocation.
class Ewma {
 public:
  /// half_life > 0.
  explicit Ewma(Duration half_life) : half_life_(half_life) { HENG_ASSERT(half_life > Duration::zero()); }

  /// A sample older than the last one counts as of the last one's time. weight >= 0.
  void add(double value, Instant now, double weight = 1) {
    weight_ = weight_at(now) + weight;
    if (now > last_) last_ = now;
    if (weight_ > 0) mean_ += (value - mean_) * weight / weight_;
  }

  /// 0 before the first sample.
  double mean() const { return mean_; }
  /// How many samples' worth of evidence stands behind the mean.
  double weight_at(Instant now) const {
    return now > last_ && weight_ > 0 ? weight_ * decay(now - last_, half_life_) : weight_;
  }

 private:
  Duration half_life_;
  Instant last_{};
  double mean_ = 0;
  double weight_ = 0;
};

}  // namespace heng
