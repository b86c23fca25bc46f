// The writing thread of a line file.
#include "live/line_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

namespace heng {

namespace {

constexpr std::size_t kHandOverBytes = 64 << 10;
constexpr std::size_t kWaitingMax = 16 << 20;

int open_for_append(const std::string& path) {
  return path == "-" ? ::dup(STDOUT_FILENO)
                     : ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

}  // namespace

Result<std::unique_ptr<LineWriter>> LineWriter::open(Loop& loop, const std::string& path) {
  const int fd = open_for_append(path);
  if (fd < 0) return fail(ErrorCode::io, fmt::format("cannot write '{}': {}", path, std::strerror(errno)));
  return std::unique_ptr<LineWriter>(new LineWriter(loop, path, fd));
}

LineWriter::LineWriter(Loop& loop, std::string path, int fd)
    : path_(std::move(path)), timer_(loop, [this] { hand_over(); }), fd_(fd) {
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
    }
  }
  gathered_.clear();
  wake_.notify_one();
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
    for (std::size_t done = 0; done < lines.size();) {
      const ssize_t put = ::write(fd_, lines.data() + done, lines.size() - done);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) {
        spdlog::error("access log '{}': {}; {} bytes lost", path_, std::strerror(errno), lines.size() - done);
        break;
      }
      done += static_cast<std::size_t>(put);
    }
    lines.clear();
    if (reopen) {
      if (const int fd = open_for_append(path_); fd >= 0) {
        ::close(fd_);
        fd_ = fd;
      }
    }
    lock.lock();
    if (last && waiting_.empty()) return;
  }
}

}  // namespace heng
