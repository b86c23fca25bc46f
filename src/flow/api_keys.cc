// Looks keys up by id and compares their hashes.
#include "flow/api_keys.h"

#include <algorithm>
#include <utility>

namespace heng {
namespace {

constexpr std::string_view kPrefix = "hk_";
constexpr std::size_t kSecretBytesMax = 256;  // ours have 40; the cost of a longer one is bounded

struct Parts {
  std::string_view id;
  std::string_view secret;
};

/// What is not a key of ours has no id, and all of it is the secret.
Parts split(std::string_view key) {
  const std::size_t end = key.starts_with(kPrefix) ? key.find('_', kPrefix.size()) : key.npos;
  Parts parts = end == key.npos
                    ? Parts{{}, key}
                    : Parts{key.substr(kPrefix.size(), end - kPrefix.size()), key.substr(end + 1)};
  if (parts.secret.size() > kSecretBytesMax) parts = {{}, parts.secret.substr(0, kSecretBytesMax)};
  return parts;
}

}  // namespace

bool allows_model(const Tenant& tenant, std::string_view model) {
  return tenant.models.empty() || std::ranges::any_of(tenant.models, [&](std::string_view pattern) {
           return pattern.ends_with('*') ? model.starts_with(pattern.substr(0, pattern.size() - 1))
                                         : model == pattern;
         });
}

ApiKeys::ApiKeys(std::vector<ApiKey> keys, KeyedHash keyed_hash) : keyed_hash_(keyed_hash) {
  for (ApiKey& key : keys) {
    std::string id = key.tenant->key_id;
    keys_.insert_or_assign(std::move(id), std::move(key));
  }
}

ApiKeys::Login ApiKeys::check(std::string_view key, double wall_time_s) const {
  const auto [id, secret] = split(key);
  const auto found = keys_.find(id);
  const ApiKey& stored = found == keys_.end() ? nobody_ : found->second;
  const bool same = equal_in_constant_time(keyed_hash_(stored.salt, secret), stored.hash);
  if (!same || !stored.tenant) return {};
  if (wall_time_s >= stored.expires_s) return {nullptr, true};
  return {stored.tenant, false};
}

}  // namespace heng
