// Descriptors from the environment, told apart by their local addresses.
#include "live/inherited_sockets.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace heng {

namespace {

bool is_listening(int fd) {
  int listening = 0;
  socklen_t size = sizeof listening;
  return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening != 0;
}

}  // namespace

InheritedSockets::~InheritedSockets() {
  for (const int fd : descriptors_) ::close(fd);
}

InheritedSockets InheritedSockets::from_systemd() {
  constexpr int kFirst = 3;
  const char* process = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  std::vector<int> descriptors;
  if (process != nullptr && count != nullptr && std::atoi(process) == ::getpid()) {
    for (int fd = kFirst; fd < kFirst + std::atoi(count); ++fd) {
      if (is_listening(fd)) descriptors.push_back(fd);
    }
  }
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  return InheritedSockets(descriptors);
}

int InheritedSockets::take(const SocketAddress& address) {
  const auto found = std::ranges::find_if(descriptors_, [&](int fd) {
    const SocketAddress local = local_address(fd);
    return local.text() == address.text() || (address.port() == 0 && local.host() == address.host());
  });
  if (found == descriptors_.end()) return -1;
  const int fd = *found;
  descriptors_.erase(found);
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  return fd;
}

std::vector<std::string> InheritedSockets::left() const {
  std::vector<std::string> addresses;
  for (const int fd : descriptors_) addresses.push_back(local_address(fd).text());
  return addresses;
}

}  // namespace heng
