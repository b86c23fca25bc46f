// An API key as it is stored: enough to recognise the secret, not to know it.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "base/keyed_hash.h"
#include "model/tenant.h"

namespace heng {

/// Keys read `hk_ID_SECRET`; `hash` is HMAC-SHA-256 of SECRET under `salt`.
struct ApiKey {
  std::array<std::uint8_t, 16> salt{};
  Digest hash{};
  double expires_s = std::numeric_limits<double>::infinity();  // since 1970
  TenantPtr tenant;                                            // never null; key_id is the ID
};

}  // namespace heng
