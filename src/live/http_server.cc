// Listening, accepting, sweeping over time limits.
#include "live/http_server.h"

#include <cerrno>

namespace heng {

HttpServer::HttpServer(Loop& loop, RequestHandler& handler, Options options)
    : loop_(loop),
      handler_(handler),
      sweep_timer_(loop, [this] { sweep(); }),
      accept_timer_(loop, [this] { accept_waiting(); }) {
  set_options(options);
  sweep_timer_.every(100ms);
}

HttpServer::~HttpServer() {
  for (auto& connection : connections_) {
    connection->observer_ = nullptr;
    connection->phase_ = ServerConnection::Phase::closed;
  }
}

void HttpServer::set_options(const Options& options) {
  options_ = options;
  head_limits_ = {options.limits.head_bytes, options.limits.header_count, options.limits.target_bytes};
}

Result<void> HttpServer::listen(const Endpoint& endpoint) {
  const Result<SocketAddress> address = resolve_address(endpoint);
  if (!address) return std::unexpected(address.error());
  const Result<int> fd = tcp_listen(*address);
  if (!fd) return std::unexpected(fd.error());
  listener_ = Transport(*fd);
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
  while (listener_.fd() >= 0) {
    const int fd = tcp_accept(listener_.fd(), &peer);
    if (fd < 0) {
      // Out of descriptors: the edge is used up, so look again soon instead of spinning.
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        accept_timer_.once(100ms);
      if (errno == ECONNABORTED || errno == EINTR) continue;
      return;
    }
    Transport transport(fd);
    if (connections_.size() >= options_.limits.connections) {
      const iovec full = as_iovec(
          "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: "
          "close\r\n\r\n");
      transport.write({&full, 1});
      continue;
    }
    auto* connection = new ServerConnection(*this, std::move(transport), peer.host());
    connection->index_ = connections_.size();
    connections_.emplace_back(connection);
  }
}

void HttpServer::drain() {
  draining_ = true;
  watch_.stop();
  listener_.close();
  accept_timer_.stop();
  for (std::size_t i = connections_.size(); i-- > 0;) {
    ServerConnection& connection = *connections_[i];
    connection.keep_alive_ = false;
    if (connection.phase_ == ServerConnection::Phase::head && !connection.head_begun_) connection.close();
  }
}

void HttpServer::sweep() {
  const Instant now = loop_.now();
  for (std::size_t i = connections_.size(); i-- > 0;) connections_[i]->expire(now);
}

void HttpServer::forget(ServerConnection& connection) {
  const std::size_t index = connection.index_;
  std::swap(connections_[index], connections_.back());
  connections_[index]->index_ = index;
  connections_.pop_back();
}

}  // namespace heng
