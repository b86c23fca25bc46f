// Points on the monotonic clock and spans between them. Nothing here can read a clock: `now` is always passed
// in.
#pragma once

#include <chrono>

namespace heng {

/// Nanoseconds since an arbitrary start; never goes backwards. The live loop and the simulator both supply
/// it.
struct MonotonicClock {
  using rep = std::chrono::nanoseconds::rep;
  using period = std::nano;
  using duration = std::chrono::nanoseconds;
  using time_point = std::chrono::time_point<MonotonicClock>;
  static constexpr bool is_steady = true;
};

using Duration = MonotonicClock::duration;
using Instant = MonotonicClock::time_point;

using namespace std::chrono_literals;

constexpr double to_seconds(Duration span) { return std::chrono::duration<double>(span).count(); }
constexpr double to_milliseconds(Duration span) {
  return std::chrono::duration<double, std::milli>(span).count();
}
constexpr Duration from_seconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

}  // namespace heng
