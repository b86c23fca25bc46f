// Lays out a table.
#include "app/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace heng {

namespace {

bool looks_like_number(const std::string& cell) {
  return !cell.empty() &&
         (cell.front() == '-' || cell.front() == '.' || (cell.front() >= '0' && cell.front() <= '9'));
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool c1 = byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (byte < 0x20 || byte == 0x7f || c1) {
      out += fmt::format("\\x{:02x}", c1 ? static_cast<unsigned char>(text[++i]) : byte);
    } else {
      out += text[i];
    }
  }
  return out;
}

void Table::add(std::vector<std::string> cells) {
  for (std::string& cell : cells) cell = printable(cell);
  rows_.push_back(std::move(cells));
}

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
