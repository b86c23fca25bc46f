// The allow-list's arithmetic: ranges, disguises of addresses, and addresses that are never a worker's.
#include "config/worker_allow.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <span>

#include "config/issues.h"
#include "config/values.h"

namespace heng {
namespace {

constexpr std::size_t kIpv4At = 12;  // where an IPv4 address begins in ::ffff:a.b.c.d

bool is_ipv4(const IpAddress& address) {
  constexpr IpAddress kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::equal(kMapped.begin(), kMapped.begin() + kIpv4At, address.begin());
}

IpAddress ipv4(std::span<const std::uint8_t> bytes) {
  IpAddress address{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  std::copy_n(bytes.begin(), 4, address.begin() + kIpv4At);
  return address;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return out;
}

IpRange range(const char* text) {
  WorkerAllow one;
  HENG_ASSERT(allow_worker(one, text) && one.ranges.size() == 1);
  return one.ranges.front();
}

/// Cloud metadata and machine-local services; nothing that could be an engine. Sources: the clouds' own
/// documentation of their instance metadata, RFC 6890 for the rest.
std::span<const IpRange> never_allowed() {
  static const std::vector<IpRange> kNever = {
      range("0.0.0.0/8"),        // this machine, as Linux takes it
      range("169.254.0.0/16"),   // link-local: metadata of AWS, Azure, Google, Oracle
      range("100.100.100.200"),  // metadata of Alibaba
      range("168.63.129.16"),    // Azure's machine agent
      range("192.0.0.0/24"),     // protocol assignments, 192.0.0.192 is Oracle's metadata
      range("224.0.0.0/4"),      // multicast
      range("240.0.0.0/4"),      // reserved and broadcast
      range("::"),               // this machine
      range("fe80::/10"),        // link-local
      range("fec0::/10"),        // site-local, given up
      range("ff00::/8"),         // multicast
      range("fd00:ec2::/32"),    // metadata of AWS
      range("fd20:ce::254"),     // metadata of Google
  };
  return kNever;
}

/// The IPv4 address that gateways of transition techniques would forward to.
std::optional<IpAddress> inner_ipv4(const IpAddress& address) {
  static const IpRange kCompatible = range("::/96"), kTranslated = range("::ffff:0:0:0/96"),
                       kNat64 = range("64:ff9b::/96"), k6to4 = range("2002::/16"),
                       kTeredo = range("2001::/32");
  const std::span<const std::uint8_t> bytes(address);
  const bool loopback = address == *parse_ip("::1");
  if (kNat64.contains(address) || kTranslated.contains(address) ||
      (kCompatible.contains(address) && !loopback))
    return ipv4(bytes.subspan(kIpv4At));
  if (k6to4.contains(address)) return ipv4(bytes.subspan(2));
  if (!kTeredo.contains(address)) return {};
  IpAddress plain = ipv4(bytes.subspan(kIpv4At));  // Teredo keeps it inverted (RFC 4380)
  for (std::size_t i = kIpv4At; i < plain.size(); ++i) plain[i] = static_cast<std::uint8_t>(~plain[i]);
  return plain;
}

bool matches(std::string_view pattern, std::string_view host) {
  if (!pattern.starts_with("*.")) return pattern == host;
  return host.size() >= pattern.size() && host.ends_with(pattern.substr(1));
}

/// Whether the C library's inet_aton or a browser would read it as an IPv4 address, which it is not written
/// as: 127.1, 0x7f000001, 2130706433, 0177.0.0.1. The last label tells (WHATWG URL, "ends in a number").
bool is_disguised_address(std::string_view host) {
  const std::string_view name = host.substr(0, host.size() - (host.ends_with('.') ? 1 : 0));
  const std::string label = lower(name.substr(name.rfind('.') + 1));
  const bool hex = label.starts_with("0x") && label.find_first_not_of("0123456789abcdef", 2) == label.npos;
  const bool number = hex || (!label.empty() && label.find_first_not_of("0123456789") == label.npos);
  return number && !parse_ip(std::string(host));
}

}  // namespace

std::optional<IpAddress> parse_ip(const std::string& text) {
  in_addr four{};
  if (inet_pton(AF_INET, text.c_str(), &four) == 1) {
    std::array<std::uint8_t, 4> bytes{};
    std::memcpy(bytes.data(), &four, bytes.size());
    return ipv4(bytes);
  }
  in6_addr six{};
  if (inet_pton(AF_INET6, text.c_str(), &six) != 1) return {};
  IpAddress address{};
  std::memcpy(address.data(), &six, address.size());
  return address;
}

std::string format_ip(const IpAddress& address) {
  char text[INET6_ADDRSTRLEN] = {};
  const bool four = is_ipv4(address);
  inet_ntop(four ? AF_INET : AF_INET6, address.data() + (four ? kIpv4At : 0), text, sizeof text);
  return text;
}

bool IpRange::contains(const IpAddress& other) const {
  if (heng::is_ipv4(address) != heng::is_ipv4(other)) return false;  // ::/0 does not mean IPv4
  for (int bit = 0; bit < bits; bit += 8) {
    const int rest = std::min(bits - bit, 8);
    const auto mask = static_cast<std::uint8_t>(0xff << (8 - rest));
    const auto at = static_cast<std::size_t>(bit / 8);
    if (((address[at] ^ other[at]) & mask) != 0) return false;
  }
  return true;
}

WorkerAllow default_worker_allow() {
  return {{range("127.0.0.0/8"), range("::1"), range("10.0.0.0/8"), range("172.16.0.0/12"),
           range("192.168.0.0/16"), range("fc00::/7")},
          {}};
}

Result<void> allow_worker(WorkerAllow& allow, std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = parse_ip(std::string(text.substr(0, slash)));
  if (!address) {
    const std::string host = lower(text);
    const std::string_view name = std::string_view(host).substr(host.starts_with("*.") ? 2 : 0);
    if (slash != text.npos || !is_host_name(name)) {
      return fail(ErrorCode::invalid,
                  fmt::format("{} is neither an address range like 10.0.0.0/8 nor a host name like "
                              "gpu1.example.com or *.example.com",
                              quote(text)));
    }
    allow.hosts.push_back(host);
    return {};
  }
  const int most = is_ipv4(*address) ? 32 : 128;
  int bits = most;
  if (slash != text.npos) {
    const std::string_view count = text.substr(slash + 1);
    const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), bits);
    if (error != std::errc() || end != count.data() + count.size() || bits < 0 || bits > most) {
      return fail(ErrorCode::invalid,
                  fmt::format("{}: the prefix after the / is 0 to {} bits", quote(text), most));
    }
  }
  IpRange range{*address, bits + 128 - most};
  IpAddress first{};
  for (int bit = 0; bit < range.bits; ++bit)
    first[static_cast<std::size_t>(bit / 8)] |= static_cast<std::uint8_t>(0x80 >> (bit % 8));
  for (std::size_t i = 0; i < first.size(); ++i) first[i] &= range.address[i];
  if (first != range.address) {
    return fail(ErrorCode::invalid, fmt::format("{} has bits beyond its prefix; the range is {}/{}",
                                                quote(text), format_ip(first), bits));
  }
  allow.ranges.push_back(range);
  return {};
}

Result<void> check_worker_url(std::string_view url) {
  const std::size_t colon = url.find(':');
  const std::string scheme = lower(url.substr(0, colon));
  if (colon != url.npos && scheme.find_first_of("/?#.[") == scheme.npos && scheme != "http" &&
      scheme != "https" && !url.substr(colon + 1).empty()) {
    return fail(ErrorCode::refused,
                fmt::format("scheme {} is not allowed; workers are at http or https", quote(scheme)));
  }
  const std::size_t begin = url.find("://");
  if (begin == url.npos) return {};
  const std::string_view rest = url.substr(begin + 3);
  const std::string_view authority = rest.substr(0, rest.find_first_of("/?#\\"));
  if (authority.contains('@')) {
    return fail(ErrorCode::refused, "a worker's URL carries no user or password; give its key as `api_key`");
  }
  const std::string_view host = authority.substr(0, authority.find(':'));
  if (!authority.starts_with('[') && is_disguised_address(host)) {
    return fail(ErrorCode::refused,
                fmt::format("{} is an address in disguise; write it as four plain numbers", quote(host)));
  }
  return {};
}

Result<void> check_worker_address(const WorkerAllow& allow, std::string_view host, const IpAddress& address) {
  const std::string found = format_ip(address);
  const std::string what = host == found ? quote(host) : fmt::format("{} ({})", quote(host), found);
  const auto inner = inner_ipv4(address);
  const auto never = [](const IpAddress& one) {
    return std::ranges::any_of(never_allowed(), [&](const IpRange& range) { return range.contains(one); });
  };
  if (never(address) || (inner && never(*inner))) {
    return fail(
        ErrorCode::refused,
        fmt::format("{} is a link-local, metadata or reserved address; no worker may be there", what));
  }
  if (std::ranges::any_of(allow.ranges, [&](const IpRange& range) { return range.contains(address); }))
    return {};
  std::string name = lower(host);
  if (name.ends_with('.')) name.pop_back();
  if (std::ranges::any_of(allow.hosts, [&](const std::string& pattern) { return matches(pattern, name); }))
    return {};
  return fail(ErrorCode::refused,
              fmt::format("{} is not in `worker_allow`; add its address range or name there", what));
}

}  // namespace heng
