// The upstream of the benchmark: a fast OpenAI-like server, four ports in one thread, that answers every POST
// with a fixed completion or, when the header `x-bench-stream: EVENTS PERIOD_US` asks, with timed server-sent
// events.
#include <sys/epoll.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <csignal>
#include <memory>
#include <queue>

#include "wire.h"

namespace heng::bench {
namespace {

struct Connection {
  int fd = -1;
  bool listener = false;
  std::uint64_t generation = 0;  // a timer of an earlier stream must not touch a later one
  std::string in;
  std::string out;  // what the socket did not take yet
  // The stream being sent:
  std::string tag;
  std::uint64_t next_event = 0;
  std::uint64_t events = 0;
  std::int64_t period_ns = 0;
};

struct Timer {
  std::int64_t due_ns;
  Connection* connection;
  std::uint64_t generation;
  bool operator>(const Timer& other) const { return due_ns > other.due_ns; }
};

/// The value of a header (`name` in lower case) in a head, without copying it; empty if absent.
std::string_view header(std::string_view head, std::string_view name) {
  for (std::size_t at = head.find("\r\n"); at != head.npos; at = head.find("\r\n", at + 2)) {
    std::string_view line = head.substr(at + 2, head.find("\r\n", at + 2) - at - 2);
    if (line.size() > name.size() && line[name.size()] == ':' &&
        std::ranges::equal(line.substr(0, name.size()), name, {}, ::tolower)) {
      std::string_view value = line.substr(name.size() + 1);
      return value.substr(std::min(value.find_first_not_of(' '), value.size()));
    }
  }
  return {};
}

class Backend {
 public:
  explicit Backend(const std::vector<int>& ports) : epoll_(::epoll_create1(0)) {
    for (int port : ports) add(listen_on(port), true);
  }

  [[noreturn]] void run() {
    epoll_event events[256];
    for (;;) {
      std::int64_t wait_ns =
          timers_.empty() ? 1'000'000'000 : std::max<std::int64_t>(0, timers_.top().due_ns - now_ns());
      timespec wait{wait_ns / 1'000'000'000, wait_ns % 1'000'000'000};
      int count = ::epoll_pwait2(epoll_, events, 256, &wait, nullptr);
      for (int i = 0; i < count; ++i) {
        auto* connection = static_cast<Connection*>(events[i].data.ptr);
        if (connection->listener) {
          accept_all(connection->fd);
        } else if (connection->fd >= 0) {
          if (events[i].events & EPOLLOUT) flush(*connection);
          if (events[i].events & ~EPOLLOUT) read(*connection);
        }
      }
      send_due_events();
    }
  }

 private:
  void add(int fd, bool listener) {
    Connection* connection;
    if (free_.empty()) {
      connection = all_.emplace_back(std::make_unique<Connection>()).get();
    } else {
      connection = free_.back(), free_.pop_back();
    }
    connection->fd = fd, connection->listener = listener;
    epoll_event event{.events = EPOLLIN | (listener ? 0u : EPOLLOUT | EPOLLET | EPOLLRDHUP),
                      .data = {.ptr = connection}};
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }

  void accept_all(int listener) {
    for (int fd; (fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) {
      set_nodelay(fd);
      add(fd, false);
    }
  }

  void close(Connection& connection) {
    if (connection.fd < 0) return;
    ::close(connection.fd);
    connection.fd = -1, connection.events = 0, ++connection.generation;
    connection.in.clear(), connection.out.clear();
    free_.push_back(&connection);
  }

  void read(Connection& connection) {
    for (;;) {
      ssize_t got = ::recv(connection.fd, buffer_, sizeof buffer_, 0);
      if (got < 0 && errno == EAGAIN) return;
      if (got <= 0) return close(connection);
      connection.in.append(buffer_, static_cast<std::size_t>(got));
      if (!answer_all(connection)) return close(connection);
      if (connection.fd < 0) return;
    }
  }

  /// Answers the complete requests in the buffer; false if one is not what the load generator sends.
  bool answer_all(Connection& connection) {
    for (;;) {
      std::size_t end = connection.in.find("\r\n\r\n");
      if (end == std::string::npos) return true;
      std::string_view head(connection.in.data(), end + 2);
      std::string_view length_text = header(head, "content-length");
      std::size_t length = 0;
      std::from_chars(length_text.data(), length_text.data() + length_text.size(), length);
      if (head.starts_with("GET ")) {  // health checks
        send(connection, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
        connection.in.erase(0, end + 4);
        continue;
      }
      if (length == 0) return false;  // chunked request bodies are not part of this benchmark
      if (connection.in.size() < end + 4 + length) return true;
      std::string_view body(connection.in.data() + end + 4, length);
      if (body.front() != '{' || body.back() != '}') return false;
      std::string_view stream = header(head, "x-bench-stream");
      stream.empty() ? answer(connection, body) : start_stream(connection, body, stream);
      connection.in.erase(0, end + 4 + length);
    }
  }

  void answer(Connection& connection, std::string_view body) {
    completion_.fill(tag_of(body), body.size());
    scratch_ = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    scratch_ += std::to_string(completion_.text.size()) + "\r\n\r\n" + completion_.text;
    send(connection, scratch_);
  }

  void start_stream(Connection& connection, std::string_view body, std::string_view parameters) {
    std::string text(parameters.substr(0, parameters.find('\r')));
    char* rest = nullptr;
    connection.events = std::strtoull(text.c_str(), &rest, 10);
    connection.period_ns = std::strtoll(rest, nullptr, 10) * 1000;
    connection.next_event = 0;
    connection.tag = tag_of(body);
    scratch_ =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        "Transfer-Encoding: chunked\r\n\r\n";
    ++connection.generation;
    send_event(connection, now_ns());
  }

  /// Sends the next event together with what `scratch_` holds already.
  void send_event(Connection& connection, std::int64_t due_ns) {
    char size[16];
    std::snprintf(size, sizeof size, "%zx\r\n", kEventBytes);
    event_.fill(connection.tag, connection.next_event++, now_ns());
    scratch_.append(size).append(event_.text).append("\r\n");
    if (connection.next_event == connection.events) {
      std::snprintf(size, sizeof size, "%zx\r\n", kDone.size());
      scratch_.append(size).append(kDone).append("\r\n0\r\n\r\n");
    } else {
      timers_.push({due_ns + connection.period_ns, &connection, connection.generation});
    }
    send(connection, scratch_);
    scratch_.clear();
  }

  void send_due_events() {
    std::int64_t now = now_ns();
    while (!timers_.empty() && timers_.top().due_ns <= now) {
      Timer timer = timers_.top();
      timers_.pop();
      if (timer.generation == timer.connection->generation && timer.connection->fd >= 0) {
        scratch_.clear();
        send_event(*timer.connection, timer.due_ns);
      }
    }
  }

  void send(Connection& connection, std::string_view text) {
    connection.out.empty() ? connection.out.assign(text) : connection.out.append(text);
    flush(connection);
  }

  void flush(Connection& connection) {
    if (connection.out.empty()) return;
    ssize_t sent = ::send(connection.fd, connection.out.data(), connection.out.size(), MSG_NOSIGNAL);
    if (sent > 0) connection.out.erase(0, static_cast<std::size_t>(sent));
    // A failed send needs no action: the reset also arrives as an event and closes the connection there.
  }

  int epoll_;
  std::vector<std::unique_ptr<Connection>> all_;
  std::vector<Connection*> free_;
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  Completion completion_;
  Event event_;
  std::string scratch_;
  char buffer_[256 * 1024];
};

}  // namespace
}  // namespace heng::bench

int main(int argc, char** argv) {
  heng::bench::Arguments arguments(argc, argv);
  auto ports = arguments.ports("--ports");
  if (ports.empty()) {
    std::fprintf(stderr, "usage: backend --ports P1,P2,...\n");
    return 2;
  }
  auto backend = std::make_unique<heng::bench::Backend>(ports);
  backend->run();
}
