// How often each source has failed to log in lately, in fixed memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/hash.h"
#include "base/time.h"

namespace heng {

/// A token bucket for each source: `per_minute` failures at once, and as many a minute. Keeps the 4,096
/// sources that failed last; who makes up addresses can make it forget, never grow.
class FailedLogins {
 public:
  /// `seed`: secret, so that nobody can choose addresses that push another's out.
  explicit FailedLogins(std::uint64_t seed) : seed_(seed) {}

  /// Counts a failure of `source` (any number that stands for it). Zero: within its allowance; else how long
  /// until it has one again.
  Duration count(std::uint64_t source, double per_minute, Instant now) {
    if (entries_.empty()) entries_.resize(kSets * kWays);
    Entry& entry = entry_of(combine(source, seed_) | 1);
    entry.allowance =
        std::min(per_minute, entry.allowance + to_seconds(now - entry.last) * per_minute / kMinuteSeconds);
    entry.last = now;
    if (entry.allowance < 1) {
      // Rounded to nothing, a refusal would look like an allowance.
      return std::max(from_seconds((1 - entry.allowance) * kMinuteSeconds / per_minute), Duration(1));
    }
    entry.allowance -= 1;
    return Duration(0);
  }

 private:
  static constexpr std::size_t kWays = 4;
  static constexpr std::size_t kSets = 1024;
  static constexpr double kMinuteSeconds = 60;
  static constexpr double kFull = 1e9;  // more than any limit
  struct Entry {
    std::uint64_t key = 0;
    double allowance = 0;
    Instant last{};
  };

  Entry& entry_of(std::uint64_t key) {
    Entry* set = &entries_[(key >> 1) % kSets * kWays];
    Entry* oldest = set;
    for (Entry* entry = set; entry != set + kWays; ++entry) {
      if (entry->key == key) return *entry;
      if (entry->last < oldest->last) oldest = entry;
    }
    *oldest = {key, kFull, {}};
    return *oldest;
  }

  std::uint64_t seed_;
  std::vector<Entry> entries_;
};

}  // namespace heng
