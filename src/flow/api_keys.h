// Whose API key a request shows.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/keyed_hash.h"
#include "model/api_key.h"

namespace heng {

/// May this key's requests use the model? The list is of names, or beginnings with a trailing "*".
bool allows_model(const Tenant& tenant, std::string_view model);

/// All keys that are valid at a time. Immutable: a reload makes another one.
class ApiKeys {
 public:
  using KeyedHash = Digest (*)(std::span<const std::uint8_t> salt, std::string_view secret);

  explicit ApiKeys(std::vector<ApiKey> keys, KeyedHash keyed_hash = hmac_sha256);

  struct Login {
    TenantPtr tenant;      // null: refused
    bool expired = false;  // the secret is right, but no longer
  };
  /// `key` as the client sent it, any bytes. One hash and one comparison whatever it is, so that the time
  /// tells nothing of the secret (bench/key_timing).
  Login check(std::string_view key, double wall_time_s) const;

 private:
  KeyedHash keyed_hash_;
  ApiKey nobody_;  // stands in for ids that do not exist
  std::map<std::string, ApiKey, std::less<>> keys_;
};

}  // namespace heng
