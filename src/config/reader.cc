// Strict reading of the configuration by its tables.
#include "config/reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "config/keys.h"
#include "config/secret.h"
#include "config/values.h"

namespace heng {

const RoutePolicyEntry& default_route_policy() {
  const RoutePolicyEntry* entry = find_route_policy("least_time");
  return entry != nullptr ? *entry : route_policies().front();
}

ConfigLoad ConfigReader::read(std::string_view yaml, const ConfigOverrides& overrides) {
  const YamlNode root = read_yaml(yaml, issues_);
  read_root(root);
  for (const ConfigOverride& one : overrides) {
    const auto set = set_option(config_, one.key, one.value);
    if (!set) issues_.add(0, 0, fmt::format("{}: {}", one.origin, set.error().message));
    root_places_[one.key] = {};
  }
  if (root.kind != Kind::broken) check_between_keys();
  std::vector<ConfigIssue> issues = issues_.take();
  if (!config_.keys_file.empty() && !directory_.empty()) {
    KeyLoad load = load_keys(config_.keys_file);
    config_.keys = std::move(load.keys);
    for (ConfigIssue& issue : load.issues) {
      issue.file = config_.keys_file;
      issues.push_back(std::move(issue));
    }
  }
  return {std::move(config_), std::move(issues)};
}

WorkerListLoad ConfigReader::read_worker_list(std::string_view yaml) {
  list_alone_ = true;
  const YamlNode root = read_yaml(yaml, issues_);
  PoolConfig pool;
  std::vector<Place> places;
  if (root.kind == Kind::null) {
    issues_.add(0, 0, "empty; write [] for no workers");
  } else if (expect(root, Kind::list, "a list of workers (each begins with `- `)")) {
    for (const YamlNode& worker : root.items) read_worker(worker, pool, places);
    name_workers(pool, places);
  }
  return {std::move(pool.workers), issues_.take()};
}

void ConfigReader::read_root(const YamlNode& root) {
  if (root.kind == Kind::broken) return;
  if (root.kind == Kind::null) return issues_.add(0, 0, "nothing configured: needs at least `pools`");
  if (!expect(root, Kind::map, "lines like `key: value`")) return;
  bool pools_seen = false;
  read_fields(root, "the file", root_fields(), &config_,
              [&](const Field& field, const YamlNode& key, const YamlNode& value) {
                if (field.key == "pools") {
                  pools_seen = true;
                  if (value.kind == Kind::null)
                    return report(key, "`pools` is empty; add a pool with a model and its workers");
                  return read_pools(value);
                }
                if (field.key == "worker_allow") return read_worker_allow(value);
                const auto section = std::ranges::find(sections(), field.key, &Section::key);
                HENG_ASSERT(section != sections().end());
                if (value.kind == Kind::null) return;  // every line of the group is commented out
                if (!expect(value, Kind::map, fmt::format("`{}` to be a map of keys", field.key))) return;
                read_fields(value, fmt::format("`{}`", field.key), section->fields, section->at(config_),
                            [](const Field&, const YamlNode&, const YamlNode&) { HENG_ASSERT(false); });
              });
  const YamlNode* pools = find(root, "pools");
  if (!pools_seen && pools == nullptr)
    report(root, "`pools` is missing; add a pool with a model and its workers");
  for (const Field& field : root_fields()) {
    const YamlNode* value = find(root, field.key);
    if (value != nullptr) root_places_[std::string(field.key)] = {value->line, value->column};
  }
  root_places_.try_emplace("", Place{root.line, root.column});
}

void ConfigReader::check_between_keys() {
  for (const CrossCheck& check : cross_checks()) {
    // A token file that could not be read is a mistake of its own.
    const bool no_token = config_.admin_token.empty() && root_places_.contains("admin_token_file");
    if (check.key == "admin" && no_token) continue;
    const auto holds = check.holds(config_);
    if (holds) continue;
    const auto named = root_places_.find(std::string(check.key));
    const Place place = named == root_places_.end() ? root_places_[""] : named->second;
    issues_.add(place.line, place.column, holds.error().message);
  }
}

void ConfigReader::read_pools(const YamlNode& value) {
  if (!expect(value, Kind::list, "`pools` to be a list (each pool begins with `- `)")) return;
  if (value.items.empty()) return report(value, "`pools` is empty; add a pool with a model and its workers");
  for (const YamlNode& pool : value.items) read_pool(pool);
}

void ConfigReader::read_pool(const YamlNode& value) {
  if (!expect(value, Kind::map, "a pool with `model` and `workers`")) return;
  PoolConfig pool;
  pool.policy = &default_route_policy();
  pool.policy_options = default_values(*pool.policy);
  bool workers_seen = false;
  read_fields(value, "a pool", pool_fields(), &pool,
              [&](const Field& field, const YamlNode& key, const YamlNode& child) {
                if (field.key == "workers") workers_seen = true;
                if (child.kind == Kind::null) {
                  if (field.key == "discover") return;  // every line of the group is commented out
                  return report(key,
                                fmt::format("`{}` has no value; write one or remove the line", field.key));
                }
                if (field.key == "aliases") read_aliases(child, pool);
                if (field.key == "policy") read_policy(child, pool.policy, pool.policy_options);
                if (field.key == "hash_on") read_hash_on(child, pool);
                if (field.key == "discover") read_discover(child, pool);
                if (field.key == "workers") read_workers(child, pool);
              });
  if (!workers_seen && !pool.discover.used())
    report(value, "this pool has no `workers`; add at least one URL, or `discover`");
  if (!pool.model.empty()) claim_model(pool.model, place_of(value, "model"));
  const YamlNode* aliases = find(value, "aliases");
  if (aliases != nullptr && !pool.aliases.empty()) {
    if (pool.model.empty() || pool.model == "*") {
      report(*aliases, "aliases need a `model` of their own to stand for; name it");
    }
    for (const YamlNode& alias : aliases->items) {
      if (alias.kind == Kind::scalar && !alias.text.empty()) claim_model(alias.text, alias);
    }
  }
  config_.pools.push_back(std::move(pool));
}

void ConfigReader::claim_model(const std::string& name, const YamlNode& place) {
  const auto [found, fresh] = model_lines_.emplace(name, place.line);
  if (fresh) return;
  if (name == "*") {
    return report(place,
                  fmt::format("a second pool for \"*\", the first is on line {}; only one can take all other "
                              "models",
                              found->second));
  }
  report(place, fmt::format("{} is already served, see line {}; put the workers into one pool", quote(name),
                            found->second));
}

void ConfigReader::read_aliases(const YamlNode& value, PoolConfig& pool) {
  if (!expect(value, Kind::list, "`aliases` to be a list of names, like [gpt-4o-mini, llama]")) return;
  for (const YamlNode& item : value.items) {
    if (!expect(item, Kind::scalar, "an alias to be a name")) continue;
    if (item.text.empty() || item.text == "*") {
      report(item, "an alias must be a name");
      continue;
    }
    pool.aliases.push_back(item.text);
  }
}

void ConfigReader::read_hash_on(const YamlNode& value, PoolConfig& pool) {
  if (!expect(value, Kind::scalar, "`hash_on` to be a single value")) return;
  constexpr std::string_view kHeader = "header:";
  if (value.text == "prompt") {
    pool.hash_on = AffinitySource::prompt;
  } else if (value.text == "user") {
    pool.hash_on = AffinitySource::user;
  } else if (value.text.starts_with(kHeader) && is_header_name(value.text.substr(kHeader.size()))) {
    pool.hash_on = AffinitySource::header;
    pool.hash_header = value.text.substr(kHeader.size());
  } else {
    report(value,
           fmt::format(
               "`hash_on`: {} is not allowed; write prompt, user or header:NAME, like header:x-session-id",
               quote(value.text)));
  }
}

void ConfigReader::read_discover(const YamlNode& value, PoolConfig& pool) {
  if (!expect(value, Kind::map, "`discover` to be a map with `dns` or `file`")) return;
  read_fields(value, "`discover`", discover_fields(), &pool.discover,
              [](const Field&, const YamlNode&, const YamlNode&) { HENG_ASSERT(false); });
  if (!pool.discover.file.empty()) pool.discover.file = resolve_path(pool.discover.file, directory_);
  if (find(value, "dns") == nullptr && find(value, "file") == nullptr)
    report(value, "`discover` needs `dns` or `file`");
}

void ConfigReader::read_worker_allow(const YamlNode& value) {
  if (!expect(value, Kind::list, "`worker_allow` to be a list, like [10.0.0.0/8, gpu1.example.com]")) return;
  config_.worker_allow = {};
  for (const YamlNode& item : value.items) {
    if (!expect(item, Kind::scalar, "an address range or a host name")) continue;
    const auto allowed = allow_worker(config_.worker_allow, item.text);
    if (!allowed) report(item, fmt::format("`worker_allow`: {}", allowed.error().message));
  }
}

void ConfigReader::read_workers(const YamlNode& value, PoolConfig& pool) {
  if (!expect(value, Kind::list, "`workers` to be a list (each worker begins with `- `)")) return;
  if (value.items.empty()) return report(value, "`workers` is empty; add at least one URL");
  std::vector<Place> places;
  for (const YamlNode& worker : value.items) read_worker(worker, pool, places);
  name_workers(pool, places);
}

void ConfigReader::read_worker(const YamlNode& value, PoolConfig& pool, std::vector<Place>& places) {
  WorkerConfig worker;
  if (value.kind == Kind::scalar) {
    read_worker_url(value, worker);
  } else {
    if (!expect(value, Kind::map, "a worker: a URL, or a map with `url`")) return;
    read_fields(value, "a worker", worker_fields(), &worker,
                [&](const Field& field, const YamlNode& key, const YamlNode& child) {
                  if (field.key == "tls") return read_worker_tls(child, worker);
                  if (child.kind != Kind::null) return read_worker_url(child, worker);
                  report(key, fmt::format("`{}` has no value; write one or remove the line", field.key));
                });
    check_worker(value, worker);
  }
  const YamlNode& place = place_of(value, "url");
  pool.workers.push_back(std::move(worker));
  places.push_back({place.line, place.column});
}

void ConfigReader::read_worker_tls(const YamlNode& value, WorkerConfig& worker) {
  if (value.kind == Kind::null) return;  // every line of the group is commented out
  if (!expect(value, Kind::map, "`tls` to be a map of keys")) return;
  read_fields(value, "`tls`", worker_tls_fields(), &worker,
              [](const Field&, const YamlNode&, const YamlNode&) { HENG_ASSERT(false); });
  if (worker.tls_cert_file.empty() != worker.tls_key_file.empty())
    report(value, "`cert_file` and `key_file` belong together; name both or none");
}

void ConfigReader::read_worker_url(const YamlNode& value, WorkerConfig& worker) {
  if (!expect(value, Kind::scalar, "`url` to be a URL like http://10.0.0.1:8000")) return;
  auto url = parse_worker_url(value.text);
  if (!url) return report(value, fmt::format("`url`: {}", url.error().message));
  worker.url = std::move(url->url);
  worker.tls = url->tls;
  worker.endpoint = std::move(url->endpoint);
  worker.base_path = std::move(url->base_path);
}

void ConfigReader::check_worker(const YamlNode& value, const WorkerConfig& worker) {
  if (find(value, "url") == nullptr)
    report(value, "this worker has no `url`; add it, like url: http://10.0.0.1:8000");
  if (const YamlNode* file = find(value, "api_key_file"); file != nullptr && list_alone_)
    report(*file, "`api_key_file` is for the configuration file; write the key as `api_key`");
  const YamlNode* key = find(value, "api_key");
  if (key != nullptr && find(value, "api_key_file") != nullptr) {
    report(*key, "both `api_key` and `api_key_file`; keep the file");
  } else if (key != nullptr && key->kind == Kind::scalar && !is_header_value(worker.api_key)) {
    report(*key, "`api_key` must be plain ASCII without blanks around it");
  } else if (key != nullptr && inline_keys_open_) {
    report(*key,
           fmt::format("every user of this machine can read this file and the key in it; chmod 600 it{}",
                       list_alone_ ? "" : ", or use `api_key_file`"));
  }
  const YamlNode* name = find(value, "name");
  if (name != nullptr && name->kind == Kind::scalar && !is_header_value(worker.name)) {
    report(*name, "`name` goes into a header: it must be plain ASCII and not empty");
  }
  const YamlNode* tls = find(value, "tls");
  if (tls != nullptr && !worker.url.empty() && !worker.tls) {
    report(*tls, "`tls` is only for https; change the url or remove this");
  }
}

void ConfigReader::name_workers(PoolConfig& pool, const std::vector<Place>& places) {
  std::unordered_map<std::string, int> url_lines, name_lines, uses;
  for (const WorkerConfig& worker : pool.workers) {
    ++uses[worker.name.empty() ? format_endpoint(worker.endpoint) : worker.name];
  }
  for (std::size_t i = 0; i < pool.workers.size(); ++i) {
    WorkerConfig& worker = pool.workers[i];
    if (worker.url.empty()) continue;  // reported
    const auto [line, column] = places[i];
    if (const auto [first, fresh] = url_lines.emplace(worker.url, line); !fresh) {
      issues_.add(line, column,
                  fmt::format("{} is in this pool twice, first on line {}; use `weight` to give it more",
                              quote(worker.url), first->second));
      continue;
    }
    if (worker.name.empty()) {
      worker.name = format_endpoint(worker.endpoint);
      if (uses[worker.name] > 1) worker.name += worker.base_path;
      if (name_lines.contains(worker.name)) worker.name = worker.url;
    }
    if (const auto [first, fresh] = name_lines.emplace(worker.name, line); !fresh) {
      issues_.add(line, column,
                  fmt::format("two workers of this pool are called {}, the first on line {}; give one "
                              "another `name`",
                              quote(worker.name), first->second));
    }
  }
}

}  // namespace heng
