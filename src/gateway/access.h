// Who may use the API: the key on the head of each request.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>

#include "config/config.h"
#include "flow/api_error.h"
#include "flow/api_keys.h"
#include "flow/failed_logins.h"
#include "host/metrics.h"
#include "live/http1.h"

namespace heng {

/// Owned by the gateway. Logins that were granted outlive a change of keys.
class Access {
 public:
  /// `seed`: not known to clients.
  Access(MetricRegistry& metrics, std::uint64_t seed) : metrics_(metrics), failed_(seed) {}

  /// Takes the configuration's keys and limits; from the next login on.
  void configure(const Config& config);
  /// No keys are configured: everybody may do everything.
  bool is_open() const { return !keys_; }

  /// Whose request this is, or the refusal. A right key is let in however often others from its address have
  /// failed: behind a proxy all clients have one address, and keys cannot be guessed.
  std::expected<TenantPtr, ApiError> login(const HttpHead& head, std::uint64_t source, Instant now,
                                           double wall_time_s);

 private:
  MetricRegistry& metrics_;
  std::optional<ApiKeys> keys_;
  FailedLogins failed_;
  double failed_per_minute_ = 0;
};

/// The key a client shows: `Authorization: Bearer`, else `api-key` (Azure's clients), else `x-api-key`
/// (Anthropic's). "" for another kind of Authorization; nothing if there is none of them.
std::optional<std::string_view> shown_key(const HttpHead& head);

}  // namespace heng
