// Turns the YAML tree into the typed configuration and reports everything that does not fit.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "config/config.h"
#include "config/table_reader.h"

namespace heng {

/// The policy of a pool that names none.
const RoutePolicyEntry& default_route_policy();

/// What must hold between keys; reported at one of them.
struct CrossCheck {
  std::string_view key;
  Result<void> (*holds)(const Config&);
};
std::span<const CrossCheck> cross_checks();

/// Reads one file; used once.
class ConfigReader : private TableReader {
 public:
  /// `directory` as for parse_config; `inline_keys_open`: everybody can read the file, so it must hold no
  /// secrets.
  ConfigReader(std::string directory, bool inline_keys_open)
      : TableReader(std::move(directory)), inline_keys_open_(inline_keys_open) {}

  ConfigLoad read(std::string_view yaml, const ConfigOverrides& overrides);
  WorkerListLoad read_worker_list(std::string_view yaml);

 private:
  struct Place {
    int line = 0;
    int column = 0;
  };

  void read_root(const YamlNode& root);
  void read_pools(const YamlNode& value);
  void read_pool(const YamlNode& value);
  void read_aliases(const YamlNode& value, PoolConfig& pool);
  void read_hash_on(const YamlNode& value, PoolConfig& pool);
  void read_discover(const YamlNode& value, PoolConfig& pool);
  void read_worker_allow(const YamlNode& value);
  void read_workers(const YamlNode& value, PoolConfig& pool);
  void read_worker(const YamlNode& value, PoolConfig& pool, std::vector<Place>& places);
  void read_worker_tls(const YamlNode& value, WorkerConfig& worker);
  void read_worker_url(const YamlNode& value, WorkerConfig& worker);
  void check_worker(const YamlNode& value, const WorkerConfig& worker);
  void name_workers(PoolConfig& pool, const std::vector<Place>& places);
  void claim_model(const std::string& name, const YamlNode& place);
  void check_between_keys();

  bool inline_keys_open_;
  Config config_;
  bool list_alone_ = false;  // of workers, from somebody who need not be allowed to read our secrets
  std::unordered_map<std::string, Place> root_places_;
  std::unordered_map<std::string, int> model_lines_;  // model or alias -> line
};

}  // namespace heng
