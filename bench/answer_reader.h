// Reads HTTP/1.1 answers one after the other from a connection, strictly enough to notice a proxy's mistakes.
#pragma once

#include <charconv>
#include <string>
#include <string_view>

namespace heng::bench {

class AnswerReader {
 public:
  enum class Progress { more, done, broken };

  /// Consumes bytes of one answer and appends its decoded body to `body`. After `done` the next call starts
  /// the next answer; bytes after the end are `broken`, since the load never pipelines.
  Progress feed(std::string_view in, std::string& body) {
    while (!in.empty()) {
      switch (state_) {
        case State::head:
          if (!take_until(in, "\r\n\r\n")) return more_unless(line_.size() > 16384);
          if (!read_head()) return Progress::broken;
          line_.clear();
          if (state_ == State::fixed && left_ == 0) return finish(in);
          break;
        case State::fixed:
          take_data(in, body);
          if (left_ == 0) return finish(in);
          break;
        case State::chunk_size:
          if (!take_until(in, "\r\n")) return more_unless(line_.size() > 64);
          if (!read_chunk_size()) return Progress::broken;
          line_.clear();
          break;
        case State::chunk:
          take_data(in, body);
          if (left_ == 0) state_ = State::chunk_end;
          break;
        case State::chunk_end:
        case State::last_end:
          if (!take_until(in, "\r\n")) return more_unless(line_.size() > 1);
          if (line_.size() != 2) return Progress::broken;
          line_.clear();
          if (state_ == State::last_end) return finish(in);
          state_ = State::chunk_size;
          break;
      }
    }
    return Progress::more;
  }

  int status() const { return status_; }

 private:
  enum class State { head, fixed, chunk_size, chunk, chunk_end, last_end };

  static Progress more_unless(bool broken) { return broken ? Progress::broken : Progress::more; }

  Progress finish(std::string_view rest) {
    state_ = State::head;
    return rest.empty() ? Progress::done : Progress::broken;
  }

  /// Moves bytes up to and including `mark` from `in` to `line_`; false if the mark has not come yet.
  bool take_until(std::string_view& in, std::string_view mark) {
    std::size_t from = line_.size() < mark.size() ? 0 : line_.size() - mark.size() + 1;
    std::size_t before = line_.size();
    line_ += in;
    std::size_t at = line_.find(mark, from);
    if (at == std::string::npos) {
      in = {};
      return false;
    }
    line_.resize(at + mark.size());
    in.remove_prefix(line_.size() - before);
    return true;
  }

  void take_data(std::string_view& in, std::string& body) {
    std::size_t part = std::min(left_, in.size());
    body.append(in.substr(0, part));
    in.remove_prefix(part);
    left_ -= part;
  }

  bool read_head() {
    if (!line_.starts_with("HTTP/1.1 ")) return false;
    std::from_chars(line_.data() + 9, line_.data() + 12, status_);
    for (char& c : line_) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    if (line_.find("\r\ntransfer-encoding: chunked\r\n") != std::string::npos) {
      state_ = State::chunk_size;
      return true;
    }
    static constexpr std::string_view kLength = "\r\ncontent-length: ";
    std::size_t at = line_.find(kLength);
    if (at == std::string::npos) return false;
    auto parsed = std::from_chars(line_.data() + at + kLength.size(), line_.data() + line_.size(), left_);
    state_ = State::fixed;
    return parsed.ec == std::errc();
  }

  bool read_chunk_size() {
    auto parsed = std::from_chars(line_.data(), line_.data() + line_.size(), left_, 16);
    state_ = left_ == 0 ? State::last_end : State::chunk;
    return parsed.ec == std::errc();
  }

  State state_ = State::head;
  std::string line_;
  std::size_t left_ = 0;
  int status_ = 0;
};

}  // namespace heng::bench
