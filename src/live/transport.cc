// Sockets and TLS sessions.
#include "live/transport.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include <fmt/format.h>

namespace heng {

Transport& Transport::operator=(Transport&& other) noexcept {
  if (this == &other) return *this;
  close();
  fd_ = std::exchange(other.fd_, -1);
  error_ = other.error_;
  tls_error_ = std::move(other.tls_error_);
  ssl_ = std::move(other.ssl_);
  return *this;
}

Result<void> Transport::new_session(SSL_CTX& context) {
  ssl_.reset(SSL_new(&context));
  if (!ssl_ || SSL_set_fd(ssl_.get(), fd_) != 1)
    return fail(ErrorCode::io, "out of memory for a TLS session");
  return {};
}

Result<void> Transport::accept_tls(SSL_CTX& context) {
  auto begun = new_session(context);
  if (begun) SSL_set_accept_state(ssl_.get());
  return begun;
}

IoResult Transport::handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  return result == 1 ? IoResult{} : tls_result(result);
}

bool Transport::fall_back_to_plain() {
  if (plain_http_) ssl_.reset();
  return plain_http_;
}

Result<void> Transport::start_tls(SSL_CTX& context, const std::string& host, bool verify) {
  if (auto begun = new_session(context); !begun) return begun;
  SSL_set_connect_state(ssl_.get());
  in6_addr ignored{};
  const bool is_address =
      inet_pton(AF_INET, host.c_str(), &ignored) == 1 || inet_pton(AF_INET6, host.c_str(), &ignored) == 1;
  if (!is_address) SSL_set_tlsext_host_name(ssl_.get(), host.c_str());
  if (verify) {
    SSL_set_verify(ssl_.get(), SSL_VERIFY_PEER, nullptr);
    X509_VERIFY_PARAM* expected = SSL_get0_param(ssl_.get());
    const int set = is_address ? X509_VERIFY_PARAM_set1_ip_asc(expected, host.c_str())
                               : X509_VERIFY_PARAM_set1_host(expected, host.c_str(), host.size());
    if (set != 1)
      return fail(ErrorCode::invalid, fmt::format("'{}' cannot be checked against a certificate", host));
  }
  return {};
}

IoResult Transport::read(char* to, std::size_t bytes) {
  if (ssl_) {
    ERR_clear_error();
    const int got = SSL_read(ssl_.get(), to, static_cast<int>(bytes));
    if (got > 0) return {IoResult::State::ok, static_cast<std::size_t>(got)};
    return tls_result(got);
  }
  const ssize_t got = ::recv(fd_, to, bytes, 0);
  if (got > 0) return {IoResult::State::ok, static_cast<std::size_t>(got)};
  if (got == 0) return {IoResult::State::end, 0};
  if (errno == EAGAIN || errno == EINTR) return {IoResult::State::blocked, 0};
  error_ = errno;
  return {IoResult::State::failed, 0};
}

IoResult Transport::write(std::span<const iovec> pieces) {
  if (ssl_) return write_tls(pieces);
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());
  message.msg_iovlen = pieces.size();
  const ssize_t put = pieces.size() == 1 ? ::send(fd_, pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL)
                                         : ::sendmsg(fd_, &message, MSG_NOSIGNAL);
  if (put >= 0) return {IoResult::State::ok, static_cast<std::size_t>(put)};
  if (errno == EAGAIN || errno == EINTR) return {IoResult::State::blocked, 0};
  error_ = errno;
  return {IoResult::State::failed, 0};
}

/// Small pieces share a record and a system call. What was tried and did not fit must be tried again first:
/// the callers keep the order.
IoResult Transport::write_tls(std::span<const iovec> pieces) {
  constexpr std::size_t kRecordBytes = 16 << 10;
  static thread_local std::array<char, kRecordBytes> record;
  std::size_t total = 0;
  std::size_t filled = 0;
  std::size_t offset = 0;  // in the first of `pieces`
  while (true) {
    while (!pieces.empty() && filled < kRecordBytes) {
      const iovec& piece = pieces.front();
      const std::size_t part = std::min(piece.iov_len - offset, kRecordBytes - filled);
      if (part != 0)
        std::memcpy(record.data() + filled, static_cast<const char*>(piece.iov_base) + offset, part);
      filled += part;
      offset += part;
      if (offset < piece.iov_len) break;
      pieces = pieces.subspan(1);
      offset = 0;
    }
    if (filled == 0) return {IoResult::State::ok, total};
    ERR_clear_error();
    const int put = SSL_write(ssl_.get(), record.data(), static_cast<int>(filled));
    if (put <= 0) {
      const IoResult result = tls_result(put);
      const bool some = total > 0 && result.state == IoResult::State::blocked;
      return some ? IoResult{IoResult::State::ok, total} : result;
    }
    total += static_cast<std::size_t>(put);
    filled -= static_cast<std::size_t>(put);
    if (filled != 0) std::memmove(record.data(), record.data() + put, filled);
  }
}

IoResult Transport::tls_result(int returned) {
  switch (SSL_get_error(ssl_.get(), returned)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      return {IoResult::State::blocked, 0};
    case SSL_ERROR_ZERO_RETURN:
      return {IoResult::State::end, 0};
    case SSL_ERROR_SYSCALL:
      error_ = errno;
      break;
    default: {
      plain_http_ = ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST;
      // Name the certificate problem: "certificate verify failed" alone sends people searching.
      const long verified = SSL_get_verify_result(ssl_.get());
      const char* reason = verified == X509_V_OK ? ERR_reason_error_string(ERR_get_error())
                                                 : X509_verify_cert_error_string(verified);
      tls_error_ = reason == nullptr ? "TLS failed" : fmt::format("TLS: {}", reason);
    }
  }
  return {IoResult::State::failed, 0};
}

void Transport::shutdown_write() {
  if (ssl_) SSL_shutdown(ssl_.get());
  ::shutdown(fd_, SHUT_WR);
}

void Transport::close() {
  ssl_.reset();
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

std::string Transport::last_error() const {
  if (!tls_error_.empty()) return tls_error_;
  return error_ == 0 ? "closed by the peer" : std::strerror(error_);
}

namespace {

SocketAddress unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  HENG_ASSERT(path.size() < sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  const char* bytes = reinterpret_cast<const char*>(&address);
  return {std::vector<char>(bytes, bytes + offsetof(sockaddr_un, sun_path) + path.size() + 1)};
}

Result<SocketAddress> look_up(const Endpoint& endpoint, int flags) {
  if (endpoint.is_unix()) return unix_address(endpoint.host);
  addrinfo hints{};
  hints.ai_flags = flags | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
  if (code != 0) {
    return fail(ErrorCode::not_found,
                fmt::format("cannot resolve '{}': {}", endpoint.host, gai_strerror(code)));
  }
  const char* bytes = reinterpret_cast<const char*>(found->ai_addr);
  SocketAddress address{std::vector<char>(bytes, bytes + found->ai_addrlen)};
  freeaddrinfo(found);
  return address;
}

const sockaddr* as_sockaddr(const SocketAddress& address) {
  return reinterpret_cast<const sockaddr*>(address.bytes.data());
}

}  // namespace

std::string SocketAddress::host() const {
  char text[INET6_ADDRSTRLEN] = "";
  const sockaddr* address = as_sockaddr(*this);
  if (bytes.empty()) return "";
  if (is_unix()) {
    constexpr std::size_t kPathAt = offsetof(sockaddr_un, sun_path);
    return bytes.size() > kPathAt && bytes[kPathAt] != 0 ? std::string(&bytes[kPathAt]) : "unix";
  }
  if (address->sa_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, text, sizeof text);
  } else {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text, sizeof text);
  }
  return text;
}

std::uint16_t SocketAddress::port() const {
  if (bytes.empty() || is_unix()) return 0;
  const sockaddr* address = as_sockaddr(*this);
  return ntohs(address->sa_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(address)->sin6_port
                                              : reinterpret_cast<const sockaddr_in*>(address)->sin_port);
}

bool SocketAddress::is_unix() const { return !bytes.empty() && as_sockaddr(*this)->sa_family == AF_UNIX; }

std::uint64_t SocketAddress::source() const {
  if (bytes.empty() || is_unix()) return 0;
  std::uint32_t four = 0;
  if (as_sockaddr(*this)->sa_family == AF_INET6) {
    const in6_addr& six = reinterpret_cast<const sockaddr_in6*>(as_sockaddr(*this))->sin6_addr;
    if (IN6_IS_ADDR_LOOPBACK(&six)) return 0;
    if (!IN6_IS_ADDR_V4MAPPED(&six)) {
      std::uint64_t network = 0;
      std::memcpy(&network, &six, sizeof network);
      return network;
    }
    std::memcpy(&four, &six.s6_addr[12], sizeof four);
  } else {
    four = reinterpret_cast<const sockaddr_in*>(as_sockaddr(*this))->sin_addr.s_addr;
  }
  const bool loopback = ntohl(four) >> 24 == 127;
  return loopback ? 0 : four;
}

std::string SocketAddress::text() const {
  if (is_unix()) return "unix:" + host();
  const std::string name = host();
  return name.find(':') == std::string::npos ? fmt::format("{}:{}", name, port())
                                             : fmt::format("[{}]:{}", name, port());
}

Result<SocketAddress> numeric_address(const Endpoint& endpoint) { return look_up(endpoint, AI_NUMERICHOST); }

Result<SocketAddress> resolve_address(const Endpoint& endpoint) { return look_up(endpoint, AI_ADDRCONFIG); }

namespace {

Result<int> new_socket(const SocketAddress& address) {
  const int fd = ::socket(as_sockaddr(address)->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    const bool none_left = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    return fail(none_left ? ErrorCode::unavailable : ErrorCode::io,
                fmt::format("socket: {}", std::strerror(errno)));
  }
  const int on = 1;
  if (!address.is_unix()) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

void remove_if_left_over(const SocketAddress& address) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int tried = ::connect(fd, as_sockaddr(address), static_cast<socklen_t>(address.bytes.size()));
  if (tried != 0 && errno == ECONNREFUSED) ::unlink(address.host().c_str());
  ::close(fd);
}

}  // namespace

Result<int> tcp_listen(const SocketAddress& address) {
  Result<int> fd = new_socket(address);
  if (!fd) return fd;
  const int on = 1;
  ::setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.is_unix()) {
    remove_if_left_over(address);
    ::fchmod(*fd, S_IRUSR | S_IWUSR);  // before bind: the file never has other permissions
  }
  if (::bind(*fd, as_sockaddr(address), static_cast<socklen_t>(address.bytes.size())) != 0 ||
      ::listen(*fd, SOMAXCONN) != 0) {
    const int error = errno;
    ::close(*fd);
    const char* hint = error == EADDRINUSE ? " (is another program, or another heng, using it?)" : "";
    return fail(ErrorCode::io,
                fmt::format("cannot listen on {}: {}{}", address.text(), std::strerror(error), hint));
  }
  return fd;
}

Result<int> tcp_connect(const SocketAddress& address) {
  Result<int> fd = new_socket(address);
  if (!fd) return fd;
  if (::connect(*fd, as_sockaddr(address), static_cast<socklen_t>(address.bytes.size())) != 0 &&
      errno != EINPROGRESS) {
    const int error = errno;
    ::close(*fd);
    const bool none_left = error == EADDRNOTAVAIL || error == EAGAIN;
    return fail(none_left ? ErrorCode::unavailable : ErrorCode::refused,
                fmt::format("connect to {}: {}", address.text(), std::strerror(error)));
  }
  return fd;
}

bool tcp_connected(int fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  return ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

int tcp_accept(int listener, SocketAddress* peer) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  const int fd =
      ::accept4(listener, reinterpret_cast<sockaddr*>(&storage), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return -1;
  const int on = 1;
  if (storage.ss_family != AF_UNIX) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const char* bytes = reinterpret_cast<const char*>(&storage);
  if (peer != nullptr) peer->bytes.assign(bytes, bytes + size);
  return fd;
}

SocketAddress local_address(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size);
  const char* bytes = reinterpret_cast<const char*>(&storage);
  return {std::vector<char>(bytes, bytes + size)};
}

int socket_error(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

}  // namespace heng
