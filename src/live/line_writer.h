// Appends lines to a file from a thread of its own, so that a slow disk never holds up the loop.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "base/result.h"
#include "live/loop.h"

namespace heng {

/// Lines are gathered in memory and handed over every 100 ms or 64 KiB. When the disk cannot keep up and 16
/// MiB wait, lines are dropped and counted rather than memory filled.
class LineWriter {
 public:
  /// "-" is standard output. Opens for appending.
  static Result<std::unique_ptr<LineWriter>> open(Loop& loop, const std::string& path);
  ~LineWriter();
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  /// `line` without its newline.
  void append(std::string_view line);
  /// Opens the file anew (after it was rotated away).
  void reopen();
  std::uint64_t dropped() const { return dropped_; }

 private:
  LineWriter(Loop& loop, std::string path, int fd);
  void hand_over();
  void write_loop();

  std::string path_;
  std::string gathered_;       // the loop's
  std::uint64_t dropped_ = 0;  // the loop's
  Timer timer_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string waiting_;  // under the mutex, like all below
  int fd_;
  bool reopen_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace heng
