// Appends lines to a file from a thread of its own, so that a slow disk never holds up the loop.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "base/result.h"
#include "live/loop.h"

namespace heng {

/// What becomes of a file of which lines were lost.
enum class AfterLoss : std::uint8_t {
  go_on,  // later lines are written again as soon as that is possible
  stop,   // nothing comes after the first line that was lost
};

/// Lines are gathered in memory and handed over every 100 ms or 64 KiB. When the disk cannot keep up and 16
/// MiB wait, or when it refuses them (full, broken, pipe closed), lines are dropped and counted.
class LineWriter {
 public:
  /// "-" is standard output. Opens for appending; a line that was left unfinished there is ended. `what`: for
  /// messages, as in "access log".
  static Result<std::unique_ptr<LineWriter>> open(Loop& loop, const std::string& path, std::string what,
                                                  AfterLoss after_loss = AfterLoss::go_on);
  ~LineWriter();
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  /// `line` without its newline.
  void append(std::string_view line);
  /// Opens the file anew (after it was rotated away). If that fails, the log says so and the file that was
  /// open goes on.
  void reopen();
  std::uint64_t dropped() const { return dropped_ + refused_; }
  /// Lines were lost, and no more are taken.
  bool stopped() const { return after_loss_ == AfterLoss::stop && dropped() != 0; }

 private:
  LineWriter(Loop& loop, std::string path, std::string what, AfterLoss after_loss, int fd);
  void hand_over();
  void complain();
  void write_loop();
  void write_all(std::string_view lines);
  ssize_t put(std::string_view bytes);
  bool wait_for_room();

  std::string path_;
  std::string what_;
  AfterLoss after_loss_;
  std::string gathered_;  // the loop's, like the next two
  std::uint64_t dropped_ = 0;
  Instant quiet_until_{};  // no more complaints before
  Timer timer_;
  std::atomic<std::uint64_t> refused_ = 0;  // lines that the disk did not take
  std::atomic<int> error_ = 0;              // why, since the last complaint
  std::atomic<int> reopen_error_ = 0;       // to be told by the loop's thread
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string waiting_;  // under the mutex, like the next two
  bool reopen_ = false;
  bool stopping_ = false;
  int fd_;  // the thread's, like the next two
  bool is_file_;
  bool torn_ = false;  // the file ends inside a line
  std::thread thread_;
};

}  // namespace heng
