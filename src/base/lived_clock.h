// Time as a process has lived it: what it slept through while it was stopped or suspended does not count.
#pragma once

#include <algorithm>
#include <utility>

#include "base/time.h"

namespace heng {

/// Fed with readings of a monotonic clock that are never further apart than `longest` while the process runs;
/// of a longer gap only `longest` passes here. Whatever came meanwhile still lies in the sockets, so no
/// time-out may be judged by it.
class LivedClock {
 public:
  /// Until this call all time counts.
  void forgive_gaps(Duration longest) { longest_ = longest; }

  Instant read(Instant monotonic) {
    const Duration gap = monotonic - std::exchange(last_, monotonic);
    if (begun_) slept_ += std::max(gap - longest_, Duration(0));
    begun_ = true;
    return monotonic - slept_;
  }
  /// All that was not counted.
  Duration slept() const { return slept_; }

 private:
  bool begun_ = false;
  Duration longest_ = Duration::max();
  Duration slept_{0};
  Instant last_{};
};

}  // namespace heng
