// Hand-over to a new process: the running one starts its program's file again, passes its listening sockets
// on, and stops accepting only when the new one says that it is ready.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "live/inherited_sockets.h"
#include "live/loop.h"

namespace heng {

/// The side of the running process. Lives on its loop.
class Successor {
 public:
  using Done = std::function<void(Result<pid_t>)>;

  /// `command`: argv of this process; its first word is looked up anew, so that an upgraded file is taken.
  Successor(Loop& loop, std::vector<std::string> command);
  ~Successor();
  Successor(const Successor&) = delete;
  Successor& operator=(const Successor&) = delete;

  bool starting() const { return process_ > 0; }
  /// Starts it with these sockets and this state. `done` hears once, never from inside this call, whether it
  /// is ready; if not, it has been ended and the error says why.
  void start(std::span<const int> sockets, std::string_view state, Done done);
  /// Ends one that is still starting; nobody hears of it.
  void cancel();

 private:
  void on_ready();
  void fail_start(const std::string& why);

  std::vector<std::string> command_;
  Loop& loop_;
  Timer timer_;
  FdWatch watch_;
  int pipe_ = -1;
  pid_t process_ = 0;
  std::string said_;
  Done done_;
};

/// The side of the new process: what it was given, and how it tells that it is ready.
class Predecessor {
 public:
  /// Nothing if this process was started by nobody's hand-over. Leaves the environment clean.
  static std::optional<Predecessor> from_environment();
  ~Predecessor();
  Predecessor(Predecessor&& other) noexcept;
  Predecessor& operator=(Predecessor&&) = delete;

  InheritedSockets& sockets() { return sockets_; }
  const std::string& state() const { return state_; }
  void say_ready();
  /// The predecessor goes on, and tells this to whoever asked for the hand-over.
  void say_failed(std::string_view why);

 private:
  Predecessor(int pipe, std::string state, InheritedSockets sockets);
  void say(std::string_view text);

  int pipe_;
  std::string state_;
  InheritedSockets sockets_;
};

}  // namespace heng
