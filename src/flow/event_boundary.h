// Knows whether a relayed stream of server-sent events stands between two events.
#pragma once

#include <algorithm>
#include <string_view>

namespace heng {

/// Keeps the last bytes only, so a piece costs the same whatever its size.
class EventBoundary {
 public:
  void take(std::string_view piece) {
    const std::string_view tail = piece.substr(piece.size() - std::min(piece.size(), kKept));
    std::copy(last_ + tail.size(), last_ + kKept, last_);
    std::ranges::copy(tail, last_ + kKept - tail.size());
  }
  /// True at the start and after a blank line; lines end with CR, LF or CRLF (WHATWG HTML, 9.2.5).
  bool between_events() const {
    std::string_view last(last_, kKept);
    if (last.back() != '\n' && last.back() != '\r') return false;
    last.remove_suffix(last.ends_with("\r\n") ? 2 : 1);
    return last.back() == '\n' || last.back() == '\r';
  }
  void reset() { std::ranges::fill(last_, '\n'); }

 private:
  static constexpr std::size_t kKept = 3;
  char last_[kKept] = {'\n', '\n', '\n'};  // as if a blank line had come before
};

}  // namespace heng
