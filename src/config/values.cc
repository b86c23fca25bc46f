// Reading and writing of single configuration values.
#include "config/values.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>

#include "config/issues.h"

namespace heng {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

struct Measure {
  double number = 0;
  std::string_view unit;
};

std::optional<Measure> split_unit(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0 && is_letter(text[end - 1])) --end;
  const auto number = parse_number(text.substr(0, end));
  if (!number) return {};
  return Measure{*number, text.substr(end)};
}

Result<std::uint16_t> parse_port(std::string_view text) {
  unsigned port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port < 1 || port > 65535) {
    return fail(ErrorCode::invalid, fmt::format("port {} is not between 1 and 65535", quote(text)));
  }
  return static_cast<std::uint16_t>(port);
}

bool is_ipv6(const std::string& host) {
  in6_addr address{};
  return inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

bool is_ipv4(const std::string& host) {
  in_addr address{};
  return inet_pton(AF_INET, host.c_str(), &address) == 1;
}

/// Splits "host:port" and checks the host; the port may be missing when `port_default` is not 0.
Result<Endpoint> split_endpoint(std::string_view text, std::uint16_t port_default) {
  Endpoint endpoint;
  std::string_view rest;
  if (text.starts_with('[')) {
    const std::size_t close = text.find(']');
    if (close == std::string_view::npos)
      return fail(ErrorCode::invalid, "the `[` of the IPv6 address is never closed");
    endpoint.host = text.substr(1, close - 1);
    rest = text.substr(close + 1);
    if (!is_ipv6(endpoint.host)) {
      return fail(ErrorCode::invalid, fmt::format("{} is not an IPv6 address", quote(endpoint.host)));
    }
  } else {
    const std::size_t colon = text.find(':');
    endpoint.host = text.substr(0, colon);
    if (colon != std::string_view::npos) rest = text.substr(colon);
    if (rest.find(':', 1) != std::string_view::npos && !rest.empty()) {
      return fail(ErrorCode::invalid, "an IPv6 address needs brackets: [::1]:8080");
    }
    if (endpoint.host.empty()) return fail(ErrorCode::invalid, "the host is missing");
    if (!is_ipv4(endpoint.host) && !is_host_name(endpoint.host)) {
      return fail(ErrorCode::invalid, fmt::format("{} is not a host name or address", quote(endpoint.host)));
    }
  }
  std::ranges::transform(endpoint.host, endpoint.host.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (rest.empty() && port_default != 0) {
    endpoint.port = port_default;
    return endpoint;
  }
  if (!rest.starts_with(':')) return fail(ErrorCode::invalid, "the port is missing");
  const auto port = parse_port(rest.substr(1));
  if (!port) return std::unexpected(port.error());
  endpoint.port = *port;
  return endpoint;
}

/// RFC 3986 path characters; no dot segments, which servers and proxies resolve differently.
bool is_base_path(std::string_view path) {
  std::size_t segment = 1;
  for (std::size_t i = 1; i <= path.size(); ++i) {
    if (i < path.size() && path[i] != '/') {
      constexpr std::string_view kOthers = "-._~!$&'()*+,;=:@%";
      if (!is_letter(path[i]) && !is_digit(path[i]) && !kOthers.contains(path[i])) return false;
      continue;
    }
    const std::string_view name = path.substr(segment, i - segment);
    if (name == "." || name == ".." || (name.empty() && i < path.size())) return false;
    segment = i + 1;
  }
  return true;
}

}  // namespace

Result<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    return fail(ErrorCode::invalid, fmt::format("{} is not a number", quote(text)));
  }
  return value;
}

Result<double> parse_duration_seconds(std::string_view text) {
  const auto measure = split_unit(text);
  if (!measure) {
    return fail(ErrorCode::invalid,
                fmt::format("{} is not a duration; write it like 5s, 200ms or 2m", quote(text)));
  }
  if (measure->unit.empty()) {
    return fail(
        ErrorCode::invalid,
        fmt::format("a duration needs a unit: write {0}s for seconds or {0}ms for milliseconds", text));
  }
  constexpr std::pair<std::string_view, double> kUnits[] = {{"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}};
  for (const auto& [unit, seconds] : kUnits) {
    if (measure->unit == unit) return measure->number * seconds;
  }
  return fail(ErrorCode::invalid,
              fmt::format("unknown unit {}; durations end in ms, s, m or h", quote(measure->unit)));
}

Result<double> parse_size_bytes(std::string_view text) {
  const auto measure = split_unit(text);
  if (!measure) {
    return fail(ErrorCode::invalid,
                fmt::format("{} is not a size; write it like 64KiB, 1MiB or 500", quote(text)));
  }
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"", 1}, {"B", 1}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};
  for (const auto& [unit, bytes] : kUnits) {
    if (measure->unit == unit) return measure->number * bytes;
  }
  return fail(
      ErrorCode::invalid,
      fmt::format("unknown unit {}; sizes end in KiB, MiB or GiB, or are plain bytes", quote(measure->unit)));
}

Result<Endpoint> parse_endpoint(std::string_view text) {
  if (text.starts_with("unix:")) {
    constexpr std::size_t kPathMax = 107;  // sockaddr_un
    const std::string_view path = text.substr(5);
    if (!path.starts_with('/') || path.size() < 2 || path.size() > kPathMax || path.ends_with('/'))
      return fail(ErrorCode::invalid, fmt::format("{} is not an absolute path of at most {} bytes; write it "
                                                  "like unix:/run/heng/admin.sock",
                                                  quote(path), kPathMax));
    return Endpoint{std::string(path), 0};
  }
  if (!text.empty() && std::ranges::all_of(text, is_digit)) {
    return fail(ErrorCode::invalid,
                fmt::format("the host is missing; write 127.0.0.1:{} for this machine only", text));
  }
  if (text.starts_with(':')) {
    return fail(
        ErrorCode::invalid,
        "the host is missing; write 127.0.0.1:8080 for this machine only or 0.0.0.0:8080 for every network");
  }
  if (text.contains("://"))
    return fail(ErrorCode::invalid, "this is a URL; write only host:port, like 127.0.0.1:8080");
  auto endpoint = split_endpoint(text, 0);
  if (!endpoint) return fail(ErrorCode::invalid, endpoint.error().message + "; write it like 127.0.0.1:8080");
  return endpoint;
}

Result<WorkerUrl> parse_worker_url(std::string_view text) {
  constexpr std::string_view kExample = "; write it like http://10.0.0.1:8000";
  const std::size_t scheme_end = text.find("://");
  if (scheme_end == std::string_view::npos) {
    return fail(ErrorCode::invalid, fmt::format("{} has no scheme{}", quote(text), kExample));
  }
  std::string scheme(text.substr(0, scheme_end));
  std::ranges::transform(scheme, scheme.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (scheme != "http" && scheme != "https") {
    return fail(ErrorCode::invalid, fmt::format("scheme {} is not http or https", quote(scheme)));
  }
  const std::string_view rest = text.substr(scheme_end + 3);
  if (rest.find_first_of("?#") != std::string_view::npos) {
    return fail(ErrorCode::invalid, "a worker's URL has no query (?) or fragment (#); remove it");
  }
  const std::size_t path_start = std::min(rest.find('/'), rest.size());
  const std::string_view authority = rest.substr(0, path_start);
  if (authority.contains('@')) {
    return fail(ErrorCode::invalid, "a worker's URL carries no user or password; use api_key_file for a key");
  }
  WorkerUrl out;
  out.tls = scheme == "https";
  auto endpoint = split_endpoint(authority, out.tls ? 443 : 80);
  if (!endpoint) return fail(ErrorCode::invalid, endpoint.error().message + std::string(kExample));
  out.endpoint = *endpoint;
  std::string_view path = rest.substr(path_start);
  while (path.ends_with('/')) path.remove_suffix(1);
  if (!is_base_path(path)) {
    return fail(ErrorCode::invalid, fmt::format("{} is not a plain path; write it like /base", quote(path)));
  }
  out.base_path = path;
  out.url = fmt::format("{}://{}{}", scheme, format_endpoint(out.endpoint), path);
  return out;
}

std::string format_number(double value) { return fmt::format("{}", value); }

std::string format_duration(Duration value) {
  if (value % 1h == 0h && value != 0s) return fmt::format("{}h", value / 1h);
  if (value % 1s == 0s) return fmt::format("{}s", value / 1s);
  return fmt::format("{}ms", to_milliseconds(value));
}

std::string format_size(double bytes) {
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"GiB", 1073741824}, {"MiB", 1048576}, {"KiB", 1024}};
  for (const auto& [unit, size] : kUnits) {
    if (bytes >= size && std::fmod(bytes, size) == 0) return fmt::format("{}{}", bytes / size, unit);
  }
  return format_number(bytes);
}

std::string format_endpoint(const Endpoint& endpoint) {
  if (endpoint.is_unix()) return "unix:" + endpoint.host;
  const bool ipv6 = endpoint.host.contains(':');
  return fmt::format("{}{}{}:{}", ipv6 ? "[" : "", endpoint.host, ipv6 ? "]" : "", endpoint.port);
}

bool is_loopback(std::string_view host) {
  const std::string text(host);
  if (text.starts_with('/')) return true;
  in_addr four{};
  if (inet_pton(AF_INET, text.c_str(), &four) == 1) return (ntohl(four.s_addr) >> 24) == 127;
  in6_addr six{};
  if (inet_pton(AF_INET6, text.c_str(), &six) == 1) {
    return IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127);
  }
  return text == "localhost";
}

bool is_host_name(std::string_view host) {
  // Container networks use "_".
  if (host.empty() || host.size() > 253 || host.front() == '-') return false;
  bool numeric = true, label_empty = true;
  for (const char c : host) {
    if (c == '.') {
      if (label_empty) return false;
      label_empty = true;
      continue;
    }
    if (!is_letter(c) && !is_digit(c) && c != '-' && c != '_') return false;
    if (!is_digit(c)) numeric = false;
    label_empty = false;
  }
  return !label_empty && !numeric;  // digits and dots only: a mistyped address, see is_ipv4
}

bool is_header_name(std::string_view text) {
  constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::ranges::all_of(text, [&](char c) {
    return is_letter(c) || is_digit(c) || kOthers.contains(c);
  });
}

bool is_header_value(std::string_view text) {
  if (text.empty() || text.front() == ' ' || text.back() == ' ') return false;
  return std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; });
}

}  // namespace heng
