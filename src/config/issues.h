// Collects what is wrong with a configuration, in words that say what to do next.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace heng {

/// Keeps the first `kIssuesMax` mistakes and counts the rest: a wrong file may be wrong a million times.
class Issues {
 public:
  static constexpr std::size_t kIssuesMax = 100;

  void add(int line, int column, std::string message);
  bool empty() const { return issues_.empty(); }
  /// In file order, the whole-file ones first.
  std::vector<ConfigIssue> take();

 private:
  std::vector<ConfigIssue> issues_;
  std::size_t left_out_ = 0;
};

/// `text` in quotes for a message: shortened, control characters made visible.
std::string quote(std::string_view text);
/// "`a`, `b` or `c`".
std::string list_of(std::span<const std::string_view> words);
/// The word that `text` was probably meant to be: fewest edits, swapped neighbours counting one; "" if none
/// is near.
std::string_view nearest(std::string_view text, std::span<const std::string_view> words);
/// " Did you mean `x`?" or "".
std::string did_you_mean(std::string_view text, std::span<const std::string_view> words);

}  // namespace heng
