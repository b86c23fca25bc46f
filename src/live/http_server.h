// An HTTP/1.1 server on a Loop: accepts connections, owns them, and ends those that take too long.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "config/config.h"
#include "host/metrics.h"
#include "live/inherited_sockets.h"
#include "live/server_connection.h"
#include "live/tls.h"

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
    /// When full, whoever waits for its client gives way to those who come, and not only who has no request:
    /// for a few connections that must be there for everybody.
    bool all_give_way = false;
  };

  HttpServer(Loop& loop, RequestHandler& handler, Options options);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// Binds, or takes the inherited socket of that address, and accepts. Port 0 takes a free one, see
  /// endpoint(). Fails with the address and the reason.
  Result<void> listen(const Endpoint& endpoint, InheritedSockets* inherited = nullptr);
  int listener() const { return listener_.fd(); }
  Endpoint endpoint() const;
  /// Stops accepting; idle connections close now, busy ones after their answer.
  void drain();
  /// Another process accepts from here on, on the same socket. Nothing is closed: whoever sends on an idle
  /// connection is answered, and told to come on a new one next time.
  void retire();
  std::size_t connections() const { return connections_.size(); }
  void set_options(const Options& options);
  /// For connections that come from now on; null = without TLS.
  void set_tls(TlsContext context) { tls_ = std::move(context); }

  /// Brings the counts of connections up to date.
  void expose(MetricRegistry& metrics) const;

 private:
  friend class ServerConnection;
  void accept_waiting();
  void take(Transport transport, const SocketAddress& peer);
  bool make_room();
  ServerConnection* longest_waiting() const;
  bool refuse_with_spare();
  bool has_memory_for(const MemoryAccount* payer, std::uint64_t bytes) const;
  void close_listener();
  void add_idle(ServerConnection& connection);
  void remove_idle(ServerConnection& connection);
  void check_soon(ServerConnection& connection);
  void check_for_resets();
  bool may_shake_hands(ServerConnection& connection);
  void shake_more_hands();
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
  Timer reset_timer_;   // runs while unsure_ holds some
  bool draining_ = false;
  bool retired_ = false;
  int spare_ = -1;  // a descriptor to have when there is none left
  Instant spare_told_{};
  TlsContext tls_;
  std::string unix_path_;    // of the listener; removed with it
  MemoryAccount strangers_;  // pays for what nobody has been found for: heads not complete, idle connections
  std::vector<std::unique_ptr<ServerConnection>> connections_;
  ServerConnection* idle_longest_ = nullptr;  // list through idle_after_
  ServerConnection* idle_last_ = nullptr;
  std::unordered_map<std::uint64_t, std::uint32_t> sources_;  // -> connections; see SocketAddress::source
  std::vector<ServerConnection*> unsure_;  // perhaps reset together with their last bytes, which no edge told
  std::vector<ServerConnection*> checking_;
  std::uint32_t turned_away_now_ = 0;
  std::uint64_t refused_spare_ = 0;
  // Since the start.
  std::uint64_t refused_full_ = 0;
  std::uint64_t refused_source_ = 0;
  std::uint64_t closed_for_room_ = 0;
  std::map<std::string, std::uint64_t> handshake_failures_;  // by OpenSSL's reason
  std::deque<ServerConnection*> awaiting_handshake_;
  Timer handshake_timer_;  // runs while somebody waits for that
  Instant handshakes_turn_{};
  int handshakes_ = 0;  // in that turn of the loop
  HttpHead head_;       // of the request being dispatched
  std::vector<iovec> scratch_;
};

}  // namespace heng
