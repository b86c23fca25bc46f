// clone, exec, and a pipe between the two processes.
#include "app/handover.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

extern char** environ;

namespace heng {

namespace {

constexpr const char* kVariable = "HENG_HANDOVER";  // "PIPE STATE SOCKET...": descriptors of the new process
constexpr std::string_view kReady = "ready\n";
constexpr Duration kStartMax = 20s;  // below the 30 s that `heng handover` waits

/// What the new process needs between clone and exec, where it may not allocate: it shares our memory.
struct Launch {
  std::vector<char*> command;
  std::vector<char*> environment;
  std::vector<int> descriptors;
  int pipe = -1;
  sigset_t mask{};
};

int launch(void* argument) {
  const Launch& launch = *static_cast<Launch*>(argument);
  for (const int number : {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2}) ::signal(number, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &launch.mask, nullptr);
  for (const int fd : launch.descriptors) ::fcntl(fd, F_SETFD, 0);
  ::execvpe(launch.command[0], launch.command.data(), launch.environment.data());
  const char* why = std::strerror(errno);
  for (const char* part : {"cannot start ", static_cast<const char*>(launch.command[0]), ": ", why}) {
    static_cast<void>(!::write(launch.pipe, part, std::strlen(part)));
  }
  ::_exit(127);
}

/// The new process is our sibling, not our child: whoever supervises us supervises it in the same way, and
/// hears of its end.
pid_t launch_sibling(Launch& launch_) {
  alignas(16) static std::array<char, 64 << 10> stack;  // used by one call at a time, until exec
  sigset_t all;
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, &launch_.mask);
  const pid_t process =
      ::clone(launch, stack.data() + stack.size(), CLONE_VM | CLONE_VFORK | CLONE_PARENT | SIGCHLD, &launch_);
  const int error = errno;
  ::sigprocmask(SIG_SETMASK, &launch_.mask, nullptr);
  errno = error;
  return process;
}

/// A file in memory, to be read from its start.
int state_file(std::string_view state) {
  const int fd = ::memfd_create("heng-handover", MFD_CLOEXEC);
  while (fd >= 0 && !state.empty()) {
    const ssize_t put = ::write(fd, state.data(), state.size());
    if (put <= 0) break;
    state.remove_prefix(static_cast<std::size_t>(put));
  }
  return fd;
}

std::string read_state(int fd) {
  std::string state;
  std::array<char, 64 << 10> piece;
  while (true) {
    const ssize_t got = ::pread(fd, piece.data(), piece.size(), static_cast<off_t>(state.size()));
    if (got <= 0) return state;
    state.append(piece.data(), static_cast<std::size_t>(got));
  }
}

}  // namespace

// --- the running process ---

Successor::Successor(Loop& loop, std::vector<std::string> command)
    : command_(std::move(command)), loop_(loop), timer_(loop, [this] {
        fail_start(fmt::format("it was not ready within {:.0f} s", to_seconds(kStartMax)));
      }) {}

Successor::~Successor() { cancel(); }

void Successor::start(std::span<const int> sockets, std::string_view state, Done done) {
  HENG_ASSERT(!starting());
  std::array<int, 2> ends{-1, -1};
  const int state_fd = ::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) == 0 ? state_file(state) : -1;
  Launch launch;
  launch.pipe = ends[1];
  launch.descriptors = {ends[1], state_fd};
  launch.descriptors.insert(launch.descriptors.end(), sockets.begin(), sockets.end());
  for (std::string& word : command_) launch.command.push_back(word.data());
  std::string variable = fmt::format("{}={}", kVariable, fmt::join(launch.descriptors, " "));
  for (char** entry = environ; *entry != nullptr; ++entry) launch.environment.push_back(*entry);
  launch.environment.push_back(variable.data());
  launch.command.push_back(nullptr);
  launch.environment.push_back(nullptr);
  const pid_t process = state_fd < 0 ? -1 : launch_sibling(launch);
  const int error = errno;
  if (state_fd >= 0) ::close(state_fd);
  if (ends[1] >= 0) ::close(ends[1]);
  if (process < 0) {
    if (ends[0] >= 0) ::close(ends[0]);
    return loop_.defer([done = std::move(done), error] {
      done(fail(ErrorCode::io, fmt::format("no new process could be started: {}", std::strerror(error))));
    });
  }
  done_ = std::move(done);
  process_ = process;
  pipe_ = ends[0];
  said_.clear();
  timer_.once(kStartMax);
  watch_.start(
      loop_, pipe_, [](void* self, FdWatch::Ready) { static_cast<Successor*>(self)->on_ready(); }, this);
}

void Successor::on_ready() {
  std::array<char, 4096> piece;
  while (true) {
    const ssize_t got = ::read(pipe_, piece.data(), piece.size());
    if (got < 0) return;  // more is to come
    said_.append(piece.data(), static_cast<std::size_t>(got));
    if (said_ == kReady) {
      const pid_t process = std::exchange(process_, 0);
      cancel();
      return std::exchange(done_, nullptr)(process);
    }
    if (got == 0) return fail_start(said_.empty() ? "it ended before it was ready; its log says why" : said_);
  }
}

void Successor::fail_start(const std::string& why) {
  cancel();
  std::exchange(done_, nullptr)(fail(ErrorCode::unavailable, "the new process did not take over: " + why));
}

void Successor::cancel() {
  timer_.stop();
  watch_.stop();
  if (pipe_ >= 0) ::close(std::exchange(pipe_, -1));
  if (process_ > 0) ::kill(std::exchange(process_, 0), SIGKILL);
}

// --- the new process ---

std::optional<Predecessor> Predecessor::from_environment() {
  const char* given = std::getenv(kVariable);
  if (given == nullptr) return std::nullopt;
  std::vector<int> descriptors;
  for (char* end = nullptr;; given = end) {
    const long fd = std::strtol(given, &end, 10);
    if (end == given) break;
    if (::fcntl(static_cast<int>(fd), F_SETFD, FD_CLOEXEC) == 0) descriptors.push_back(static_cast<int>(fd));
  }
  ::unsetenv(kVariable);
  if (descriptors.size() < 2) return std::nullopt;
  std::string state = read_state(descriptors[1]);
  ::close(descriptors[1]);
  return Predecessor(descriptors[0], std::move(state), InheritedSockets(std::span(descriptors).subspan(2)));
}

Predecessor::Predecessor(int pipe, std::string state, InheritedSockets sockets)
    : pipe_(pipe), state_(std::move(state)), sockets_(std::move(sockets)) {}

Predecessor::Predecessor(Predecessor&& other) noexcept
    : pipe_(std::exchange(other.pipe_, -1)),
      state_(std::move(other.state_)),
      sockets_(std::move(other.sockets_)) {}

Predecessor::~Predecessor() {
  if (pipe_ >= 0) ::close(pipe_);
}

void Predecessor::say_ready() { say(kReady); }

void Predecessor::say_failed(std::string_view why) { say(why); }

void Predecessor::say(std::string_view text) {
  static_cast<void>(!::write(pipe_, text.data(), text.size()));
  ::close(std::exchange(pipe_, -1));
}

}  // namespace heng
