// Reads and writes single values: numbers, durations, sizes, addresses, URLs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"
#include "config/config.h"

namespace heng {

/// A finite decimal number and nothing else.
Result<double> parse_number(std::string_view text);
/// "5s", "200ms", "1.5m", "2h" in seconds. A plain number is refused: nobody remembers which unit it would
/// be.
Result<double> parse_duration_seconds(std::string_view text);
/// "500", "64KiB", "1MiB", "2GiB" in bytes.
Result<double> parse_size_bytes(std::string_view text);
/// "host:port" with a host name, an IPv4 address or an IPv6 address in brackets; port 1 to 65535. Or
/// "unix:/path".
Result<Endpoint> parse_endpoint(std::string_view text);

struct WorkerUrl {
  std::string url;  // normalised: scheme://host:port/base, lower-case host, no trailing slash
  bool tls = false;
  Endpoint endpoint;
  std::string base_path;  // "" or "/base"
};
/// http or https, without user, query and fragment.
Result<WorkerUrl> parse_worker_url(std::string_view text);

std::string format_number(double value);
std::string format_duration(Duration value);
std::string format_size(double bytes);
/// IPv6 in brackets.
std::string format_endpoint(const Endpoint& endpoint);

/// 127.0.0.0/8, ::1, "localhost" or the path of a Unix socket: reachable from this machine only.
bool is_loopback(std::string_view host);
/// RFC 1123, and "_"; not digits and dots only, which would be a mistyped address.
bool is_host_name(std::string_view host);
/// RFC 9110 field name.
bool is_header_name(std::string_view text);
/// Visible ASCII and inner spaces: may stand in a header value.
bool is_header_value(std::string_view text);

}  // namespace heng
