// Listening sockets that were open before this process began.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "live/transport.h"

namespace heng {

/// Owns descriptors until they are taken; those nobody takes are closed with it.
class InheritedSockets {
 public:
  InheritedSockets() = default;
  explicit InheritedSockets(std::span<const int> descriptors)
      : descriptors_(descriptors.begin(), descriptors.end()) {}
  ~InheritedSockets();
  InheritedSockets(InheritedSockets&& other) noexcept : descriptors_(std::exchange(other.descriptors_, {})) {}
  InheritedSockets& operator=(InheritedSockets&& other) noexcept {
    std::swap(descriptors_, other.descriptors_);
    return *this;
  }

  /// Those of systemd's socket activation (sd_listen_fds: LISTEN_PID, LISTEN_FDS), which leave the
  /// environment.
  static InheritedSockets from_systemd();

  /// The one that listens at this address, or -1; the caller's from here on. An address with port 0 takes the
  /// first of its host.
  int take(const SocketAddress& address);
  /// Where those listen that have not been taken.
  std::vector<std::string> left() const;

 private:
  std::vector<int> descriptors_;
};

}  // namespace heng
