// Decides field by field what passes through.
#include "gateway/forwarding.h"

#include <fmt/format.h>

#include <algorithm>

namespace heng {

bool is_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 &&
         std::ranges::all_of(id, [](char c) { return c > ' ' && c < 0x7f; });
}

bool starts_ignoring_case(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() && equals_ignoring_case(text.substr(0, prefix.size()), prefix);
}

bool is_replaced(std::string_view name) {
  constexpr std::string_view kNames[] = {"forwarded",      "true-client-ip", "cf-connecting-ip",
                                         "x-request-id",   "x-real-ip",      "x-client-ip",
                                         "x-original-url", "x-rewrite-url",  "x-cluster-client-ip"};
  const auto starts = [&](std::string_view prefix) {
    return reads_as(name.substr(0, prefix.size()), prefix);
  };
  // "Content_Type" is not what the body was inspected by.
  return starts("x-forwarded-") || starts("x-heng-") || (starts("content-") && name[7] == '_') ||
         std::ranges::any_of(kNames, [&](std::string_view known) { return reads_as(name, known); });
}

bool is_credential(std::string_view name) {
  return reads_as(name, "authorization") || reads_as(name, "x-api-key") || reads_as(name, "api-key");
}

bool has_dot_segments(std::string_view path) {
  std::size_t dots = 0;
  bool only_dots = true;  // so far in this segment
  for (std::size_t at = 0; at <= path.size(); ++at) {
    char c = at == path.size() ? '/' : path[at];
    if (c == '%') {
      const std::string_view code = path.substr(at + 1, 2);
      c = equals_ignoring_case(code, "2e")                                       ? '.'
          : equals_ignoring_case(code, "2f") || equals_ignoring_case(code, "5c") ? '/'
                                                                                 : 'x';
      if (c != 'x') at += 2;
    }
    if (c == '/' || c == '\\') {
      if (only_dots && (dots == 1 || dots == 2)) return true;
      dots = 0;
      only_dots = true;
    } else if (c == '.') {
      ++dots;
    } else {
      only_dots = false;
    }
  }
  return false;
}

std::string_view connection_options(const HttpHead& head, std::string& joined) {
  std::string_view options;
  for (const HeaderField& field : head.fields) {
    if (!equals_ignoring_case(field.name, "connection")) continue;
    if (!options.empty()) joined = fmt::format("{},{}", options, field.value);
    options = options.empty() ? field.value : std::string_view(joined);
  }
  return options;
}

bool is_client_retry(const HttpHead& head) {
  const auto count = head.find("x-stainless-retry-count");
  return count && !count->empty() && *count != "0";
}

bool redirects_elsewhere(const HttpHead& head, const WorkerConfig& worker) {
  if (head.status < 300 || head.status > 399) return false;
  std::string_view to = head.find("location").value_or("");
  const std::size_t scheme_end = to.find("://");
  const bool scheme = scheme_end < to.find_first_of("/?#\\");
  const bool network_path =
      to.size() > 1 && to.find_first_not_of("/\\") > 1;  // browsers read a backslash as a slash
  if (!scheme && !network_path) return false;
  to.remove_prefix(scheme ? scheme_end + 3 : std::min<std::size_t>(to.size(), 2));
  const std::string_view authority = to.substr(0, to.find_first_of("/?#\\"));
  const Endpoint& endpoint = worker.endpoint;
  const bool v6 = endpoint.host.find(':') != std::string::npos;
  const std::string host = v6 ? "[" + endpoint.host + "]" : endpoint.host;
  const bool default_port = endpoint.port == (worker.tls ? 443 : 80);
  return !equals_ignoring_case(authority, fmt::format("{}:{}", host, endpoint.port)) &&
         !(default_port && equals_ignoring_case(authority, host));
}

bool is_nominated(std::string_view connection, std::string_view name) {
  if (connection.empty() || starts_ignoring_case(name, "content-") || is_credential(name)) return false;
  while (!connection.empty()) {
    const std::size_t comma = std::min(connection.find(','), connection.size());
    std::string_view option = connection.substr(0, comma);
    while (option.starts_with(' ')) option.remove_prefix(1);
    while (option.ends_with(' ')) option.remove_suffix(1);
    if (equals_ignoring_case(option, name)) return true;
    connection.remove_prefix(std::min(comma + 1, connection.size()));
  }
  return false;
}

}  // namespace heng
