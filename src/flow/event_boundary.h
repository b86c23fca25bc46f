// Knows whether a relayed stream of server-sent events stands between two events, and how many there were.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace heng {

/// Keeps the last bytes only.
class EventBoundary {
 public:
  EventBoundary() { std::ranges::fill(last_, '\n'); }  // as if a blank line had come before
  void take(std::string_view piece) {
    for (std::size_t at = piece.find('\n'); at != piece.npos; at = piece.find('\n', at + 1)) {
      const char before = at > 0 ? piece[at - 1] : last_[kKept - 1];
      const char first = at > 1 ? piece[at - 2] : last_[kKept - 2 + at];
      events_ += before == '\n' || (before == '\r' && first == '\n') ? 1 : 0;
    }
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
  /// The last event is the one that ends OpenAI's streams.
  bool says_done() const { return std::string_view(last_, kKept).contains("[DONE]"); }
  /// Blank lines so far, of CR alone not.
  std::uint32_t events() const { return events_; }
  void reset() { *this = {}; }

 private:
  static constexpr std::size_t kKept = 16;  // "data: [DONE]\r\n\r\n"
  std::uint32_t events_ = 0;
  char last_[kKept];
};

}  // namespace heng
