// Strict reading of YAML maps by tables of keys: what every reader of a file of ours shares.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/issues.h"
#include "config/schema.h"
#include "config/yaml_tree.h"
#include "policy/route/registry.h"

namespace heng {

/// The value of `key`, or nullptr.
const YamlNode* find(const YamlNode& map, std::string_view key);
/// The value's own place if the map has the key, else the map's.
const YamlNode& place_of(const YamlNode& map, std::string_view key);

/// Reads one file; used once. Collects everything that does not fit.
class TableReader {
 protected:
  using Kind = YamlNode::Kind;

  /// Relative paths of secret files are taken from `directory`; "" = open no files.
  explicit TableReader(std::string directory) : directory_(std::move(directory)) {}

  /// Calls `on_entry(index in allowed, key, value)` for every key that may be there, once.
  template <class OnEntry>
  void walk(const YamlNode& map, std::string_view owner, std::span<const std::string_view> allowed,
            OnEntry on_entry) {
    std::vector<int> seen_on(allowed.size(), 0);
    for (std::size_t i = 0; i + 1 < map.items.size(); i += 2) {
      const std::size_t index = index_of_key(map.items[i], owner, allowed, seen_on);
      if (index < allowed.size()) on_entry(index, map.items[i], map.items[i + 1]);
    }
  }

  /// Scalars go to their members of `object`, structures to `on_structure(field, key, value)`.
  template <class OnStructure>
  void read_fields(const YamlNode& map, std::string_view owner, std::span<const Field> fields, void* object,
                   OnStructure on_structure) {
    std::vector<std::string_view> allowed;
    for (const Field& field : fields) allowed.push_back(field.key);
    walk(map, owner, allowed, [&](std::size_t index, const YamlNode& key, const YamlNode& value) {
      if (value.kind == Kind::broken) return;
      if (fields[index].type == FieldType::structure) {
        on_structure(fields[index], key, value);
      } else {
        read_scalar(fields[index], value, object);
      }
    });
  }

  /// A policy's name, or a map of its name and options. After a mistake the policy stays as it was.
  void read_policy(const YamlNode& value, const RoutePolicyEntry*& policy, OptionValues& options);
  void read_scalar(const Field& field, const YamlNode& value, void* object);
  bool expect(const YamlNode& value, Kind kind, std::string_view what);
  void report(const YamlNode& place, std::string message) {
    issues_.add(place.line, place.column, std::move(message));
  }

  std::string directory_;
  Issues issues_;

 private:
  /// allowed.size(): not to be read, which has been reported.
  std::size_t index_of_key(const YamlNode& key, std::string_view owner,
                           std::span<const std::string_view> allowed, std::vector<int>& seen_on);
  const RoutePolicyEntry* read_policy_name(const YamlNode& value);
  void read_policy_option(const OptionField& option, const YamlNode& value, double& target);
};

}  // namespace heng
