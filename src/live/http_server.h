// An HTTP/1.1 server on a Loop: accepts connections, owns them, and ends those that take too long.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "config/config.h"
#include "live/server_connection.h"

namespace heng {

/// What the application does with requests. One object serves all connections of a server.
class RequestHandler {
 public:
  virtual ~RequestHandler() = default;
  /// The head is complete and valid; nothing of the body has been looked at, nor asked for with
  /// `100 Continue`. connection.head() is valid until this returns. False refuses: the handler has given its
  /// whole answer with connection.respond(); a body still to come is thrown away, then the connection ends.
  virtual bool on_head(ServerConnection& connection) {
    static_cast<void>(connection);
    return true;
  }
  /// The request is complete: connection.head() and connection.body() are valid until this returns. The
  /// handler answers now, or later through the connection it keeps (then it sets an observer).
  virtual void on_request(ServerConnection& connection) = 0;
  /// A request that could not be read: the server has answered with `status` itself.
  virtual void on_bad_request(int status) { static_cast<void>(status); }
};

/// Accepts connections and owns them. Must be destroyed between turns of the loop, not from a callback.
class HttpServer {
 public:
  struct Options {
    TimeoutConfig timeouts;
    LimitConfig limits;
  };

  HttpServer(Loop& loop, RequestHandler& handler, Options options);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// Binds and accepts. Port 0 takes a free one, see endpoint(). Fails with the address and the reason.
  Result<void> listen(const Endpoint& endpoint);
  Endpoint endpoint() const;
  /// Stops accepting; idle connections close now, busy ones after their answer.
  void drain();
  std::size_t connections() const { return connections_.size(); }
  void set_options(const Options& options);

 private:
  friend class ServerConnection;
  void accept_waiting();
  void sweep();
  void forget(ServerConnection& connection);

  Loop& loop_;
  RequestHandler& handler_;
  Options options_;
  HeadLimits head_limits_;
  Transport listener_;
  FdWatch watch_;
  Timer sweep_timer_;
  Timer accept_timer_;  // tries again after running out of descriptors
  bool draining_ = false;
  std::vector<std::unique_ptr<ServerConnection>> connections_;
  HttpHead head_;  // of the request being dispatched
  std::vector<iovec> scratch_;
};

}  // namespace heng
