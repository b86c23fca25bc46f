// The admin token that a gateway makes for itself, and how its user's commands find it.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace heng {

struct OwnToken {
  std::string path;
  std::string token;
};

/// For a gateway with its admin API at that port and no token configured: random, in a file that only this
/// user can read, below $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or ~/.local/state. Found again by a second
/// start, so that a program that takes over from another has the same one.
Result<OwnToken> own_admin_token(std::uint16_t port);

/// The file with the token of the gateway of this user (or, for root, of the service) with its admin API at
/// `address`; "" if there is none, or `address` is not on this machine: a token is not sent elsewhere.
std::string find_admin_token_file(const std::string& address);

}  // namespace heng
