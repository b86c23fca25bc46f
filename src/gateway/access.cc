// Finds the key in the head and words the refusals.
#include "gateway/access.h"

#include "gateway/forwarding.h"

namespace heng {

std::optional<std::string_view> shown_key(const HttpHead& head) {
  constexpr std::string_view kScheme = "bearer ";
  if (const auto value = head.find("authorization")) {
    if (!starts_ignoring_case(*value, kScheme)) return std::string_view();
    const std::size_t start = value->find_first_not_of(' ', kScheme.size());
    return start == value->npos ? std::string_view() : value->substr(start);
  }
  const auto key = head.find("api-key");
  return key ? key : head.find("x-api-key");
}

void Access::configure(const Config& config) {
  failed_per_minute_ = config.limits.failed_logins_per_minute;
  keys_.reset();
  if (!config.keys_file.empty()) keys_.emplace(config.keys);
}

std::expected<TenantPtr, ApiError> Access::login(const HttpHead& head, std::uint64_t source, Instant now,
                                                 double wall_time_s) {
  const auto key = shown_key(head);
  ApiKeys::Login login = keys_->check(key.value_or(""), wall_time_s);
  if (login.tenant) return std::move(login.tenant);
  const Duration wait = failed_.count(source, failed_per_minute_, now);
  const bool too_many = wait > Duration(0);
  const char* reason = too_many ? "too_many" : login.expired ? "expired" : key ? "wrong" : "missing";
  metrics_.counter("heng_logins_refused_total", "Requests without a valid API key", {{"reason", reason}})
      .add();
  if (too_many) {
    return std::unexpected(ApiError{429,
                                    "too many requests without a valid API key from this address",
                                    {},
                                    "too_many_failed_logins",
                                    wait});
  }
  const char* message = login.expired ? "this API key has expired; ask for a new one"
                        : key         ? "incorrect API key"
                                      : "no API key; send it as 'Authorization: Bearer KEY'";
  return std::unexpected(ApiError{401, message, {}, "invalid_api_key"});
}

}  // namespace heng
