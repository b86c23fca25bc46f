// Listening, accepting, sweeping over time limits.
#include "live/http_server.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace heng {

namespace {

constexpr int kAcceptsPerTurn = 256;
constexpr int kHandshakesPerTurn = 4;           // up to a millisecond each
constexpr std::uint32_t kTurnedAwayShare = 16;  // at a time, one for so many that may be here
constexpr std::string_view kFullAnswer =
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
constexpr std::string_view kCrowdedAnswer =
    "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
constexpr Duration kIdleMin = 1s;  // who has just come may be about to send
constexpr Duration kResetCheck = 20ms;
constexpr Duration kToldEvery = 10s;

int open_spare() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

}  // namespace

HttpServer::HttpServer(Loop& loop, RequestHandler& handler, Options options)
    : loop_(loop),
      handler_(handler),
      sweep_timer_(loop, [this] { sweep(); }),
      accept_timer_(loop, [this] { accept_waiting(); }),
      reset_timer_(loop, [this] { check_for_resets(); }),
      handshake_timer_(loop, [this] { shake_more_hands(); }) {
  set_options(options);
  sweep_timer_.every(100ms);
}

HttpServer::~HttpServer() {
  for (auto& connection : connections_) {
    connection->observer_ = nullptr;
    connection->phase_ = ServerConnection::Phase::closed;
  }
  close_listener();
  if (spare_ >= 0) ::close(spare_);
}

void HttpServer::close_listener() {
  listener_.close();
  if (!unix_path_.empty()) ::unlink(unix_path_.c_str());
  unix_path_.clear();
}

void HttpServer::set_options(const Options& options) {
  options_ = options;
  head_limits_ = {options.limits.head_bytes, options.limits.header_count, options.limits.target_bytes};
}

Result<void> HttpServer::listen(const Endpoint& endpoint, InheritedSockets* inherited) {
  const Result<SocketAddress> address = resolve_address(endpoint);
  if (!address) return std::unexpected(address.error());
  Result<int> fd = inherited != nullptr ? inherited->take(*address) : -1;
  if (*fd < 0) {
    fd = tcp_listen(*address);
    if (!fd) return std::unexpected(fd.error());
  }
  if (endpoint.is_unix()) unix_path_ = endpoint.host;
  listener_ = Transport(*fd);
  spare_ = open_spare();
  watch_.start(
      loop_, *fd, [](void* self, FdWatch::Ready) { static_cast<HttpServer*>(self)->accept_waiting(); }, this);
  return {};
}

Endpoint HttpServer::endpoint() const {
  const SocketAddress address = local_address(listener_.fd());
  return {address.host(), address.port()};
}

void HttpServer::accept_waiting() {
  SocketAddress peer;
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    if (listener_.fd() < 0) return;
    const int fd = tcp_accept(listener_.fd(), &peer);
    if (fd < 0) {
      const bool none_left = errno == EMFILE || errno == ENFILE;
      if (none_left && refuse_with_spare()) continue;
      // The edge is used up, so look again soon instead of spinning.
      if (none_left || errno == ENOBUFS || errno == ENOMEM) accept_timer_.once(100ms);
      if (errno == ECONNABORTED || errno == EINTR) continue;
      return;
    }
    take(Transport(fd), peer);
  }
  watch_.read_on_later();
}

void HttpServer::take(Transport transport, const SocketAddress& peer) {
  const bool room = make_room();
  const std::uint64_t source = peer.source();
  const std::uint32_t source_max = options_.limits.connections_per_source;
  const auto others = sources_.find(source);
  const bool crowded = source_max != 0 && others != sources_.end() && others->second >= source_max;
  if (!room) ++refused_full_;
  if (crowded) ++refused_source_;
  if (!room || crowded) {
    if (tls_) return;  // it would take a handshake to say why
    // The first few stay until they have heard it; others may lose it when they go on sending.
    if (turned_away_now_ > options_.limits.connections / kTurnedAwayShare) {
      const iovec answer = as_iovec(crowded ? kCrowdedAnswer : kFullAnswer);
      transport.write({&answer, 1});
      return;
    }
  }
  if (tls_ && !transport.accept_tls(*tls_)) return;
  auto* connection = new ServerConnection(*this, std::move(transport), peer);
  connection->index_ = connections_.size();
  connections_.emplace_back(connection);
  if (source != 0) ++sources_[source];
  if (room && !crowded) return;
  ++turned_away_now_;
  if (crowded) return connection->turn_away(429, "too many connections from this address");
  connection->turn_away(503, "too many connections");
}

/// Out of descriptors: whoever waits to be accepted is told so, with the one that was kept for that.
bool HttpServer::refuse_with_spare() {
  if (loop_.now() >= spare_told_ + kToldEvery) {
    spdlog::error(
        "out of descriptors: clients are turned away; raise LimitNOFILE or lower limits.connections");
    spare_told_ = loop_.now();
  }
  if (spare_ >= 0) ::close(spare_);
  Transport transport(tcp_accept(listener_.fd(), nullptr));
  const bool accepted = transport.fd() >= 0;
  if (accepted) {
    ++refused_spare_;
    static_cast<void>(transport.read(loop_.read_buffer(), Loop::kReadBytes));  // unread, it would reset
    const iovec refusal = as_iovec(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: "
        "close\r\n\r\n");
    if (!tls_) transport.write({&refusal, 1});
  }
  transport.close();
  spare_ = open_spare();
  return accepted;
}

/// Whoever has an account may hold as much as is still free (the dynamic thresholds of Choudhury & Hahne,
/// "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998): alone half, two a third each,
/// and there is always something left for the next.
bool HttpServer::has_memory_for(const MemoryAccount* payer, std::uint64_t bytes) const {
  const std::uint64_t most = options_.limits.buffered_bytes;
  if (most == 0) return true;
  const std::uint64_t held = Buffer::held_bytes() + bytes;
  if (held > most) return false;
  return payer == nullptr || payer->held_bytes + bytes <= most - held;
}

/// Of those that do not wait for us, the one whose last request ended longest ago. There are few of them.
ServerConnection* HttpServer::longest_waiting() const {
  ServerConnection* longest = nullptr;
  for (const auto& connection : connections_) {
    if (connection->turned_away_ || !connection->waits_for_client()) continue;
    if (longest == nullptr || connection->idle_since_ < longest->idle_since_) longest = connection.get();
  }
  return longest;
}

/// Closes the connection that has been without a request for longest, if there must be room.
bool HttpServer::make_room() {
  if (connections_.size() - turned_away_now_ < options_.limits.connections) return true;
  ServerConnection* leaves = options_.all_give_way ? longest_waiting() : idle_longest_;
  if (leaves == nullptr) return false;
  if (!options_.all_give_way && loop_.now() < leaves->idle_since_ + kIdleMin) return false;
  ++closed_for_room_;
  leaves->lose_client();
  return true;
}

void HttpServer::add_idle(ServerConnection& connection) {
  connection.idle_ = true;
  connection.idle_since_ = loop_.now();
  connection.idle_before_ = idle_last_;
  connection.idle_after_ = nullptr;
  (idle_last_ != nullptr ? idle_last_->idle_after_ : idle_longest_) = &connection;
  idle_last_ = &connection;
}

void HttpServer::remove_idle(ServerConnection& connection) {
  if (!std::exchange(connection.idle_, false)) return;
  ServerConnection* const before = connection.idle_before_;
  ServerConnection* const after = connection.idle_after_;
  (before != nullptr ? before->idle_after_ : idle_longest_) = after;
  (after != nullptr ? after->idle_before_ : idle_last_) = before;
}

/// A reset that comes together with bytes shares their event (libevent shows an error as plain readiness),
/// and the short read that takes the bytes does not meet it.
void HttpServer::check_soon(ServerConnection& connection) {
  if (std::exchange(connection.unsure_, true)) return;
  if (unsure_.empty()) reset_timer_.once(kResetCheck);
  unsure_.push_back(&connection);
}

void HttpServer::check_for_resets() {
  checking_.swap(unsure_);
  for (ServerConnection* connection : checking_) {
    connection->unsure_ = false;
    connection->check_for_reset();
  }
  checking_.clear();
}

/// Handshakes cost up to a millisecond of arithmetic each: a crowd of newcomers takes turns with everybody
/// else's work.
bool HttpServer::may_shake_hands(ServerConnection& connection) {
  if (connection.awaits_handshake_) return false;
  if (handshakes_turn_ != loop_.now()) handshakes_ = 0;
  handshakes_turn_ = loop_.now();
  if (++handshakes_ <= kHandshakesPerTurn) return true;
  connection.awaits_handshake_ = true;
  if (awaiting_handshake_.empty()) handshake_timer_.once(Duration(0));
  awaiting_handshake_.push_back(&connection);
  return false;
}

void HttpServer::shake_more_hands() {
  for (int i = 0; i < kHandshakesPerTurn && !awaiting_handshake_.empty(); ++i) {
    ServerConnection* const connection = awaiting_handshake_.front();
    awaiting_handshake_.pop_front();
    connection->awaits_handshake_ = false;
    connection->on_ready({.read = true, .write = false, .closed = true});
  }
  if (!awaiting_handshake_.empty()) handshake_timer_.once(Duration(0));
}

void HttpServer::drain() {
  draining_ = true;
  watch_.stop();
  close_listener();
  accept_timer_.stop();
  for (std::size_t i = connections_.size(); i-- > 0;) {
    ServerConnection& connection = *connections_[i];
    connection.keep_alive_ = false;
    if (connection.idle_) connection.close();
  }
}

void HttpServer::expose(MetricRegistry& metrics) const {
  const auto total = [&](std::string_view name, std::string_view help, const MetricLabels& labels,
                         std::uint64_t value) {
    metrics.counter(name, help, labels).value = static_cast<double>(value);
  };
  metrics.gauge("heng_connections", "Client connections", {}).set(static_cast<double>(connections_.size()));
  constexpr std::string_view kRefused = "heng_connections_refused_total";
  total(kRefused, "Connections turned away by a limit", {{"limit", "connections"}}, refused_full_);
  total(kRefused, "Connections turned away by a limit", {{"limit", "per_source"}}, refused_source_);
  total(kRefused, "Connections turned away by a limit", {{"limit", "descriptors"}}, refused_spare_);
  total("heng_connections_closed_idle_total", "Idle connections closed to make room for new ones", {},
        closed_for_room_);
  for (const auto& [reason, count] : handshake_failures_) {
    total("heng_tls_handshake_failures_total", "TLS handshakes of clients that failed", {{"reason", reason}},
          count);
  }
}

void HttpServer::retire() {
  retired_ = true;
  watch_.stop();
  unix_path_.clear();  // the successor's now
  close_listener();
  accept_timer_.stop();
  for (auto& connection : connections_) {
    if (!connection->answer_started_) connection->keep_alive_ = false;
  }
}

void HttpServer::sweep() {
  const Instant now = loop_.now();
  for (std::size_t i = connections_.size(); i-- > 0;) connections_[i]->expire(now);
}

void HttpServer::forget(ServerConnection& connection) {
  if (connection.unsure_) std::erase(unsure_, &connection);
  if (connection.awaits_handshake_) std::erase(awaiting_handshake_, &connection);
  if (connection.turned_away_) --turned_away_now_;
  if (connection.source_ != 0) {
    const auto source = sources_.find(connection.source_);
    if (--source->second == 0) sources_.erase(source);
  }
  const std::size_t index = connection.index_;
  std::swap(connections_[index], connections_.back());
  connections_[index]->index_ = index;
  connections_.pop_back();
}

}  // namespace heng
