// Where workers that are named at run time or by discovery may be: address ranges, host names, and what
// never.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace heng {

/// In network order; IPv4 as ::ffff:a.b.c.d, so that both ways of writing one address are the same.
using IpAddress = std::array<std::uint8_t, 16>;

/// Dotted IPv4 or IPv6 without brackets; no octal, hexadecimal, short or zoned forms.
std::optional<IpAddress> parse_ip(const std::string& text);
std::string format_ip(const IpAddress& address);

struct IpRange {
  IpAddress address{};
  int bits = 0;  // of the 128

  bool contains(const IpAddress& other) const;
  bool operator==(const IpRange&) const = default;
};

/// The allow-list. Workers in the configuration file are trusted and not held against it.
struct WorkerAllow {
  std::vector<IpRange> ranges;     // addresses that may be connected to, whatever name led there
  std::vector<std::string> hosts;  // lower case; may be anywhere. "*.name" is all below name

  bool operator==(const WorkerAllow&) const = default;
};

/// Loopback and the private ranges of RFC 1918 and RFC 4193.
WorkerAllow default_worker_allow();
/// "10.0.0.0/8", "fd00::/8", an address, "name" or "*.name".
Result<void> allow_worker(WorkerAllow& allow, std::string_view text);

/// Whether the URL has a form that could lead elsewhere than it seems: another scheme, a user, an address in
/// disguise (`refused`). Everything else about it is for parse_worker_url.
Result<void> check_worker_url(std::string_view url);
/// A connection to `address`, which was found for `host` or is what it says. Called with the very address
/// that is then connected to, so that a name cannot lead elsewhere in between. Fails with `refused`.
Result<void> check_worker_address(const WorkerAllow& allow, std::string_view host, const IpAddress& address);

}  // namespace heng
