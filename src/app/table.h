// Plain text tables: columns as wide as their widest cell, numbers to the right.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace heng {

/// Workers choose the names of their models: none may move the cursor or clear the screen. Control characters
/// come out as \xHH.
std::string printable(std::string_view text);

class Table {
 public:
  explicit Table(std::vector<std::string> headings) : headings_(std::move(headings)) {}

  /// Cells are made printable.
  void add(std::vector<std::string> cells);
  std::string text(bool with_headings) const;

 private:
  std::vector<std::string> headings_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace heng
