// Reading of configuration files and single options.
#include "config/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "config/issues.h"
#include "config/reader.h"
#include "config/schema.h"
#include "config/secret.h"
#include "config/values.h"

namespace heng {

ConfigLoad parse_config(std::string_view yaml, const std::string& directory,
                        const ConfigOverrides& overrides) {
  return ConfigReader(directory, false).read(yaml, overrides);
}

ConfigLoad load_config(const std::string& path, const ConfigOverrides& overrides) {
  const auto text = read_yaml_file(path);
  if (!text) return {{}, {{0, 0, text.error().message}}};
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  return ConfigReader(directory, is_open_to_all(path)).read(*text, overrides);
}

WorkerListLoad parse_worker_list(std::string_view yaml, bool keys_refused) {
  return ConfigReader("", keys_refused).read_worker_list(yaml);
}

WorkerListLoad load_worker_list(const std::string& path) {
  const auto text = read_yaml_file(path);
  if (!text) return {{}, {{0, 0, text.error().message}}};
  return parse_worker_list(*text, is_open_to_all(path));
}

std::string format_issues(const std::string& path, const std::vector<ConfigIssue>& issues) {
  std::string out;
  for (const ConfigIssue& issue : issues) {
    const std::string& file = issue.file.empty() ? path : issue.file;
    if (issue.line == 0) {
      fmt::format_to(std::back_inserter(out), "{}: {}\n", file, issue.message);
    } else {
      fmt::format_to(std::back_inserter(out), "{}:{}:{}: {}\n", file, issue.line, issue.column,
                     issue.message);
    }
  }
  return out;
}

std::vector<std::string> option_keys() {
  std::vector<std::string> keys;
  for (const Field& field : root_fields()) {
    if (field.type != FieldType::structure) keys.emplace_back(field.key);
  }
  for (const Section& section : sections()) {
    for (const Field& field : section.fields) keys.push_back(fmt::format("{}.{}", section.key, field.key));
  }
  return keys;
}

Result<void> set_option(Config& config, std::string_view key, std::string_view text) {
  std::span<const Field> fields = root_fields();
  void* object = &config;
  std::string_view name = key;
  if (const std::size_t dot = key.find('.'); dot != std::string_view::npos) {
    const auto section = std::ranges::find(sections(), key.substr(0, dot), &Section::key);
    fields = section != sections().end() ? section->fields : std::span<const Field>();
    object = section != sections().end() ? section->at(config) : nullptr;
    name = key.substr(dot + 1);
  }
  const auto field = std::ranges::find(fields, name, &Field::key);
  if (field == fields.end() || field->type == FieldType::structure) {
    const auto known = option_keys();
    const std::vector<std::string_view> words(known.begin(), known.end());
    return fail(ErrorCode::not_found,
                fmt::format("there is no single option {}.{} Groups and `pools` are set in the file",
                            quote(key), did_you_mean(key, words)));
  }
  auto set = set_field(*field, object, text, ".");
  if (!set) set.error().message = fmt::format("`{}`: {}", key, set.error().message);
  return set;
}

namespace {

Result<void> check_admin_token(const Config& config) {
  if (!config.admin || is_loopback(config.admin->host)) return {};
  if (!config.admin_token.empty() && (config.tls.admin || config.insecure_bind)) return {};
  return fail(ErrorCode::refused,
              fmt::format("`admin` on {} can be reached by other machines {}, or use 127.0.0.1:{}",
                          format_endpoint(*config.admin),
                          config.admin_token.empty()
                              ? "but has no token; set `admin_token_file`"
                              : "in the clear, and so can its token; set `tls.admin`, or, where nobody "
                                "listens in, `insecure_bind: true`",
                          config.admin->port));
}

Result<void> check_tls(const Config& config) {
  const TlsConfig& tls = config.tls;
  const auto wrong = [](const char* message) { return fail(ErrorCode::invalid, message); };
  if (tls.cert_file.empty() != tls.key_file.empty())
    return wrong("`tls`: `cert_file` and `key_file` belong together; name both or none");
  if (!tls.enabled() && (tls.admin || !tls.client_ca_file.empty()))
    return wrong("`tls` has no `cert_file`; name the certificate to show, or remove the other keys");
  if (tls.min_version != "1.2" && tls.min_version != "1.3")
    return wrong("`tls.min_version` must be 1.2 or 1.3; older ones are not safe");
  return {};
}

Result<void> check_addresses(const Config& config) {
  if (config.admin != config.listen) return {};
  return fail(ErrorCode::invalid, fmt::format("`listen` and `admin` are both {}; give one another address",
                                              format_endpoint(config.listen)));
}

Result<void> check_exposure(const Config& config) {
  const bool open = config.keys_file.empty() && config.tls.client_ca_file.empty();
  if (config.insecure_bind || is_loopback(config.listen.host) || (config.tls.enabled() && !open)) return {};
  return fail(
      ErrorCode::refused,
      fmt::format("`listen` on {} can be reached by other machines, {}{}{}; use 127.0.0.1:{}, "
                  "or, on a network where that is meant, `insecure_bind: true`",
                  format_endpoint(config.listen), config.tls.enabled() ? "" : "in the clear (see `tls`)",
                  open && !config.tls.enabled() ? " and " : "", open ? "without a key (see `keys_file`)" : "",
                  config.listen.port));
}

Result<void> check_credentials(const Config& config) {
  if (config.keys_file.empty() || !config.forward_authorization) return {};
  return fail(
      ErrorCode::invalid,
      "`forward_authorization` would hand the keys of `keys_file` to the workers; remove one, and give "
      "workers an `api_key_file` of their own");
}

Result<void> check_dns_server(const Config& config) {
  if (!config.dns_server || parse_ip(config.dns_server->host)) return {};
  return fail(ErrorCode::invalid, fmt::format("`dns_server` {} is a name; write the server's address",
                                              quote(config.dns_server->host)));
}

Result<void> check_adaptive_limit(const Config& config) {
  const auto& [min, max, tolerance, slack] = config.adaptive_limit;
  if (min <= max) return {};
  return fail(
      ErrorCode::invalid,
      fmt::format("`adaptive_limit`: `min` {} is above `max` {}; lower one or raise the other", min, max));
}

constexpr CrossCheck kCrossChecks[] = {{"admin", check_admin_token},
                                       {"tls", check_tls},
                                       {"listen", check_addresses},
                                       {"listen", check_exposure},
                                       {"dns_server", check_dns_server},
                                       {"adaptive_limit", check_adaptive_limit},
                                       {"forward_authorization", check_credentials}};

}  // namespace

std::span<const CrossCheck> cross_checks() { return kCrossChecks; }

Result<void> check_config(const Config& config) {
  for (const CrossCheck& check : kCrossChecks) {
    if (auto holds = check.holds(config); !holds) return holds;
  }
  return {};
}

}  // namespace heng
