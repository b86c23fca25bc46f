// What one API key may ask for per minute and at a time, and how that is told in OpenAI's headers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/time.h"
#include "model/tenant.h"

namespace heng {

/// Fills steadily up to `per_minute`; may be overdrawn when a bill turns out higher than expected.
class TokenBucket {
 public:
  /// Full at first. 0 = no limit.
  explicit TokenBucket(double per_minute, Instant now)
      : per_minute_(per_minute), level_(per_minute), filled_(now) {}

  /// What has been used up stays used up.
  void set_limit(double per_minute, Instant now);
  bool limited() const { return per_minute_ > 0; }
  double limit() const { return per_minute_; }
  double level(Instant now) const;
  void take(double amount, Instant now);
  /// Until `amount` is there, which must not be more than the limit.
  Duration time_until(double amount, Instant now) const;

 private:
  double per_minute_;
  double level_;
  Instant filled_;
};

/// Why a request of a key is not taken now.
struct RateRefusal {
  enum class Limit : std::uint8_t { requests, tokens, concurrent };
  Limit limit{};
  bool ever = true;        // false: waiting does not help, the request alone is above the limit
  Duration retry_after{};  // estimated for `concurrent`
  std::string message;
};

/// The counts of one key. Every request that is admitted must be ended, once. Lives on one loop.
class KeyUse {
 public:
  KeyUse(const KeyLimits& limits, Instant now);

  /// Keeps what has been used; requests under way stay.
  void set_limits(const KeyLimits& limits, Instant now);
  /// Counts the request, and `tokens` (prompt and longest answer, as far as known) in advance, unless a limit
  /// forbids it; then nothing is counted.
  std::optional<RateRefusal> admit(double tokens, Instant now);
  /// `reserved` as admitted, `used` as it turned out.
  void end(double reserved, double used, Instant now);

  std::uint32_t concurrent() const { return concurrent_; }
  std::uint32_t concurrent_max() const { return limits_.concurrent; }
  const TokenBucket& requests() const { return requests_; }
  const TokenBucket& tokens() const { return tokens_; }

 private:
  TokenBucket requests_;
  TokenBucket tokens_;
  KeyLimits limits_;
  std::uint32_t concurrent_ = 0;
};

/// As OpenAI writes spans: "20ms", "1s", "6m0s", "1h0m0s". Rounded up.
std::string format_reset(Duration span);

/// Calls `on_field(name, value)` for the x-ratelimit-limit-, -remaining- and -reset- fields of the limits the
/// key has.
template <class OnField>
void rate_limit_fields(const KeyUse& use, Instant now, OnField on_field) {
  const auto tell = [&](const TokenBucket& bucket, std::string_view limit, std::string_view remaining,
                        std::string_view reset) {
    if (!bucket.limited()) return;
    const double level = bucket.level(now);
    on_field(limit, std::to_string(static_cast<std::uint64_t>(bucket.limit())));
    on_field(remaining, std::to_string(static_cast<std::uint64_t>(level < 0 ? 0 : level)));
    on_field(reset, format_reset(bucket.time_until(bucket.limit(), now)));
  };
  tell(use.requests(), "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
       "x-ratelimit-reset-requests");
  tell(use.tokens(), "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens");
}

}  // namespace heng
