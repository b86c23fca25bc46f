// Reports what a table does not allow.
#include "config/table_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "config/values.h"

namespace heng {
namespace {

using Kind = YamlNode::Kind;

std::string_view kind_name(const YamlNode& node) {
  switch (node.kind) {
    case Kind::null:
      return "nothing";
    case Kind::scalar:
      return "a single value";
    case Kind::list:
      return "a list";
    case Kind::map:
      return "a map of keys";
    case Kind::broken:
      return "something unreadable";
  }
  HENG_ASSERT(false);
}

}  // namespace

const YamlNode* find(const YamlNode& map, std::string_view key) {
  if (map.kind != Kind::map) return nullptr;
  for (std::size_t i = 0; i + 1 < map.items.size(); i += 2) {
    if (map.items[i].kind == Kind::scalar && map.items[i].text == key) return &map.items[i + 1];
  }
  return nullptr;
}

/// The value's own place if the map has the key, else the map's.
const YamlNode& place_of(const YamlNode& map, std::string_view key) {
  const YamlNode* found = find(map, key);
  return found != nullptr ? *found : map;
}

std::size_t TableReader::index_of_key(const YamlNode& key, std::string_view owner,
                                      std::span<const std::string_view> allowed, std::vector<int>& seen_on) {
  if (key.kind == Kind::broken) return allowed.size();
  if (key.kind != Kind::scalar) {
    report(key, fmt::format("a key must be a word; {} has {}", owner, list_of(allowed)));
    return allowed.size();
  }
  const auto found = std::ranges::find(allowed, key.text);
  if (found == allowed.end()) {
    report(key, fmt::format("unknown key {}.{} Keys of {}: {}", quote(key.text),
                            did_you_mean(key.text, allowed), owner, list_of(allowed)));
    return allowed.size();
  }
  const auto index = static_cast<std::size_t>(found - allowed.begin());
  int& seen = seen_on[index];
  if (seen != 0) {
    report(key, fmt::format("`{}` is here twice, first on line {}; keep one", key.text, seen));
    return allowed.size();
  }
  seen = key.line;
  return index;
}

bool TableReader::expect(const YamlNode& value, Kind kind, std::string_view what) {
  if (value.kind == kind) return true;
  if (value.kind != Kind::broken) report(value, fmt::format("expected {}, found {}", what, kind_name(value)));
  return false;
}

void TableReader::read_scalar(const Field& field, const YamlNode& value, void* object) {
  if (value.kind == Kind::null) {
    return report(value, fmt::format("`{}` has no value; write one or remove the line", field.key));
  }
  if (!expect(value, Kind::scalar, fmt::format("`{}` to be: {}", field.key, describe_type(field)))) return;
  const bool plain_only =
      field.type == FieldType::flag || field.type == FieldType::count || field.type == FieldType::number;
  if (value.quoted && plain_only) {
    return report(value, fmt::format("`{}` is a {}; remove the quotes", field.key, describe_type(field)));
  }
  const auto set = set_field(field, object, value.text, directory_);
  if (!set) report(value, fmt::format("`{}`: {}", field.key, set.error().message));
}

const RoutePolicyEntry* TableReader::read_policy_name(const YamlNode& value) {
  if (!expect(value, Kind::scalar, "the policy's name")) return nullptr;
  const RoutePolicyEntry* entry = find_route_policy(value.text);
  if (entry != nullptr) return entry;
  std::vector<std::string_view> names;
  for (const RoutePolicyEntry& one : route_policies()) names.push_back(one.name);
  report(value, fmt::format("unknown policy {}.{} Policies: {}", quote(value.text),
                            did_you_mean(value.text, names), list_of(names)));
  return nullptr;
}

void TableReader::read_policy(const YamlNode& value, const RoutePolicyEntry*& policy, OptionValues& options) {
  if (value.kind == Kind::scalar) {
    const RoutePolicyEntry* entry = read_policy_name(value);
    if (entry == nullptr) return;
    policy = entry;
    options = default_values(*entry);
    return;
  }
  if (!expect(value, Kind::map, "a policy's name, or a map like {name: round_robin}")) return;
  const YamlNode* name = find(value, "name");
  if (name == nullptr) return report(value, "this policy has no `name`; add it");
  const RoutePolicyEntry* entry = read_policy_name(*name);
  if (entry == nullptr) return;
  std::vector<std::string_view> allowed = {"name"};
  for (const OptionField& option : entry->fields) allowed.push_back(option.key);
  OptionValues values = default_values(*entry);
  walk(value, fmt::format("policy `{}`", entry->name), allowed,
       [&](std::size_t index, const YamlNode&, const YamlNode& child) {
         if (index > 0) read_policy_option(entry->fields[index - 1], child, values[index - 1]);
       });
  policy = entry;
  options = std::move(values);
  if (entry->validate == nullptr) return;
  const std::string wrong = entry->validate(options);
  if (!wrong.empty()) report(value, fmt::format("policy `{}`: {}", entry->name, wrong));
}

void TableReader::read_policy_option(const OptionField& option, const YamlNode& value, double& target) {
  const std::string_view what = option.is_flag ? "true or false" : "a number";
  if (!expect(value, Kind::scalar, fmt::format("`{}` to be {}", option.key, what))) return;
  if (option.is_flag) {
    if (!value.quoted && (value.text == "true" || value.text == "false")) {
      target = value.text == "true" ? 1 : 0;
    } else {
      report(value, fmt::format("`{}`: {} is neither true nor false", option.key, quote(value.text)));
    }
    return;
  }
  const auto number = parse_number(value.text);
  if (!number || value.quoted) {
    const bool duration = option.key.ends_with("_s") && parse_duration_seconds(value.text).has_value();
    return report(value, fmt::format("`{}`: {} is not a number{}", option.key, quote(value.text),
                                     duration ? "; write the seconds without a unit" : ""));
  }
  if (*number < option.min || *number > option.max) {
    return report(value,
                  fmt::format("`{}`: {} is out of range; allowed: {} to {}", option.key, quote(value.text),
                              format_number(option.min), format_number(option.max)));
  }
  target = *number;
}

}  // namespace heng
