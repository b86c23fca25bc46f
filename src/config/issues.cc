// Wording of configuration mistakes.
#include "config/issues.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

namespace heng {

void Issues::add(int line, int column, std::string message) {
  if (issues_.size() < kIssuesMax) {
    issues_.push_back({line, column, std::move(message)});
  } else {
    ++left_out_;
  }
}

std::vector<ConfigIssue> Issues::take() {
  std::ranges::sort(issues_, {}, [](const ConfigIssue& issue) {
    return std::tuple(issue.line, issue.column, std::string_view(issue.message));
  });
  if (left_out_ > 0) {
    const auto& last = issues_.back();
    issues_.push_back(
        {last.line, last.column, fmt::format("{} more mistakes are not shown; mend these first", left_out_)});
  }
  left_out_ = 0;
  return std::exchange(issues_, {});
}

std::string quote(std::string_view text) {
  constexpr std::size_t kShown = 60;
  std::string out = "'";
  std::size_t end = std::min(text.size(), kShown);
  while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  for (const char c : text.substr(0, end)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + (end < text.size() ? "...'" : "'");
}

std::string list_of(std::span<const std::string_view> words) {
  std::string out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) out += i + 1 == words.size() ? " or " : ", ";
    fmt::format_to(std::back_inserter(out), "`{}`", words[i]);
  }
  return out;
}

namespace {

/// Optimal string alignment distance (Damerau 1964, without edits inside a swap).
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), previous(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool same = a[i - 1] == b[j - 1];
      row[j] = std::min({previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (same ? 0u : 1u)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, previous);
    std::swap(previous, row);
  }
  return previous[b.size()];
}

}  // namespace

std::string_view nearest(std::string_view text, std::span<const std::string_view> words) {
  constexpr std::size_t kLongest = 48;  // nobody misspells a longer word, and the cost stays bounded
  if (text.empty() || text.size() > kLongest) return {};
  std::string plain;
  for (const char c : text)
    plain += c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  std::string_view best;
  std::size_t fewest = std::max<std::size_t>(1, plain.size() / 3) + 1;
  for (const std::string_view word : words) {
    const std::size_t count = edits(plain, word);
    if (count < fewest) fewest = count, best = word;
  }
  return best;
}

std::string did_you_mean(std::string_view text, std::span<const std::string_view> words) {
  const std::string_view word = nearest(text, words);
  return word.empty() ? "" : fmt::format(" Did you mean `{}`?", word);
}

}  // namespace heng
