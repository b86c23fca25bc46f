// What the benchmark's programs share: sockets, the clock, `--key value` arguments, and the bodies both ends
// agree on.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace heng::bench {

[[noreturn]] inline void die(const std::string& why) {
  std::fprintf(stderr, "%s: %s\n", why.c_str(), std::strerror(errno));
  std::exit(2);
}

/// CLOCK_MONOTONIC, so that times taken in two processes of one machine can be subtracted.
inline std::int64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

class Arguments {
 public:
  Arguments(int argc, char** argv) {
    for (int i = 1; i + 1 < argc; i += 2) values_[argv[i]] = argv[i + 1];
  }
  std::string text(const std::string& key, const std::string& otherwise) const {
    auto found = values_.find(key);
    return found == values_.end() ? otherwise : found->second;
  }
  double number(const std::string& key, double otherwise) const {
    auto found = values_.find(key);
    return found == values_.end() ? otherwise : std::strtod(found->second.c_str(), nullptr);
  }
  std::vector<int> ports(const std::string& key) const {
    std::vector<int> ports;
    std::string list = text(key, "");
    for (char* at = list.data(); *at != '\0'; at += *at == ',')
      ports.push_back(static_cast<int>(std::strtol(at, &at, 10)));
    return ports;
  }

 private:
  std::map<std::string, std::string> values_;
};

inline sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

inline void set_nodelay(int fd) {
  int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/// A non-blocking listening socket on loopback.
inline int listen_on(int port) {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address = loopback(port);
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd, 4096) != 0) {
    die("cannot listen on port " + std::to_string(port));
  }
  return fd;
}

/// A connected, non-blocking socket. Connecting to loopback completes at once, so it may as well block.
inline int connect_to(int port) {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(port);
  if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    die("cannot connect to port " + std::to_string(port));
  }
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
  set_nodelay(fd);
  return fd;
}

// Bodies. Every request carries a tag of 16 characters as its last field, every answer and event repeats it:
// an answer that went to the wrong client, lost a byte or came twice is then seen.
inline constexpr std::size_t kTagBytes = 16;
inline constexpr std::size_t kEventBytes = 200;
inline constexpr std::string_view kDone = "data: [DONE]\n\n";

/// `size` bytes of words inside a JSON string, with an escape now and then as in real prompts.
inline std::string words(std::size_t size) {
  static constexpr std::string_view kText =
      "Balance the load over all workers by what they \\\"really\\\" can do.\\n";
  std::string text;
  while (text.size() + kText.size() <= size) text += kText;
  return text.append(size - text.size(), 'x');
}

/// A chat request of exactly `bytes`; `model` and `stream` follow the messages, as the official clients send
/// them.
inline std::string request_body(std::size_t bytes, bool stream) {
  std::string before = R"({"messages":[{"role":"user","content":")";
  std::string after = std::string(R"("}],"max_tokens":256,"stream":)") + (stream ? "true" : "false") +
                      R"(,"model":"bench","user":")" + std::string(kTagBytes, '0') + "\"}";
  std::size_t fixed = before.size() + after.size();
  return before + words(bytes > fixed ? bytes - fixed : 0) + after;
}

inline std::string_view tag_of(std::string_view request) {
  return request.size() < kTagBytes + 2 ? std::string_view()
                                        : request.substr(request.size() - kTagBytes - 2, kTagBytes);
}

/// Decimal, `width` digits, written in place.
inline void put_number(char* to, std::uint64_t value, int width) {
  for (int i = width - 1; i >= 0; --i, value /= 10) to[i] = static_cast<char>('0' + value % 10);
}

/// A fixed chat completion of about 600 bytes whose tag and prompt size are filled in.
struct Completion {
  std::string text;
  std::size_t tag_at, prompt_at;

  Completion() {
    text = R"({"id":"chatcmpl-)";
    tag_at = text.size();
    text += std::string(kTagBytes, '0') +
            R"(","object":"chat.completion","created":1700000000,"model":"bench",)" +
            R"("choices":[{"index":0,"message":{"role":"assistant","content":")" + words(300) +
            R"("},"finish_reason":"stop"}],"usage":{"completion_tokens":64,"prompt_tokens":)";
    prompt_at = text.size();
    text += "1000000}}";
  }
  void fill(std::string_view tag, std::size_t prompt_bytes) {
    std::memcpy(text.data() + tag_at, tag.data(), kTagBytes);
    put_number(text.data() + prompt_at + 1, prompt_bytes, 6);
  }
};

/// One event of a stream, kEventBytes long: which stream, which event, and when it left the backend.
struct Event {
  std::string text;
  std::size_t tag_at, number_at, sent_at;

  Event() {
    text = R"(data: {"id":"chatcmpl-)";
    tag_at = text.size();
    text += std::string(kTagBytes, '0') + R"(","object":"chat.completion.chunk","model":"bench","n":1)";
    number_at = text.size();
    text += R"(00000000,"sent":)";
    sent_at = text.size();
    text += std::string(19, '0') + R"(,"choices":[{"index":0,"delta":{"content":")";
    std::string_view end = "\"}}]}\n\n";
    text += words(kEventBytes - text.size() - end.size());
    text += end;
  }
  void fill(std::string_view tag, std::uint64_t number, std::int64_t sent_ns) {
    std::memcpy(text.data() + tag_at, tag.data(), kTagBytes);
    put_number(text.data() + number_at, number, 8);
    put_number(text.data() + sent_at, static_cast<std::uint64_t>(sent_ns) + 1'000'000'000'000'000'000ULL, 19);
  }
  /// When an event was sent, from its text; 0 if that is no number.
  std::int64_t sent_ns(std::string_view event) const {
    std::int64_t sent = 0;
    std::from_chars(event.data() + sent_at, event.data() + sent_at + 19, sent);
    return sent == 0 ? 0 : sent - 1'000'000'000'000'000'000LL;
  }
};

}  // namespace heng::bench
