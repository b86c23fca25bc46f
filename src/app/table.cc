// Lays out a table.
#include "app/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace heng {

namespace {

bool looks_like_number(const std::string& cell) {
  return !cell.empty() &&
         (cell.front() == '-' || cell.front() == '.' || (cell.front() >= '0' && cell.front() <= '9'));
}

}  // namespace

std::string Table::text(bool with_headings) const {
  std::vector<std::size_t> width(headings_.size(), 0);
  std::vector<bool> right(headings_.size(), !rows_.empty());
  for (std::size_t column = 0; column < headings_.size(); ++column) {
    if (with_headings) width[column] = headings_[column].size();
    for (const auto& row : rows_) {
      width[column] = std::max(width[column], row[column].size());
      if (!looks_like_number(row[column])) right[column] = false;
    }
  }
  std::string text;
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string out;
    for (std::size_t column = 0; column < cells.size(); ++column) {
      out += right[column] ? fmt::format("{:>{}}", cells[column], width[column])
                           : fmt::format("{:<{}}", cells[column], width[column]);
      out += "  ";
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + '\n';
  };
  if (with_headings) line(headings_);
  for (const auto& row : rows_) line(row);
  return text;
}

}  // namespace heng
