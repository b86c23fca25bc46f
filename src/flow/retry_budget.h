// Keeps second attempts a small share of the traffic, so that retries cannot keep an overload alive.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/time.h"

namespace heng {

/// Token bucket over 10 seconds: each request adds `ratio` of a retry, each retry takes one; `floor` retries
/// per 10 s are always there, so that a quiet gateway can retry too.
class RetryBudget {
 public:
  RetryBudget(double ratio, std::uint32_t floor) : ratio_(ratio), floor_(floor), tokens_(floor) {}

  /// A client's own retry is one of those that the budget is to bound: it earns nothing and uses one up.
  void on_request(Instant now, bool client_retry = false) {
    refill(now);
    if (client_retry) {
      tokens_ = std::max(tokens_ - 1, 0.0);
      return;
    }
    tokens_ += ratio_;
    earned_ += ratio_;
  }
  bool take(Instant now) {
    if (!available(now)) return false;
    tokens_ -= 1;
    return true;
  }
  bool available(Instant now) {
    refill(now);
    return tokens_ >= 1;
  }

 private:
  void refill(Instant now) {
    const double seconds = to_seconds(now - last_);
    last_ = now;
    if (seconds <= 0) return;
    // What was earned more than the window ago may no longer be spent; the cap follows the traffic of the
    // window.
    const double kept = std::max(0.0, 1 - seconds / kWindowSeconds);
    earned_ *= kept;
    tokens_ =
        std::min(tokens_ + floor_ * seconds / kWindowSeconds, std::max<double>(floor_, earned_ + floor_));
  }

  static constexpr double kWindowSeconds = 10;
  double ratio_;
  double floor_;
  double tokens_;
  double earned_ = 0;
  Instant last_{};
};

}  // namespace heng
