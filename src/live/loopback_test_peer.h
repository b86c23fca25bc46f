// For tests: turning a loop until something holds, and a peer whose bytes on the wire the test itself
// decides.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <string_view>

#include "live/loop.h"
#include "live/transport.h"

namespace heng {

/// Turns a loop until a condition holds, which is looked at every millisecond.
class TurnedLoop {
 public:
  TurnedLoop() : tick_(loop_, [this] { loop_.stop(); }) { tick_.every(1ms); }

  Loop& loop() { return loop_; }
  void turn() { loop_.run(); }

  /// False if the condition still does not hold after ten seconds, which only a bug takes.
  template <class Condition>
  bool until(Condition condition) {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > give_up) return false;
      turn();
    }
    return true;
  }

  /// Enough turns for all that is under way on loopback to arrive, to see that something does not happen.
  void settle() {
    for (int i = 0; i < 20; ++i) turn();
  }

 private:
  Loop loop_;
  Timer tick_;
};

/// One end of a TCP connection, never blocking. Reads only when asked to.
class Peer {
 public:
  Peer() = default;
  explicit Peer(int fd) : transport_(fd) {}

  static Peer connect_to(const Endpoint& endpoint) {
    const int fd = tcp_connect(numeric_address(endpoint).value()).value();
    return Peer(fd);
  }

  /// Connected; the other side may not have noticed yet.
  bool established() const {
    sockaddr_storage address;
    socklen_t size = sizeof address;
    return ::getpeername(transport_.fd(), reinterpret_cast<sockaddr*>(&address), &size) == 0;
  }

  /// Sends what the socket takes; the number of bytes.
  std::size_t send_some(std::string_view bytes) {
    const ssize_t put = ::send(transport_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    return put < 0 ? 0 : static_cast<std::size_t>(put);
  }
  void send(std::string_view bytes) { EXPECT_EQ(send_some(bytes), bytes.size()); }

  /// Takes what has come, at most `bytes`.
  Peer& read(std::size_t bytes = 1 << 20) {
    std::string chunk(bytes, '\0');
    while (bytes > 0 && !ended && !broken) {
      const IoResult result = transport_.read(chunk.data(), bytes);
      if (result.state == IoResult::State::blocked) break;
      ended = result.state == IoResult::State::end;
      broken = result.state == IoResult::State::failed;
      got.append(chunk, 0, result.bytes);
      bytes -= result.bytes;
    }
    return *this;
  }

  void half_close() { transport_.shutdown_write(); }
  void close() { transport_.close(); }
  /// Closes with a reset.
  void reset() {
    const linger hard{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(transport_.fd(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    transport_.close();
  }

  std::string got;      // all bytes read and not taken away by the test
  bool ended = false;   // the other side has closed cleanly
  bool broken = false;  // ... or with a reset

 private:
  Transport transport_;
};

}  // namespace heng
