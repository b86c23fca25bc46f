// Adapter of yaml-cpp: its events become our tree, its exceptions become issues.
#include "config/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/depthguard.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <fstream>
#include <sstream>
#include <utility>

namespace heng {
namespace {

/// Length of the well-formed UTF-8 sequence at `at` (Unicode 15, table 3-7); 0 if there is none.
std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const auto tail = [&](std::size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const bool fits = !(first == 0xe0 && second < 0xa0) && !(first == 0xed && second > 0x9f);
    return fits && tail(1) && tail(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool fits = !(first == 0xf0 && second < 0x90) && !(first == 0xf4 && second > 0x8f);
    return fits && tail(1) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

/// yaml-cpp replaces bad bytes and takes some tabs for blanks; a file that looks right but is not should say
/// so.
bool check_characters(std::string_view text, Issues& issues) {
  int line = 1, column = 1;
  bool indent = true;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    const auto byte = static_cast<unsigned char>(c);
    const std::size_t length = utf8_length(text, i);
    if (length == 0) {
      issues.add(line, column, "this is not UTF-8 text; save the file as UTF-8");
      return false;
    }
    const bool line_end = c == '\r' && i + 1 < text.size() && text[i + 1] == '\n';
    if ((byte < 0x20 && c != '\n' && c != '\t' && !line_end) || byte == 0x7f) {
      issues.add(line, column, fmt::format("control character 0x{:02x} in the file; remove it", byte));
      return false;
    }
    if (c == '\t' && indent) {
      issues.add(line, column, "a tab in the indentation; YAML wants spaces, write two for each level");
      return false;
    }
    indent = c == '\n' || (indent && c == ' ');
    line += c == '\n' ? 1 : 0;
    column = c == '\n' ? 1 : column + 1;
    i += length;
  }
  return true;
}

/// Where a place given in characters lies in the text.
std::size_t offset_of(std::string_view text, int line, int column) {
  std::size_t at = text.starts_with("\xef\xbb\xbf") ? 3 : 0;
  for (; line > 1; --line) {
    at = text.find('\n', at);
    if (at == std::string_view::npos) return text.size();
    ++at;
  }
  for (; column > 1 && at < text.size(); --column) at += std::max<std::size_t>(utf8_length(text, at), 1);
  return std::min(at, text.size());
}

/// yaml-cpp 0.7 takes the end of the file for a closing quote.
bool is_quote_closed(std::string_view text, std::size_t at) {
  if (at >= text.size() || (text[at] != '"' && text[at] != '\'')) return true;
  const char mark = text[at];
  for (++at; at < text.size(); ++at) {
    if (mark == '"' && text[at] == '\\') {
      ++at;
    } else if (text[at] == mark) {
      if (mark == '"' || at + 1 >= text.size() || text[at + 1] != mark) return true;
      ++at;
    }
  }
  return false;
}

/// Thrown through yaml-cpp to stop it early; caught in read_yaml.
struct TooManyValues {
  int line;
  int column;
};

class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(Issues& issues) : issues_(issues) {}

  YamlNode take() { return std::move(root_); }
  int documents() const { return documents_; }
  bool is_last_quoted() const { return last_quoted_; }
  int last_line() const { return last_line_; }
  int last_column() const { return last_column_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ == 2) report(mark, "a second document begins here (`---`); Heng reads one: remove it");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(make(YamlNode::Kind::null, mark, "", anchor));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    report(mark, "aliases (`*name`) are not supported; write the value out");
    add(make(YamlNode::Kind::broken, mark, "", 0));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode node = make(YamlNode::Kind::scalar, mark, tag, anchor);
    node.quoted = tag == "!";
    node.text = value;
    last_quoted_ = node.quoted;
    last_line_ = node.line;
    last_column_ = node.column;
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(make(YamlNode::Kind::list, mark, tag, anchor));
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(make(YamlNode::Kind::map, mark, tag, anchor));
  }
  void OnMapEnd() override { close(); }

 private:
  void report(const YAML::Mark& mark, std::string message) {
    issues_.add(mark.line + 1, mark.column + 1, std::move(message));
  }

  YamlNode make(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) report(mark, "anchors (`&name`) are not supported; remove it");
    if (!tag.empty() && tag != "?" && tag != "!") report(mark, "tags (`!type`) are not supported; remove it");
    YamlNode node;
    node.kind = kind;
    node.line = mark.line + 1;
    node.column = mark.column + 1;
    if (++nodes_ > kYamlNodesMax) throw TooManyValues{node.line, node.column};
    return node;
  }

  void add(YamlNode node) {
    if (documents_ > 1 || too_deep_ > 0) return;
    if (open_.empty()) {
      root_ = std::move(node);
    } else {
      open_.back().items.push_back(std::move(node));
    }
  }

  void open(YamlNode node) {
    if (too_deep_ == 0 && open_.size() < kYamlDepthMax) return open_.push_back(std::move(node));
    if (too_deep_ == 0) {
      issues_.add(node.line, node.column, fmt::format("nested deeper than {} levels", kYamlDepthMax));
      node.kind = YamlNode::Kind::broken;
      add(std::move(node));  // in its place, so that keys and values stay in step
    }
    ++too_deep_;
  }

  void close() {
    if (too_deep_ > 0) {
      --too_deep_;
      return;
    }
    YamlNode node = std::move(open_.back());
    open_.pop_back();
    add(std::move(node));
  }

  Issues& issues_;
  YamlNode root_;
  std::vector<YamlNode> open_;
  int too_deep_ = 0;
  int documents_ = 0;
  std::size_t nodes_ = 0;
  bool last_quoted_ = false;
  int last_line_ = 0;
  int last_column_ = 0;
};

std::string explain(const std::string& message) {
  if (message == "illegal map value") {
    return "not valid YAML: a `:` does not fit here; check the indentation, and put text that contains `: ` "
           "in quotes";
  }
  if (message.starts_with("the referenced anchor"))
    return "aliases (`*name`) are not supported; write the value out";
  return "not valid YAML: " + message;
}

}  // namespace

Result<std::string> read_yaml_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kConfigBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (file.fail() && !file.eof()))
    return fail(ErrorCode::io, fmt::format("cannot read the file: {}", std::strerror(errno)));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

YamlNode read_yaml(std::string_view text, Issues& issues) {
  YamlNode broken;
  broken.kind = YamlNode::Kind::broken;
  if (text.size() > kConfigBytesMax) {
    issues.add(0, 0, "larger than 4 MiB; this cannot be a configuration of Heng");
    return broken;
  }
  if (!check_characters(text, issues)) return broken;
  TreeBuilder builder(issues);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (builder.documents() < 2 && parser.HandleNextDocument(builder)) {
    }
  } catch (const TooManyValues& place) {
    issues.add(place.line, place.column,
               fmt::format("more than {} values; this cannot be a configuration of Heng", kYamlNodesMax));
    return broken;
  } catch (const YAML::DeepRecursion& error) {
    issues.add(error.mark.line + 1, error.mark.column + 1,
               fmt::format("nested deeper than {} levels", kYamlDepthMax));
    return broken;
  } catch (const YAML::Exception& error) {
    issues.add(std::max(error.mark.line, 0) + 1, std::max(error.mark.column, 0) + 1, explain(error.msg));
    return broken;
  } catch (const std::exception& error) {
    issues.add(0, 0, fmt::format("not valid YAML: {}", error.what()));
    return broken;
  }
  // Only the last scalar can have run into the end of the file.
  if (builder.is_last_quoted() &&
      !is_quote_closed(text, offset_of(text, builder.last_line(), builder.last_column()))) {
    issues.add(builder.last_line(), builder.last_column(), "the quote that opens here is never closed");
    return broken;
  }
  return builder.take();
}

}  // namespace heng
