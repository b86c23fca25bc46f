// The writing thread of a line file.
#include "live/line_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <fstream>

namespace heng {

namespace {

constexpr std::size_t kHandOverBytes = 64 << 10;
constexpr std::size_t kWaitingMax = 16 << 20;
constexpr Duration kComplainEvery = 10s;
constexpr int kLastWordsMs = 1000;  // at the end, for a pipe that nobody reads

bool is_regular_file(int fd) {
  struct stat about{};
  return ::fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
}

/// Whether what somebody else has written breaks off inside a line.
bool ends_inside_line(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file || file.tellg() <= 0) return false;
  file.seekg(-1, std::ios::end);
  return file.get() != '\n';
}

int open_for_append(const std::string& path) {
  return path == "-" ? ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0)
                     : ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

}  // namespace

Result<std::unique_ptr<LineWriter>> LineWriter::open(Loop& loop, const std::string& path, std::string what,
                                                     AfterLoss after_loss) {
  const int fd = open_for_append(path);
  if (fd < 0) return fail(ErrorCode::io, fmt::format("cannot write '{}': {}", path, std::strerror(errno)));
  return std::unique_ptr<LineWriter>(new LineWriter(loop, path, std::move(what), after_loss, fd));
}

LineWriter::LineWriter(Loop& loop, std::string path, std::string what, AfterLoss after_loss, int fd)
    : path_(std::move(path)),
      what_(std::move(what)),
      after_loss_(after_loss),
      timer_(loop,
             [this, &loop] {
               hand_over();
               if (const int error = reopen_error_.exchange(0); error != 0) {
                 spdlog::error("{} '{}' cannot be opened anew: {}; lines go on into the file that was open",
                               what_, path_, std::strerror(error));
               }
               if (error_ != 0 && loop.now() >= quiet_until_) {
                 quiet_until_ = loop.now() + kComplainEvery;
                 complain();
               }
             }),
      fd_(fd),
      is_file_(is_regular_file(fd)),
      torn_(is_file_ && ends_inside_line(path_)) {
  // Signals belong to the loop's thread.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { write_loop(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  timer_.every(100ms);
}

LineWriter::~LineWriter() {
  hand_over();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
  ::close(fd_);
}

void LineWriter::append(std::string_view line) {
  if (stopped()) return;
  gathered_ += line;
  gathered_ += '\n';
  if (gathered_.size() >= kHandOverBytes) hand_over();
}

void LineWriter::reopen() {
  {
    const std::lock_guard lock(mutex_);
    reopen_ = true;
  }
  wake_.notify_one();
}

void LineWriter::hand_over() {
  if (gathered_.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty()) {
      waiting_.swap(gathered_);
    } else if (waiting_.size() + gathered_.size() <= kWaitingMax) {
      waiting_ += gathered_;
    } else {
      dropped_ += static_cast<std::uint64_t>(std::ranges::count(gathered_, '\n'));
      if (after_loss_ == AfterLoss::stop) error_ = ENOBUFS;
    }
  }
  gathered_.clear();
  wake_.notify_one();
}

void LineWriter::complain() {
  const int error = error_.exchange(0);
  const char* const why = error == ENOBUFS ? "the disk is too slow" : std::strerror(error);
  if (after_loss_ == AfterLoss::stop) {
    spdlog::error("{} '{}' ends here: {}; serving goes on", what_, path_, why);
  } else {
    spdlog::error("{} '{}': {}; {} line(s) lost so far, serving goes on (heng_access_log_dropped_total)",
                  what_, path_, why, refused_.load());
  }
}

/// False when nobody has read a full pipe for a second after the end was asked for.
bool LineWriter::wait_for_room() {
  pollfd room{.fd = fd_, .events = POLLOUT, .revents = 0};
  for (int waited_ms = 0; waited_ms < kLastWordsMs;) {
    if (::poll(&room, 1, 100) != 0) return true;  // errors are told by the write
    const std::lock_guard lock(mutex_);
    if (stopping_) waited_ms += 100;
  }
  errno = EAGAIN;
  return false;
}

ssize_t LineWriter::put(std::string_view bytes) {
  ssize_t written = -1;
  do {
    written = wait_for_room() ? ::write(fd_, bytes.data(), bytes.size()) : -1;
  } while (written < 0 && errno == EINTR);
  return written;
}

void LineWriter::write_all(std::string_view lines) {
  const auto lose = [&] {
    error_ = errno;
    refused_ += static_cast<std::uint64_t>(std::ranges::count(lines, '\n'));
  };
  if (after_loss_ == AfterLoss::stop && refused_ != 0) return;
  if (torn_ && put("\n") < 0) return lose();
  while (!lines.empty()) {
    std::string_view piece = lines;
    if (piece.size() > PIPE_BUF && !is_file_) {
      // A pipe with room takes so much at once; with more we might wait where nobody can call us back.
      piece = piece.substr(0, PIPE_BUF);
      if (const std::size_t end = piece.rfind('\n'); end != piece.npos) piece = piece.substr(0, end + 1);
    }
    const ssize_t written = put(piece);
    if (written < 0) return lose();
    torn_ = piece[static_cast<std::size_t>(written) - 1] != '\n';
    lines.remove_prefix(static_cast<std::size_t>(written));
  }
}

void LineWriter::write_loop() {
  std::string lines;
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || reopen_ || !waiting_.empty(); });
    lines.swap(waiting_);
    const bool last = stopping_;
    const bool reopen = std::exchange(reopen_, false);
    lock.unlock();
    write_all(lines);
    lines.clear();
    if (reopen) {
      if (const int fd = open_for_append(path_); fd >= 0) {
        ::close(fd_);
        fd_ = fd;
        is_file_ = is_regular_file(fd);
        torn_ = false;
      } else {
        reopen_error_ = errno;
      }
    }
    lock.lock();
    if (last && waiting_.empty()) return;
  }
}

}  // namespace heng
