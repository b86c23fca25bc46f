// YAML text as a tree of plain values with their places; refuses what a configuration file has no use for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/issues.h"

namespace heng {

inline constexpr std::size_t kConfigBytesMax = 4 << 20;
inline constexpr int kYamlDepthMax = 32;
inline constexpr std::size_t kYamlNodesMax = 100'000;

struct YamlNode {
  enum class Kind : std::uint8_t {
    null,
    scalar,
    list,
    map,
    broken
  };  // broken: already reported, say no more
  Kind kind = Kind::null;
  bool quoted = false;          // scalar in quotes: a text, whatever it looks like
  int line = 0;                 // from 1; 0 = there is no document
  int column = 0;               // from 1, in characters
  std::string text;             // scalar
  std::vector<YamlNode> items;  // list: its items; map: key, value, key, value, ...
};

/// The file's text, of which read_yaml refuses what is too long.
Result<std::string> read_yaml_file(const std::string& path);

/// One document, at most 4 MiB, 32 levels and 100,000 values, UTF-8, without tabs, aliases, anchors or tags.
/// Linear. After a syntax error the result is `broken`. Reports every other mistake.
YamlNode read_yaml(std::string_view text, Issues& issues);

}  // namespace heng
