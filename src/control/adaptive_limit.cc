// Windows of first bytes into steps of the limit.
#include "control/adaptive_limit.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace heng {

namespace {

constexpr double kInitial = 8;
constexpr double kIncreaseEarly = 1.5;  // times, per window, until the first sign of load
constexpr double kDecrease = 0.9;
constexpr double kPercentile = 0.2;  // this share is on time when there is no load, by construction ...
constexpr double kLateShare = 0.1;   // ... and a window with less than half of it shows a standing queue
constexpr double kStep = 0.05;       // how far one sample moves a percentile
constexpr std::uint32_t kWindowSamples = 20;
constexpr Duration kWindow = 500ms;
constexpr int kLearningWindows = 3;
constexpr int kFutile = 6;        // 0.9^6: about half of the limit gone
constexpr double kHelped = 0.25;  // ln: first bytes came a quarter sooner

constexpr double kTokensMax = 8e6;  // below 2^23: the last of 24 octaves

std::size_t octave(double tokens) {
  return static_cast<std::size_t>(
      std::bit_width(static_cast<std::uint64_t>(std::clamp(tokens, 0.0, kTokensMax))));
}

}  // namespace

AdaptiveLimit::AdaptiveLimit(const AdaptiveLimitOptions& options, Instant now)
    : options_(options),
      limit_(std::clamp<double>(kInitial, options.min, options.max)),
      learning_(kLearningWindows),
      changed_(now),
      window_{.began = now} {}

void AdaptiveLimit::set_options(const AdaptiveLimitOptions& options) {
  options_ = options;
  limit_ = std::clamp<double>(limit_, options.min, options.max);
}

/// Of the first samples the percentile itself; then Robbins and Monro's stochastic approximation of it, in
/// relative steps: in equilibrium the share kPercentile of the samples lies below.
void AdaptiveLimit::Unloaded::learn(double sample) {
  if (samples == first.size()) {
    seconds *= sample < seconds ? 1 - kStep * (1 - kPercentile) : 1 + kStep * kPercentile;
    return;
  }
  const auto end = first.begin() + samples;
  const auto place = std::upper_bound(first.begin(), end, sample);
  std::move_backward(place, end, end + 1);
  *place = sample;
  seconds = first[static_cast<std::size_t>(kPercentile * ++samples)];
}

void AdaptiveLimit::on_first_byte(double prompt_tokens, Duration elapsed, std::uint32_t in_flight,
                                  Instant now) {
  take(unloaded_[octave(prompt_tokens)], elapsed, in_flight, now);
}

void AdaptiveLimit::on_whole_answer(double output_tokens, Duration elapsed, std::uint32_t in_flight,
                                    Instant now) {
  take(unloaded_[kOctaves + octave(output_tokens)], elapsed, in_flight, now);
}

void AdaptiveLimit::take(Unloaded& unloaded, Duration elapsed, std::uint32_t in_flight, Instant now) {
  if (now - elapsed < changed_) return;  // it says nothing about the present limit
  const double seconds = std::max(to_seconds(elapsed), 1e-4);
  const bool unseen = unloaded.samples < unloaded.first.size();
  if (learning_ > 0 || unseen || in_flight <= limit_ / 2) unloaded.learn(seconds);
  ++window_.samples;
  window_.on_time += seconds <= options_.tolerance * unloaded.seconds + to_seconds(options_.slack);
  window_.log_ratio += std::log(seconds / unloaded.seconds);
  window_.limit_used |= in_flight >= kDecrease * limit();
  if (window_.samples >= kWindowSamples && now - window_.began >= kWindow) judge(now);
}

void AdaptiveLimit::judge(Instant now) {
  const double on_time = static_cast<double>(window_.on_time) / window_.samples;
  const double mean_log_ratio = window_.log_ratio / window_.samples;
  const bool limit_used = window_.limit_used;
  window_ = {.began = now};
  if (learning_ > 0) {
    --learning_;
  } else if (on_time < kLateShare) {
    decrease(mean_log_ratio, now);
  } else if (limit_used) {
    decreases_ = 0;
    change(doubling_ ? limit_ * kIncreaseEarly : limit_ + std::sqrt(limit_), now);
  }
}

void AdaptiveLimit::decrease(double mean_log_ratio, Instant now) {
  doubling_ = false;
  // Not at the first one: its window began before the load did.
  if (++decreases_ == 2) late_at_first_ = mean_log_ratio;
  if (decreases_ > kFutile) {
    decreases_ = 0;
    if (mean_log_ratio > late_at_first_ - kHelped) {
      learning_ = kLearningWindows;
      unloaded_.fill({});
      return;
    }
  }
  change(limit_ * kDecrease, now);
}

void AdaptiveLimit::on_refused(std::uint32_t in_flight, Instant now) {
  doubling_ = false;
  if (now - changed_ < kWindow) return;  // one burst of refusals is one sign
  change(std::min<double>(limit_, in_flight) * kDecrease, now);
}

void AdaptiveLimit::change(double limit, Instant now) {
  limit_ = std::clamp<double>(limit, options_.min, options_.max);
  changed_ = now;
  window_ = {.began = now};
}

}  // namespace heng
