// The client side of HTTP/1.1: connections to one server, reused, with the answer handed over as it arrives.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "live/http1.h"
#include "live/loop.h"
#include "live/resolver.h"
#include "live/tls.h"
#include "live/transport.h"
#include "model/attempt.h"

namespace heng {

struct ExchangeFailure {
  Outcome cause = Outcome::reset;  // `canceled`: for want of descriptors or ports, which is our own trouble
  bool request_sent = false;       // some byte of the request may have reached the server
  std::string message;             // for people
};

/// Receives one answer. Exactly one of `on_response_body(..., true)` and `on_response_failed` is the last
/// call; none comes after a cancel. Views are valid during the call only.
class ResponseObserver {
 public:
  virtual ~ResponseObserver() = default;
  /// Comes with the first payload, or with the end of an answer without any.
  virtual void on_response_head(const HttpHead& head) = 0;
  /// All payload of one read, without framing; none only at the end. Comes at least once, right after the
  /// head.
  virtual void on_response_body(std::span<const std::string_view> pieces, bool complete) = 0;
  virtual void on_response_failed(const ExchangeFailure& failure) = 0;
};

struct ExchangeTimeouts {
  Duration connect = 5s;
  Duration first_byte = 600s;  // of the body
  Duration idle = 120s;
  Duration total{0};  // 0 = none
};

/// Bytes of one request, owned by the caller until the last call of the observer or the cancel.
struct RequestBytes {
  std::string_view head;
  std::string_view body;
  bool head_request = false;  // a HEAD: its answer has no body
  bool repeatable = true;     // done twice it does no harm
};

class HttpOrigin;

/// One connection and the exchange on it. Owned by its origin; valid from `send` until the observer's last
/// call.
class ClientConnection {
 public:
  ~ClientConnection();
  ClientConnection(const ClientConnection&) = delete;
  ClientConnection& operator=(const ClientConnection&) = delete;

  /// Closes the connection at once; the observer hears nothing more.
  void cancel();
  /// Stops and resumes reading the answer, for a reader further down that is slow.
  void pause() { paused_ = true; }
  void resume();
  /// The whole request has left: its bytes are not looked at any more.
  bool request_sent() const { return sent_ == request_.head.size() + request_.body.size(); }

 private:
  friend class HttpOrigin;
  enum class Phase : std::uint8_t { resolving, connecting, securing, waiting, answering, idle, closed };

  explicit ClientConnection(HttpOrigin& origin);
  void begin(const RequestBytes& request, const ExchangeTimeouts& timeouts, ResponseObserver& observer);
  void connect();
  void connect_to(const SocketAddress& address);
  void connected();
  void fail_to_connect(std::string message);
  void on_ready(FdWatch::Ready ready);
  void secure();
  void ask();
  void write_request();
  void read_available(bool until_end);
  bool is_silent();
  void take(std::string_view bytes);
  void take_head(std::string_view bytes);
  void tell_head();
  void take_body(std::string_view bytes);
  void on_end();
  void complete(bool reusable);
  void fail_exchange(Outcome cause, std::string message);
  void close();
  void expire(Instant now);

  HttpOrigin& origin_;
  Transport transport_;
  SocketAddress address_;  // while connecting
  FdWatch watch_;
  std::size_t index_ = 0;  // in the origin's table
  Phase phase_ = Phase::resolving;
  BodyFraming framing_ = BodyFraming::none;
  bool reused_ = false;
  bool keep_alive_ = true;
  bool paused_ = false;
  bool head_told_ = false;
  std::uint8_t interim_responses_ = 0;
  std::uint8_t addresses_tried_ = 0;
  llhttp_t parser_{};
  std::uint64_t remaining_ = 0;   // of a body with Content-Length
  std::uint64_t wire_bytes_ = 0;  // of a chunked body, with sizes, extensions and trailers
  std::uint64_t payload_bytes_ = 0;
  std::size_t sent_ = 0;  // of head and body together
  RequestBytes request_;
  ExchangeTimeouts timeouts_;
  Instant begun_;
  Instant last_read_;
  Instant deadline_;
  ResponseObserver* observer_ = nullptr;
  ResponseObserver* failing_ = nullptr;                         // to be told at the end of the turn
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // guards calls that come back later
  Buffer in_;  // an incomplete head, or one that has not been told yet
  std::size_t scanned_ = 0;
};

/// A server and the connections to it. Not thread-safe; must be destroyed between turns of the loop.
class HttpOrigin {
 public:
  struct Options {
    Endpoint endpoint;
    bool tls = false;
    bool tls_verify = true;
    Duration idle_timeout = 60s;  // 0 = connections are not used again
    /// From a server that has sent what belongs to no request, none is used again for that long.
    Duration distrust = std::chrono::minutes(10);
    /// Asked about the very address that is then connected to; null = any will do.
    std::function<Result<void>(const SocketAddress&)> admit;
    HeadLimits head_limits{.head_bytes = 64 << 10, .header_count = 200, .target_bytes = 8 << 10};
  };

  HttpOrigin(Loop& loop, Resolver& resolver, Options options);
  ~HttpOrigin();
  HttpOrigin(const HttpOrigin&) = delete;
  HttpOrigin& operator=(const HttpOrigin&) = delete;

  /// For connections from now on; before the first `send` to a TLS origin.
  void set_tls(TlsContext context) { tls_ = std::move(context); }
  /// Starts an exchange on an idle connection or a new one. Failures come through the observer, never from
  /// inside this call. On a reused connection that turns out dead at once, before the first byte of an
  /// answer, a repeatable request is sent once more on a new one.
  ClientConnection& send(const RequestBytes& request, const ExchangeTimeouts& timeouts,
                         ResponseObserver& observer);
  /// Closes idle connections (the server is known to be gone).
  void drop_idle();
  /// For connections and heads from now on.
  void set_limits(Duration idle_timeout, const HeadLimits& head_limits) {
    options_.idle_timeout = idle_timeout;
    options_.head_limits = head_limits;
  }
  std::size_t idle_connections() const { return idle_.size(); }
  /// How often it has sent bytes that belong to no request.
  std::uint64_t unasked() const { return unasked_; }
  const Options& options() const { return options_; }

 private:
  friend class ClientConnection;
  ClientConnection& new_connection();
  ClientConnection* take_idle();
  bool is_trusted() const { return loop_.now() >= trusted_from_; }
  void distrust();
  void sweep();
  void forget(ClientConnection& connection);

  Loop& loop_;
  Resolver& resolver_;
  Options options_;
  TlsContext tls_;
  Timer sweep_timer_;
  std::vector<std::unique_ptr<ClientConnection>> connections_;
  std::vector<ClientConnection*> idle_;  // last used last
  std::uint64_t unasked_ = 0;
  Instant trusted_from_;
  HttpHead head_;  // of the answer being taken
  std::vector<std::string_view> pieces_;
};

}  // namespace heng
