// Reports what a table does not allow.
#include "config/table_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

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

}  // namespace heng
