// Quantiles of spans of time in constant memory, the same on every machine.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace heng {

/// Counts in buckets whose width is at most 1/128 of the value, as HdrHistogram (Tene) does; exact below
/// 256 ns. Counting, sum and extremes are exact. Adding is O(1).
class LatencyHistogram {
 public:
  void add(Duration value) {
    HENG_ASSERT(value >= Duration(0));
    const std::size_t bucket = bucket_of(static_cast<std::uint64_t>(value.count()));
    if (bucket >= counts_.size()) counts_.resize(bucket + 1, 0);
    ++counts_[bucket];
    ++count_;
    sum_s_ += to_seconds(value);
    most_ = std::max(most_, value);
  }

  std::uint64_t count() const { return count_; }
  double mean_s() const { return count_ == 0 ? 0 : sum_s_ / static_cast<double>(count_); }
  Duration max() const { return most_; }
  /// The value that a share `q` of all does not exceed, within half a bucket; 0 if there is none.
  Duration quantile(double q) const {
    if (count_ == 0) return Duration(0);
    // 0.07 * 100 is a hair above 7: such a product must not count as the next rank.
    const auto rank = static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(count_) - 1e-9));
    std::uint64_t upto = 0;
    for (std::size_t bucket = 0; bucket < counts_.size(); ++bucket) {
      upto += counts_[bucket];
      if (upto < std::max<std::uint64_t>(rank, 1)) continue;
      const std::uint64_t low = lower_bound(bucket), high = lower_bound(bucket + 1);
      return std::min(Duration(static_cast<Duration::rep>(low + (high - low - 1) / 2)), most_);
    }
    HENG_ASSERT(false);
  }
  /// (upper bound, share of all values up to it) of each bucket in use, ascending.
  std::vector<std::pair<Duration, double>> distribution() const {
    std::vector<std::pair<Duration, double>> points;
    std::uint64_t before = 0;
    for (std::size_t bucket = 0; bucket < counts_.size(); ++bucket) {
      if (counts_[bucket] == 0) continue;
      before += counts_[bucket];
      points.emplace_back(Duration(static_cast<Duration::rep>(lower_bound(bucket + 1))),
                          static_cast<double>(before) / static_cast<double>(count_));
    }
    return points;
  }

 private:
  static constexpr unsigned kBits = 7;

  static std::size_t bucket_of(std::uint64_t value) {
    const unsigned shift =
        std::max<unsigned>(static_cast<unsigned>(std::bit_width(value)), kBits + 1) - kBits - 1;
    return (std::size_t{shift} << kBits) + static_cast<std::size_t>(value >> shift);
  }
  static std::uint64_t lower_bound(std::size_t bucket) {
    const std::size_t shift = bucket < (2u << kBits) ? 0 : (bucket >> kBits) - 1;
    return static_cast<std::uint64_t>(bucket - (shift << kBits)) << shift;
  }

  std::vector<std::uint64_t> counts_;
  std::uint64_t count_ = 0;
  double sum_s_ = 0;
  Duration most_{};
};

}  // namespace heng
