// When a worker is asked how much load its engine has.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/time.h"

namespace heng {

/// What came of asking. `absent`: the worker answers but says nothing of its load there. `failed`: no answer.
enum class LoadAnswer : std::uint8_t { load, absent, failed };

/// Pure state machine. One question at a time; whoever owns it sends the questions that are due and reports
/// each. Engines that do not answer in time may be too busy to, so they are asked less and less often, up to
/// every 10 s, and those that say nothing of their load once a minute: they may have been started anew.
class LoadPoll {
 public:
  static constexpr Duration kFailedMax = std::chrono::seconds(10);
  static constexpr Duration kAbsent = std::chrono::seconds(60);

  /// `interval` 0 = never. `phase` in [0, 1): how much of an interval the first question waits, so that not
  /// all workers are asked in the same moment. The interval there was already changes nothing.
  void start(Duration interval, double phase, Instant now) {
    if (interval == interval_) return;
    interval_ = interval;
    failures_ = 0;
    next_ = now + from_seconds(to_seconds(interval) * phase);
  }
  bool on() const { return interval_ > Duration(0); }

  bool due(Instant now) const { return on() && !pending_ && now >= next_; }
  void on_sent(Instant now) {
    pending_ = true;
    next_ = now + interval_;
  }
  /// End of the question sent last.
  void on_answer(LoadAnswer answer, Instant now) {
    pending_ = false;
    if (answer != LoadAnswer::failed) failures_ = 0;
    if (answer == LoadAnswer::absent) next_ = now + std::max(interval_, kAbsent);
    if (answer != LoadAnswer::failed) return;
    failures_ = std::min(failures_ + 1, 16u);
    next_ = now + std::min(interval_ * (1 << failures_), std::max(interval_, kFailedMax));
  }

 private:
  Duration interval_{0};
  Instant next_{};
  bool pending_ = false;
  std::uint32_t failures_ = 0;  // in a row
};

}  // namespace heng
