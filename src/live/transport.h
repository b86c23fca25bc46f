// One byte stream to a peer: a non-blocking TCP or Unix socket, with or without TLS.
#pragma once

#include <openssl/ssl.h>
#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/config.h"

namespace heng {

inline iovec as_iovec(std::string_view bytes) { return {const_cast<char*>(bytes.data()), bytes.size()}; }

struct IoResult {
  enum class State : unsigned char { ok, blocked, end, failed } state = State::ok;
  std::size_t bytes = 0;
};

/// Owns the descriptor and the TLS session. Not thread-safe.
class Transport {
 public:
  Transport() = default;
  explicit Transport(int fd) : fd_(fd) {}
  ~Transport() { close(); }
  Transport(Transport&& other) noexcept { *this = std::move(other); }
  Transport& operator=(Transport&& other) noexcept;

  /// TLS as a client, with handshake() to follow. `host` is checked against the certificate.
  Result<void> start_tls(SSL_CTX& context, const std::string& host, bool verify);
  /// TLS as a server, with handshake() to follow. Fails if memory does.
  Result<void> accept_tls(SSL_CTX& context);
  /// As far as the peer's bytes allow; `ok` when it is over. Before that there is nothing to read or write.
  IoResult handshake();
  bool handshaking() const { return ssl_ && SSL_is_init_finished(ssl_.get()) == 0; }
  /// The handshake has failed since the peer speaks HTTP without TLS: the socket is given back to that.
  bool fall_back_to_plain();

  /// Up to `bytes`; one system call (without TLS).
  IoResult read(char* to, std::size_t bytes);
  /// As much as the socket takes; one system call (without TLS).
  IoResult write(std::span<const iovec> pieces);
  void shutdown_write();
  void close();

  int fd() const { return fd_; }
  bool tls() const { return ssl_ != nullptr; }
  /// errno-like reason of the last failure, for people.
  std::string last_error() const;

 private:
  struct FreeSsl {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };
  Result<void> new_session(SSL_CTX& context);
  IoResult write_tls(std::span<const iovec> pieces);
  IoResult tls_result(int returned);

  int fd_ = -1;
  int error_ = 0;
  bool plain_http_ = false;  // is what the peer speaks instead of TLS
  std::string tls_error_;
  std::unique_ptr<SSL, FreeSsl> ssl_;
};

/// A resolved peer or local address.
struct SocketAddress {
  std::vector<char> bytes;   // sockaddr
  std::string text() const;  // "127.0.0.1:80", "[::1]:80" or "unix:/path"
  std::string host() const;  // of a Unix socket its path, "unix" where it has none
  std::uint16_t port() const;
  bool is_unix() const;
  /// The same for all addresses of one machine: IPv4 whole, of IPv6 the network; 0 for loopback and Unix.
  std::uint64_t source() const;
  bool operator==(const SocketAddress&) const = default;
};

/// Numeric addresses only; anything else fails and wants Resolver.
Result<SocketAddress> numeric_address(const Endpoint& endpoint);
/// Blocking look-up through the system's resolver, for start-up.
Result<SocketAddress> resolve_address(const Endpoint& endpoint);

/// Non-blocking, close-on-exec, no delay. Listening: with address reuse; a Unix socket is its owner's only,
/// and one left over by a program that is gone is replaced.
Result<int> tcp_listen(const SocketAddress& address);
/// `unavailable` is this machine's own want: of descriptors, memory or ports.
Result<int> tcp_connect(const SocketAddress& address);
/// Whether the handshake that tcp_connect began has succeeded.
bool tcp_connected(int fd);
/// Next waiting connection, or -1 (errno tells).
int tcp_accept(int listener, SocketAddress* peer);
SocketAddress local_address(int fd);
/// The pending error of a socket (SO_ERROR), cleared by asking.
int socket_error(int fd);

}  // namespace heng
