// The least a proxy can cost: copies bytes between a client and an upstream connection of its own, and parses
// nothing. The same copying runs over four event loops (`--loop`), to show what each of them adds.
#include <event2/event.h>
#include <sys/epoll.h>

#include <array>
#include <boost/asio.hpp>
#include <cerrno>
#include <csignal>
#include <memory>

#include "wire.h"

namespace heng::bench {
namespace {

/// One direction's source and the other's destination. Freed together with its peer, by the loop it lives in.
struct Side {
  int fd = -1;
  Side* peer = nullptr;
  std::string pending;  // bytes for this side that its socket did not take yet
};

char shared_buffer[64 * 1024];

bool flush(Side& side) {
  while (!side.pending.empty()) {
    ssize_t sent = ::send(side.fd, side.pending.data(), side.pending.size(), MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN;
    side.pending.erase(0, static_cast<std::size_t>(sent));
  }
  return true;
}

/// Copies what the side has to its peer, until it is drained or the peer takes no more; false at the end.
/// For edge-triggered loops: a short read means drained, and later bytes make a new edge.
bool copy(Side& from) {
  Side& to = *from.peer;
  while (to.pending.empty()) {
    ssize_t got = ::recv(from.fd, shared_buffer, sizeof shared_buffer, 0);
    if (got < 0 && errno == EAGAIN) return true;
    if (got <= 0) return false;
    ssize_t sent = ::send(to.fd, shared_buffer, static_cast<std::size_t>(got), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return false;
    if (sent < got) to.pending.assign(shared_buffer + std::max<ssize_t>(sent, 0), shared_buffer + got);
    if (got < static_cast<ssize_t>(sizeof shared_buffer)) return true;
  }
  return true;
}

/// An edge on a side: first what waits for it, then what comes from it. A peer that was held back by this
/// side's pending bytes gets no edge of its own, so it is copied from here.
bool on_edge(Side& side, bool readable, bool writable) {
  if (writable && !side.pending.empty()) {
    if (!flush(side)) return false;
    if (side.pending.empty() && !copy(*side.peer)) return false;
  }
  return !readable || copy(side);
}

/// Accepts one connection and opens its upstream, in turn over the targets; -1 when none is waiting.
struct Acceptor {
  int listener;
  std::vector<int> targets;
  std::size_t next = 0;

  std::array<int, 2> accept() {
    int client = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
    if (client < 0) return {-1, -1};
    set_nodelay(client);
    return {client, connect_to(targets[next++ % targets.size()])};
  }
};

struct Pair {
  std::array<Side, 2> sides;
  explicit Pair(std::array<int, 2> fds) {
    for (int i : {0, 1}) sides[i].fd = fds[i], sides[i].peer = &sides[1 - i];
  }
  void close() {
    for (Side& side : sides) ::close(side.fd), side.fd = -1;
  }
  ~Pair() {
    if (sides[0].fd >= 0) close();
  }
};

[[noreturn]] void run_epoll(Acceptor acceptor) {
  int epoll = ::epoll_create1(0);
  epoll_event listening{.events = EPOLLIN, .data = {.ptr = nullptr}};
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, acceptor.listener, &listening);
  epoll_event events[256];
  std::vector<std::unique_ptr<Pair>> closed;  // other events of the same turn may still name them
  for (;;) {
    int count = ::epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < count; ++i) {
      auto* side = static_cast<Side*>(events[i].data.ptr);
      if (side == nullptr) {
        for (auto fds = acceptor.accept(); fds[0] >= 0; fds = acceptor.accept()) {
          auto* pair = new Pair(fds);
          for (Side& added : pair->sides) {
            epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data = {.ptr = &added}};
            ::epoll_ctl(epoll, EPOLL_CTL_ADD, added.fd, &event);
          }
        }
      } else if (side->fd >= 0 &&
                 !on_edge(*side, events[i].events & ~EPOLLOUT, events[i].events & EPOLLOUT)) {
        // sides[0] is the pair's first member, so the lower of the two addresses is the pair's.
        auto& pair = closed.emplace_back(reinterpret_cast<Pair*>(std::min(side, side->peer)));
        pair->close();
      }
    }
    closed.clear();
  }
}

struct LibeventPair : Pair {
  using Pair::Pair;
  std::array<event*, 2> events{};
};

[[noreturn]] void run_libevent(Acceptor acceptor) {
  event_config* config = event_config_new();
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  static event_base* base = event_base_new_with_config(config);
  auto on_event = [](evutil_socket_t, short what, void* argument) {
    auto* side = static_cast<Side*>(argument);
    if (on_edge(*side, what & EV_READ, what & EV_WRITE)) return;
    auto* pair = static_cast<LibeventPair*>(reinterpret_cast<Pair*>(std::min(side, side->peer)));
    for (event* watched : pair->events) event_free(watched);  // also takes them out of this turn's queue
    delete pair;
  };
  static auto* handler = +on_event;
  auto on_accept = [](evutil_socket_t, short, void* argument) {
    auto& from = *static_cast<Acceptor*>(argument);
    for (auto fds = from.accept(); fds[0] >= 0; fds = from.accept()) {
      auto* pair = new LibeventPair(fds);
      for (int i : {0, 1}) {
        pair->events[i] =
            event_new(base, fds[i], EV_READ | EV_WRITE | EV_PERSIST | EV_ET, handler, &pair->sides[i]);
        event_add(pair->events[i], nullptr);
      }
    }
  };
  event_add(event_new(base, acceptor.listener, EV_READ | EV_PERSIST, on_accept, &acceptor), nullptr);
  event_base_loop(base, 0);
  std::exit(0);
}

namespace asio = boost::asio;
using Socket = asio::ip::tcp::socket;

/// Asio's usual style: read some into a buffer of the direction's own, write all of it, repeat.
struct AsioPair : std::enable_shared_from_this<AsioPair> {
  std::array<Socket, 2> sockets;
  std::array<std::array<char, sizeof shared_buffer>, 2> buffers;

  AsioPair(Socket client, Socket upstream) : sockets{std::move(client), std::move(upstream)} {}
  void pump(int from) {
    sockets[from].async_read_some(
        asio::buffer(buffers[from]), [self = shared_from_this(), from](auto error, auto got) {
          if (error) return self->close();
          asio::async_write(self->sockets[1 - from], asio::buffer(self->buffers[from], got),
                            [self, from](auto failure, auto) { failure ? self->close() : self->pump(from); });
        });
  }
  void close() {
    for (Socket& socket : sockets) {
      if (socket.is_open()) socket.close();
    }
  }
};

/// Asio as a readiness loop: it only says when to read; the copying is the same as over epoll.
struct AsioReadyPair : Pair, std::enable_shared_from_this<AsioReadyPair> {
  std::array<Socket, 2> sockets;

  AsioReadyPair(Socket client, Socket upstream)
      : Pair({client.native_handle(), upstream.native_handle()}),
        sockets{std::move(client), std::move(upstream)} {}
  ~AsioReadyPair() { sides[0].fd = -1; }  // the sockets close themselves
  void watch(int side) {
    sockets[side].async_wait(Socket::wait_read, [self = shared_from_this(), side](auto error) {
      if (error) return;
      if (!copy(self->sides[side])) return self->close_both();
      self->sides[1 - side].pending.empty() ? self->watch(side) : self->drain(1 - side);
    });
  }
  void drain(int side) {
    sockets[side].async_wait(Socket::wait_write, [self = shared_from_this(), side](auto error) {
      if (error) return;
      if (!flush(self->sides[side])) return self->close_both();
      self->sides[side].pending.empty() ? self->watch(1 - side) : self->drain(side);
    });
  }
  void close_both() {
    for (Socket& socket : sockets) {
      if (socket.is_open()) socket.close();
    }
  }
};

[[noreturn]] void run_asio(Acceptor acceptor, bool ready) {
  asio::io_context loop(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE);  // one thread, so no locks
  asio::ip::tcp::acceptor listener(loop, asio::ip::tcp::v4(), acceptor.listener);
  std::function<void()> wait = [&] {
    listener.async_wait(asio::socket_base::wait_read, [&](auto) {
      for (auto fds = acceptor.accept(); fds[0] >= 0; fds = acceptor.accept()) {
        Socket client(loop, asio::ip::tcp::v4(), fds[0]), upstream(loop, asio::ip::tcp::v4(), fds[1]);
        for (Socket* socket : {&client, &upstream}) socket->native_non_blocking(true);
        if (ready) {
          auto pair = std::make_shared<AsioReadyPair>(std::move(client), std::move(upstream));
          pair->watch(0), pair->watch(1);
        } else {
          auto pair = std::make_shared<AsioPair>(std::move(client), std::move(upstream));
          pair->pump(0), pair->pump(1);
        }
      }
      wait();
    });
  };
  wait();
  loop.run();
  std::exit(0);
}

}  // namespace
}  // namespace heng::bench

int main(int argc, char** argv) {
  using namespace heng::bench;
  Arguments arguments(argc, argv);
  std::string loop = arguments.text("--loop", "epoll");
  int port = static_cast<int>(arguments.number("--listen", 0));
  if (port == 0 || arguments.ports("--to").empty()) {
    std::fprintf(stderr,
                 "usage: relay_floor --listen P --to P1,P2,... [--loop epoll|libevent|asio|asio-ready]\n");
    return 2;
  }
  Acceptor acceptor{listen_on(port), arguments.ports("--to")};
  if (loop == "epoll") run_epoll(acceptor);
  if (loop == "libevent") run_libevent(acceptor);
  if (loop == "asio" || loop == "asio-ready") run_asio(acceptor, loop == "asio-ready");
  std::fprintf(stderr, "unknown loop '%s'\n", loop.c_str());
  return 2;
}
