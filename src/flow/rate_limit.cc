// The arithmetic of buckets, and the words of refusals.
#include "flow/rate_limit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/result.h"

namespace heng {

namespace {

constexpr double kSecondsPerMinute = 60;
constexpr double kDebtMinutes = 60;        // one answer, or one lie of a worker, locks a key out no longer
constexpr Duration kConcurrentRetry = 1s;  // nobody knows when one of the key's requests ends

}  // namespace

double TokenBucket::level(Instant now) const {
  const double seconds = std::max(0.0, to_seconds(now - filled_));
  return std::min(per_minute_, level_ + per_minute_ * seconds / kSecondsPerMinute);
}

void TokenBucket::set_limit(double per_minute, Instant now) {
  level_ = limited() ? std::min(per_minute, level(now) + (per_minute - per_minute_)) : per_minute;
  per_minute_ = per_minute;
  filled_ = now;
}

void TokenBucket::take(double amount, Instant now) {
  if (!limited()) return;
  level_ = std::clamp(level(now) - amount, -kDebtMinutes * per_minute_, per_minute_);
  filled_ = std::max(filled_, now);
}

Duration TokenBucket::time_until(double amount, Instant now) const {
  const double missing = amount - level(now);
  return missing <= 0 || !limited() ? Duration(0) : from_seconds(missing / per_minute_ * kSecondsPerMinute);
}

KeyUse::KeyUse(const KeyLimits& limits, Instant now)
    : requests_(limits.requests_per_minute, now),
      tokens_(static_cast<double>(limits.tokens_per_minute), now),
      limits_(limits) {}

void KeyUse::set_limits(const KeyLimits& limits, Instant now) {
  if (limits == limits_) return;
  limits_ = limits;
  requests_.set_limit(limits.requests_per_minute, now);
  tokens_.set_limit(static_cast<double>(limits.tokens_per_minute), now);
}

std::optional<RateRefusal> KeyUse::admit(double tokens, Instant now) {
  using Limit = RateRefusal::Limit;
  if (tokens_.limited() && tokens > tokens_.limit()) {
    return RateRefusal{Limit::tokens, false, Duration(0),
                       fmt::format("this request may take {:.0f} tokens (prompt and longest answer), but the "
                                   "key has {:.0f} a minute; shorten the prompt or set a smaller max_tokens",
                                   tokens, tokens_.limit())};
  }
  if (limits_.concurrent != 0 && concurrent_ >= limits_.concurrent) {
    return RateRefusal{
        Limit::concurrent, true, kConcurrentRetry,
        fmt::format("the key has {} requests under way, its limit; wait for one to end", limits_.concurrent)};
  }
  if (requests_.limited() && requests_.level(now) < 1) {
    return RateRefusal{Limit::requests, true, requests_.time_until(1, now),
                       fmt::format("the key's {:.0f} requests a minute are used up", requests_.limit())};
  }
  if (tokens_.limited() && tokens_.level(now) < tokens) {
    return RateRefusal{
        Limit::tokens, true, tokens_.time_until(tokens, now),
        fmt::format("of the key's {:.0f} tokens a minute {:.0f} are left, and this request may take {:.0f}",
                    tokens_.limit(), std::max(0.0, tokens_.level(now)), tokens)};
  }
  ++concurrent_;
  requests_.take(1, now);
  tokens_.take(tokens, now);
  return std::nullopt;
}

void KeyUse::end(double reserved, double used, Instant now) {
  HENG_ASSERT(concurrent_ > 0);
  --concurrent_;
  tokens_.take(used - reserved, now);
}

std::string format_reset(Duration span) {
  const auto ms = static_cast<std::int64_t>(std::ceil(to_milliseconds(span)));
  if (ms < 1000) return fmt::format("{}ms", ms);
  const std::int64_t seconds = (ms + 999) / 1000;
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m{}s", seconds / 60, seconds % 60);
  return fmt::format("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

}  // namespace heng
