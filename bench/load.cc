// The client of the benchmark: a closed loop of requests over keep-alive connections, or many open streams.
// It checks every byte of every answer and measures the proxy's CPU and memory over exactly the window in
// which it counts.
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <memory>

#include "answer_reader.h"
#include "process_meter.h"
#include "wire.h"

namespace heng::bench {
namespace {

struct Options {
  bool streams;
  int port;
  std::size_t connections;
  std::size_t body_bytes;
  std::uint64_t events;  // per stream
  long period_us;
  double open_every_us;  // streams are opened one by one, so that they do not tick in step
  double warmup_s;
  double window_s;
  double cpu_s_min;  // the window grows, up to five times, until the proxy has used this much
  long watched_pid;
};

struct Connection {
  int fd = -1;
  std::string request;  // head and body; the tag is patched for each request
  std::size_t written = 0;
  std::string body;  // the answer's, not yet checked
  AnswerReader reader;
  std::uint64_t events = 0;  // asked for in the present stream
  std::uint64_t next_event = 0;
  std::int64_t asked_ns = 0;
  std::int64_t last_event_ns = 0;
};

/// Nanosecond samples; prints percentiles in microseconds.
class Samples {
 public:
  void add(std::int64_t ns) { values_.push_back(ns); }
  std::string json() {
    if (values_.empty()) return "null";
    std::sort(values_.begin(), values_.end());
    char text[200];
    std::snprintf(text, sizeof text,
                  R"({"count":%zu,"p50_us":%.1f,"p90_us":%.1f,"p99_us":%.1f,"max_us":%.1f})", values_.size(),
                  at(0.5), at(0.9), at(0.99), at(1));
    return text;
  }

 private:
  double at(double q) const {
    return static_cast<double>(
               values_[static_cast<std::size_t>(q * static_cast<double>(values_.size() - 1))]) /
           1e3;
  }
  std::vector<std::int64_t> values_;
};

class Load {
 public:
  explicit Load(const Options& options) : options_(options), epoll_(::epoll_create1(0)) {
    std::string body = request_body(options.body_bytes, options.streams);
    template_ =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\n"
        "Accept: application/json\r\nContent-Type: application/json\r\nAuthorization: Bearer bench\r\n";
    if (options.streams) {
      template_ += "x-bench-stream: 00000000 " + std::to_string(options.period_us) + "\r\n";
      events_at_ = template_.find("00000000");
    }
    template_ += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    body_bytes_ = body.size();
  }

  int run() {
    double memory_before = resident_bytes(options_.watched_pid);
    open_connections();
    run_until(now_ns() + static_cast<std::int64_t>(options_.warmup_s * 1e9));
    double memory_open = resident_bytes(options_.watched_pid);
    measuring_ = true;
    std::int64_t start = now_ns();
    double cpu_start = cpu_ns(options_.watched_pid), own_cpu_start = cpu_ns(::getpid()), cpu = 0;
    do {
      run_until(std::max(now_ns() + 100'000'000, start + static_cast<std::int64_t>(options_.window_s * 1e9)));
      cpu = cpu_ns(options_.watched_pid) - cpu_start;
    } while (cpu < options_.cpu_s_min * 1e9 &&
             static_cast<double>(now_ns() - start) < 5e9 * options_.window_s && options_.watched_pid > 0 &&
             failed_.empty());
    double seconds = static_cast<double>(now_ns() - start) / 1e9;
    double memory_end = resident_bytes(options_.watched_pid);
    for (const auto& connection : all_) {
      if (std::max(connection->asked_ns, connection->last_event_ns) < start) fail("an answer never came");
    }
    std::printf(
        R"({"seconds":%.3f,"requests":%llu,"events":%llu,"cpu_ns":%.0f,"load_cpu_ns":%.0f,)"
        R"("memory_before":%.0f,"memory_open":%.0f,"latency":%s,"first_event":%s,"gap":%s,"delay":%s,)"
        R"("error":"%s"})"
        "\n",
        seconds, static_cast<unsigned long long>(requests_), static_cast<unsigned long long>(events_), cpu,
        cpu_ns(::getpid()) - own_cpu_start, memory_before, std::max(memory_open, memory_end),
        latency_.json().c_str(), first_event_.json().c_str(), gap_.json().c_str(), delay_.json().c_str(),
        failed_.c_str());
    return failed_.empty() ? 0 : 1;
  }

 private:
  void open_connections() {
    double due = static_cast<double>(now_ns());
    for (std::size_t i = 0; i < options_.connections && failed_.empty(); ++i) {
      if (options_.streams) run_until(static_cast<std::int64_t>(due += options_.open_every_us * 1e3));
      auto& connection = *all_.emplace_back(std::make_unique<Connection>());
      connection.fd = connect_to(options_.port);
      connection.request = template_;
      epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLET, .data = {.ptr = &connection}};
      ::epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.fd, &event);
      ask(connection);
    }
  }

  void run_until(std::int64_t until_ns) {
    epoll_event events[256];
    for (std::int64_t now; failed_.empty() && (now = now_ns()) < until_ns;) {
      timespec wait{(until_ns - now) / 1'000'000'000, (until_ns - now) % 1'000'000'000};
      int count = ::epoll_pwait2(epoll_, events, 256, &wait, nullptr);
      for (int i = 0; i < count; ++i) {
        auto& connection = *static_cast<Connection*>(events[i].data.ptr);
        if (connection.written < connection.request.size()) write(connection);
        if (events[i].events & ~EPOLLOUT) read(connection);
      }
    }
  }

  /// Sends the next request. The first stream of each connection is shorter, each by another length, so that
  /// in the window streams begin and end all the time.
  void ask(Connection& connection) {
    if (options_.streams) {
      bool first = connection.asked_ns == 0;
      connection.events = first ? 1 + options_.events * all_.size() / options_.connections : options_.events;
      put_number(connection.request.data() + events_at_, connection.events, 8);
    }
    put_number(connection.request.data() + connection.request.size() - kTagBytes - 2, ++asked_, kTagBytes);
    connection.written = 0;
    connection.next_event = 0;
    connection.asked_ns = now_ns();
    write(connection);
  }

  void write(Connection& connection) {
    while (connection.written < connection.request.size()) {
      ssize_t sent = ::send(connection.fd, connection.request.data() + connection.written,
                            connection.request.size() - connection.written, MSG_NOSIGNAL);
      if (sent < 0 && errno == EAGAIN) return;
      if (sent < 0) return fail("the proxy closed the connection while it was being written to");
      connection.written += static_cast<std::size_t>(sent);
    }
  }

  void read(Connection& connection) {
    for (;;) {
      ssize_t got = ::recv(connection.fd, buffer_, sizeof buffer_, 0);
      if (got < 0 && errno == EAGAIN) return;
      if (got <= 0) return fail("the proxy closed a connection");
      auto progress = connection.reader.feed({buffer_, static_cast<std::size_t>(got)}, connection.body);
      if (progress == AnswerReader::Progress::broken) return fail("broken framing");
      if (connection.reader.status() != 200)
        return fail("status " + std::to_string(connection.reader.status()));
      if (options_.streams && !take_events(connection)) return;
      if (progress == AnswerReader::Progress::done && !finish(connection)) return;
      if (static_cast<std::size_t>(got) < sizeof buffer_) return;  // drained; more makes a new edge
    }
  }

  bool take_events(Connection& connection) {
    std::string_view body = connection.body, tag = tag_of(connection.request);
    std::int64_t now = now_ns();
    while (body.size() >= kEventBytes && connection.next_event < connection.events) {
      std::string_view event = body.substr(0, kEventBytes);
      std::int64_t sent = event_.sent_ns(event);
      event_.fill(tag, connection.next_event, sent);
      if (event != event_.text) return fail("an event is lost, repeated or changed"), false;
      if (measuring_) {
        ++events_;
        delay_.add(now - sent);
        connection.next_event == 0 ? first_event_.add(now - connection.asked_ns)
                                   : gap_.add(now - connection.last_event_ns);
      }
      connection.last_event_ns = now;
      ++connection.next_event;
      body.remove_prefix(kEventBytes);
    }
    connection.body.erase(0, connection.body.size() - body.size());
    return true;
  }

  bool finish(Connection& connection) {
    if (options_.streams) {
      if (connection.next_event != connection.events || connection.body != kDone)
        return fail("a stream ended early"), false;
    } else {
      completion_.fill(tag_of(connection.request), body_bytes_);
      if (connection.body != completion_.text)
        return fail("an answer is changed or another request's"), false;
    }
    connection.body.clear();
    if (measuring_) {
      ++requests_;
      latency_.add(now_ns() - connection.asked_ns);
    }
    ask(connection);
    return failed_.empty();
  }

  void fail(std::string why) {
    if (failed_.empty()) failed_ = std::move(why);
  }

  Options options_;
  int epoll_;
  std::string template_;
  std::size_t events_at_ = 0;  // where the template says how many events to send
  std::size_t body_bytes_ = 0;
  std::vector<std::unique_ptr<Connection>> all_;
  Completion completion_;
  Event event_;
  bool measuring_ = false;
  std::string failed_;  // the first failure; it ends the run
  std::uint64_t asked_ = 0, requests_ = 0, events_ = 0;
  Samples latency_, first_event_, gap_, delay_;
  char buffer_[256 * 1024];
};

}  // namespace
}  // namespace heng::bench

int main(int argc, char** argv) {
  heng::bench::Arguments arguments(argc, argv);
  heng::bench::Options options{
      .streams = arguments.text("--mode", "closed") == "streams",
      .port = static_cast<int>(arguments.number("--port", 0)),
      .connections = static_cast<std::size_t>(arguments.number("--connections", 32)),
      .body_bytes = static_cast<std::size_t>(arguments.number("--body-bytes", 400)),
      .events = static_cast<std::uint64_t>(arguments.number("--events", 200)),
      .period_us = static_cast<long>(arguments.number("--period-us", 10000)),
      .open_every_us = arguments.number("--open-every-us", 1030),
      .warmup_s = arguments.number("--warmup", 0.3),
      .window_s = arguments.number("--seconds", 1),
      .cpu_s_min = arguments.number("--cpu-min", 0),
      .watched_pid = static_cast<long>(arguments.number("--watch", 0)),
  };
  if (options.port == 0) {
    std::fprintf(
        stderr,
        "usage: load --port P [--mode closed|streams] [--connections N] [--body-bytes N] [--events N]\n"
        "            [--period-us N] [--seconds S] [--cpu-min S] [--watch PID]\n");
    return 2;
  }
  return std::make_unique<heng::bench::Load>(options)->run();
}
