// The HTTP client against servers that are slow, rude, gone or lying.
#include "live/http_client.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <functional>

#include "live/loopback_test_peer.h"

namespace heng {
namespace {

constexpr std::string_view kHead = "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n";
const RequestBytes kRequest{.head = kHead, .body = "hi"};
const std::string kSent = std::string(kHead) + "hi";

/// What an observer was told.
struct Answer : ResponseObserver {
  void on_response_head(const HttpHead& head) override {
    EXPECT_EQ(status, 0);
    status = head.status;
    framing = head.framing;
    if (at_head) at_head();
  }
  void on_response_body(std::span<const std::string_view> pieces, bool last) override {
    EXPECT_NE(status, 0);
    EXPECT_FALSE(over());
    for (const std::string_view piece : pieces) body += piece;
    complete = last;
    if (at_body) at_body();
  }
  void on_response_failed(const ExchangeFailure& told) override {
    EXPECT_FALSE(over());
    failure = told;
  }
  bool over() const { return complete || failure.has_value(); }

  int status = 0;
  BodyFraming framing = BodyFraming::none;
  std::string body;
  bool complete = false;
  std::optional<ExchangeFailure> failure;
  std::function<void()> at_head;
  std::function<void()> at_body;
};

std::string sized(std::string_view body, std::string_view more = "") {
  return fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{}\r\n{}", body.size(), more, body);
}

class Client : public testing::Test {
 protected:
  void SetUp() override {
    listener_ = tcp_listen(numeric_address({"127.0.0.1", 0}).value()).value();
    begin();
  }
  void TearDown() override {
    loop_.turn();
    origin_.reset();
    if (listener_ >= 0) ::close(listener_);
  }
  void begin(Duration idle_timeout = 60s, Duration distrust = 60s) {
    HttpOrigin::Options options;
    const SocketAddress address = local_address(listener_);
    options.endpoint = {address.host(), address.port()};
    options.idle_timeout = idle_timeout;
    options.distrust = distrust;
    origin_.emplace(loop_.loop(), resolver_, options);
  }

  ClientConnection& send(Answer& answer, const ExchangeTimeouts& timeouts = {},
                         RequestBytes request = kRequest) {
    return origin_->send(request, timeouts, answer);
  }
  /// The server's end of the next new connection.
  Peer accept() {
    int fd = -1;
    EXPECT_TRUE(loop_.until([&] { return (fd = tcp_accept(listener_, nullptr)) >= 0; }));
    return Peer(fd);
  }
  bool no_other_connection() {
    loop_.settle();
    const int fd = tcp_accept(listener_, nullptr);
    if (fd >= 0) ::close(fd);
    return fd < 0;
  }
  void expect_request(Peer& server) {
    EXPECT_TRUE(loop_.until([&] { return server.read().got.size() >= kSent.size() || server.ended; }));
    EXPECT_EQ(server.got, kSent);
    server.got.clear();
  }
  bool wait(const Answer& answer) {
    return loop_.until([&] { return answer.over(); });
  }
  void expect_own_answer(Peer& server, Answer& answer) {
    expect_request(server);
    EXPECT_FALSE(answer.over());
    server.send(sized("own"));
    EXPECT_TRUE(wait(answer));
    EXPECT_EQ(answer.body, "own");
  }
  /// One whole exchange that leaves its connection idle.
  Peer warm_up() {
    Answer answer;
    send(answer);
    Peer server = accept();
    expect_request(server);
    server.send(sized("x"));
    EXPECT_TRUE(wait(answer));
    EXPECT_EQ(origin_->idle_connections(), 1u);
    return server;
  }

  TurnedLoop loop_;
  Resolver resolver_{loop_.loop()};
  int listener_ = -1;
  std::optional<HttpOrigin> origin_;
};

TEST_F(Client, ReusesAConnectionForTheNextExchange) {
  Peer server = warm_up();
  for (int i = 0; i < 3; ++i) {
    Answer answer;
    send(answer);
    EXPECT_EQ(origin_->idle_connections(), 0u);
    expect_request(server);
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
    ASSERT_TRUE(wait(answer));
    EXPECT_EQ(answer.body, "ab");
  }
  EXPECT_TRUE(no_other_connection());
}

TEST_F(Client, ChunkedAnswersOfAlmostNoPayloadEnd) {
  Answer answer;
  send(answer);
  Peer server = accept();
  expect_request(server);
  server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;");
  const std::string extension(10'000, 'x');
  EXPECT_TRUE(loop_.until([&] {
    server.send_some(extension);
    return answer.over();
  }));
  ASSERT_TRUE(answer.failure);
  EXPECT_EQ(answer.failure->cause, Outcome::protocol);
}

TEST_F(Client, TakesAnAnswerHoweverItIsCut) {
  const std::string interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
  for (const std::string& bytes :
       {interim + sized("hello"),
        std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: "
                    "1\r\n\r\n")}) {
    Peer server = warm_up();
    for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
      Answer answer;
      send(answer);
      expect_request(server);
      server.send(std::string_view(bytes).substr(0, cut));
      loop_.turn();
      EXPECT_FALSE(answer.over()) << cut;
      server.send(std::string_view(bytes).substr(cut));
      ASSERT_TRUE(wait(answer)) << cut;
      ASSERT_TRUE(answer.complete) << cut;
      EXPECT_EQ(answer.body, "hello") << cut;
    }
    origin_->drop_idle();
    loop_.settle();
  }
}

TEST_F(Client, ByteByByteIsFineToo) {
  Peer server = warm_up();
  Answer answer;
  send(answer);
  expect_request(server);
  for (const char c :
       std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")) {
    server.send({&c, 1});
    loop_.turn();
  }
  ASSERT_TRUE(wait(answer));
  EXPECT_EQ(answer.body, "x");
  EXPECT_EQ(origin_->idle_connections(), 1u);
}

TEST_F(Client, AnswersUntilCloseEndWithTheConnection) {
  Answer answer;
  send(answer);
  Peer server = accept();
  expect_request(server);
  server.send("HTTP/1.0 200 OK\r\n\r\npart one");
  ASSERT_TRUE(loop_.until([&] { return answer.body == "part one"; }));
  EXPECT_FALSE(answer.over());
  server.send(", part two");
  server.close();
  ASSERT_TRUE(wait(answer));
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.body, "part one, part two");
  EXPECT_EQ(origin_->idle_connections(), 0u);
}

TEST_F(Client, AnswersWithoutABodyAreCompleteAtTheirHead) {
  Peer server = warm_up();
  for (const std::string_view bytes :
       {"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}) {
    Answer answer;
    send(answer);
    expect_request(server);
    server.send(bytes);
    ASSERT_TRUE(wait(answer));
    EXPECT_TRUE(answer.complete && answer.body.empty());
  }
  Answer answer;
  send(answer, {}, {.head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", .body = {}, .head_request = true});
  server.send("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n");
  ASSERT_TRUE(wait(answer));
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(origin_->idle_connections(), 1u);
}

TEST_F(Client, WithoutIdleTimeNoConnectionIsKept) {
  begin(0s);
  Answer answer;
  send(answer);
  Peer server = accept();
  expect_request(server);
  server.send(sized("x"));
  EXPECT_TRUE(wait(answer));
  EXPECT_EQ(origin_->idle_connections(), 0u);
}

TEST_F(Client, ConnectionsThatSayMoreThanTheirAnswerAreNotReused) {
  for (const std::string& bytes :
       {sized("x") + "HTTP/1.1 200 OK\r\n", sized("x") + "\n",
        std::string("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"),
        std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n0\r\n\r\n"),
        sized("x", "Connection: close\r\n")}) {
    Answer answer;
    send(answer);
    Peer server = accept();
    expect_request(server);
    server.send(bytes);
    ASSERT_TRUE(wait(answer));
    EXPECT_TRUE(answer.complete) << bytes;
    EXPECT_EQ(origin_->idle_connections(), 0u) << bytes;
    EXPECT_TRUE(loop_.until([&] { return server.read().ended || server.broken; })) << bytes;
  }
}

TEST_F(Client, BytesOnAnIdleConnectionReachNobody) {
  Peer server = warm_up();
  server.send(sized("of somebody else"));
  ASSERT_TRUE(loop_.until([&] { return origin_->idle_connections() == 0; }));
}

TEST_F(Client, BytesThatCameBeforeTheRequestAreNotItsAnswer) {
  // No turn of the loop has seen them when the next request goes, at the end of that which completed the
  // answer.
  Answer second;
  Answer first;
  send(first);
  Peer server = accept();
  first.at_body = [&] {
    loop_.loop().defer([&] {
      server.send(sized("stolen"));
      send(second);
    });
  };
  expect_request(server);
  server.send(sized("x"));
  Peer next = accept();
  expect_own_answer(next, second);
}

TEST_F(Client, AServerThatSaysTooMuchGetsAConnectionForEachRequestForAWhile) {
  begin(60s, 300ms);
  Peer other = warm_up();
  Answer held;
  send(held);
  expect_request(other);
  Answer loose;
  send(loose);
  Peer server = accept();
  expect_request(server);
  server.send(sized("x") + "y");
  ASSERT_TRUE(wait(loose));
  EXPECT_EQ(origin_->unasked(), 1u);
  other.send(sized("x"));
  ASSERT_TRUE(wait(held));
  EXPECT_EQ(origin_->idle_connections(), 0u);  // though its own answer was in order
  const Instant end = loop_.loop().now() + 300ms;
  ASSERT_TRUE(loop_.until([&] { return loop_.loop().now() > end; }));
  warm_up();
}

TEST_F(Client, NextExchangeBegunInTheLastCallGetsItsOwnAnswer) {
  // The first answer's body looks like an answer: it must not be taken for the second's.
  const std::string lure = sized("stolen");
  Answer second;
  Answer first;
  first.at_body = [&] {
    if (first.complete) send(second);
  };
  send(first);
  Peer server = accept();
  expect_request(server);
  server.send(sized(lure));
  ASSERT_TRUE(wait(first));
  EXPECT_EQ(first.body, lure);
  expect_own_answer(server, second);
}

TEST_F(Client, MalformedAnswersFailAsProtocolErrors) {
  using namespace std::string_literals;
  for (const std::string& bytes :
       {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"s,
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: \0\r\n\r\n"s, "HTTP/1.1 200 OK\nContent-Length: 1\n\n"s,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"s,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n"s,
        "HTTP/1.1 200 OK\r\nX: "s + std::string(70 << 10, 'x'), "HTTP/2.0 200 OK\r\n\r\n"s, "hello\r\n\r\n"s,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"s}) {
    Answer answer;
    send(answer);
    Peer server = accept();
    expect_request(server);
    server.send(bytes);
    ASSERT_TRUE(wait(answer)) << bytes.substr(0, 200);
    ASSERT_TRUE(answer.failure.has_value()) << bytes.substr(0, 200);
    EXPECT_EQ(answer.failure->cause, Outcome::protocol) << answer.failure->message;
    EXPECT_TRUE(answer.failure->request_sent);
    EXPECT_TRUE(loop_.until([&] { return server.read().ended || server.broken; }));
  }
  EXPECT_TRUE(no_other_connection());  // none of them was tried again
}

TEST_F(Client, RequestThatMayNotBeDoneTwiceIsNotSentAgain) {
  Peer server = warm_up();
  RequestBytes upload = kRequest;
  upload.repeatable = false;
  Answer answer;
  send(answer, {}, upload);
  expect_request(server);
  server.close();
  ASSERT_TRUE(wait(answer));
  ASSERT_TRUE(answer.failure.has_value());
  EXPECT_EQ(answer.failure->cause, Outcome::reset);
  EXPECT_TRUE(no_other_connection());
}

TEST_F(Client, HeadIsToldWithTheFirstPayload) {
  Answer answer;
  send(answer);
  Peer server = accept();
  expect_request(server);
  for (const std::string_view part :
       {"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chun", "ked\r\n\r\n", "5", "\r\n"}) {
    server.send(part);
    loop_.settle();
    EXPECT_EQ(answer.status, 0);
  }
  server.send("hello\r\n");
  ASSERT_TRUE(loop_.until([&] { return answer.body == "hello"; }));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.framing, BodyFraming::chunked);
  server.send("0\r\n\r\n");
  ASSERT_TRUE(wait(answer));
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(origin_->idle_connections(), 1u);
}

TEST_F(Client, AnswerWithoutPayloadEndsWithItsConnection) {
  Answer answer;
  send(answer);
  Peer server = accept();
  expect_request(server);
  server.send("HTTP/1.1 200 OK\r\n\r\n");
  loop_.settle();
  EXPECT_EQ(answer.status, 0);
  server.close();
  ASSERT_TRUE(wait(answer));
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.status, 200);
}

TEST_F(Client, InterimAnswersAreSkippedButNotForEver) {
  std::string many;
  for (int i = 0; i < 20; ++i) many += "HTTP/1.1 100 Continue\r\n\r\n";
  Answer answer;
  send(answer);
  Peer server = accept();
  server.send(many);
  ASSERT_TRUE(wait(answer));
  ASSERT_TRUE(answer.failure.has_value());
  EXPECT_EQ(answer.failure->cause, Outcome::protocol);
}

TEST_F(Client, StaleIdleConnectionIsReplacedOnce) {
  for (const bool with_reset : {false, true}) {
    Peer stale = warm_up();
    Answer answer;
    send(answer);  // before the loop can notice that the server has closed
    with_reset ? stale.reset() : stale.close();
    Peer fresh = accept();
    expect_request(fresh);
    fresh.send(sized("again"));
    ASSERT_TRUE(wait(answer));
    EXPECT_EQ(answer.body, "again");
    origin_->drop_idle();
  }
  // But a new connection that dies is an answer of its own, told to the caller.
  Peer stale = warm_up();
  Answer answer;
  send(answer);
  stale.close();
  Peer fresh = accept();
  expect_request(fresh);
  fresh.close();
  ASSERT_TRUE(wait(answer));
  ASSERT_TRUE(answer.failure.has_value());
  EXPECT_EQ(answer.failure->cause, Outcome::reset);
  EXPECT_TRUE(answer.failure->request_sent);
  EXPECT_TRUE(no_other_connection());
}

TEST_F(Client, RequestThatTheServerHasBegunToAnswerIsNotRepeated) {
  for (const std::string_view first :
       {"HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\n\r\nx"}) {
    Peer server = warm_up();
    Answer answer;
    send(answer);
    expect_request(server);
    server.send(first);
    loop_.settle();
    server.reset();
    ASSERT_TRUE(wait(answer)) << first;
    ASSERT_TRUE(answer.failure.has_value()) << first;
    EXPECT_EQ(answer.failure->cause, Outcome::reset);
    EXPECT_TRUE(no_other_connection()) << first;
  }
}

TEST_F(Client, AnswersCutInTheMiddleFail) {
  for (const std::string_view bytes :
       {"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"}) {
    Answer answer;
    send(answer);
    Peer server = accept();
    expect_request(server);
    server.send(bytes);
    server.half_close();
    ASSERT_TRUE(wait(answer)) << bytes;
    ASSERT_TRUE(answer.failure.has_value()) << bytes;
    EXPECT_EQ(answer.failure->cause, Outcome::reset);
  }
}

TEST_F(Client, EveryTimeLimitIsKept) {
  const auto failure = [&](const ExchangeTimeouts& timeouts, std::string_view bytes) {
    Answer answer;
    send(answer, timeouts);
    Peer server = accept();
    expect_request(server);
    server.send(bytes);
    EXPECT_TRUE(wait(answer));
    EXPECT_TRUE(answer.failure.has_value());
    EXPECT_EQ(answer.failure->cause, Outcome::timeout);
    return answer.failure->message;
  };
  EXPECT_EQ(failure({.first_byte = 20ms}, ""), "no answer within the first-byte limit");
  EXPECT_EQ(failure({.first_byte = 20ms}, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2"),
            "no answer within the first-byte limit");
  EXPECT_EQ(failure({.first_byte = 20ms}, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            "no more than a head within the first-byte limit");
  EXPECT_EQ(failure({.idle = 20ms}, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx"),
            "silent for longer than the idle limit");
  EXPECT_EQ(failure({.total = 20ms}, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx"),
            "total time limit passed");
  begin(20ms);
  Peer server = warm_up();
  EXPECT_TRUE(loop_.until([&] { return server.read().ended; }));
  EXPECT_EQ(origin_->idle_connections(), 0u);
}

TEST_F(Client, RefusedConnectionIsToldAfterSend) {
  ::close(std::exchange(listener_, -1));
  Answer answer;
  send(answer);
  EXPECT_FALSE(answer.over());
  ASSERT_TRUE(wait(answer));
  ASSERT_TRUE(answer.failure.has_value());
  EXPECT_EQ(answer.failure->cause, Outcome::refused);
  EXPECT_FALSE(answer.failure->request_sent);
}

TEST_F(Client, CancelClosesAtOnceAndIsSilent) {
  // While it waits, in the middle of the answer, from within both calls, and before the connection stands.
  Answer waiting;
  ClientConnection& first = send(waiting);
  Peer server = accept();
  expect_request(server);
  first.cancel();
  ASSERT_TRUE(loop_.until([&] { return server.read().ended || server.broken; }));
  EXPECT_FALSE(waiting.over());

  for (const bool at_head : {false, true}) {
    Answer answer;
    ClientConnection& connection = send(answer);
    (at_head ? answer.at_head : answer.at_body) = [&] { connection.cancel(); };
    Peer other = accept();
    expect_request(other);
    other.send(sized("xy").substr(0, at_head ? std::string::npos : sized("xy").size() - 1));
    ASSERT_TRUE(loop_.until([&] { return other.read().ended || other.broken; }));
    EXPECT_EQ(answer.status, 200);
    EXPECT_FALSE(answer.over());
  }

  Answer never;
  send(never).cancel();
  loop_.settle();
  EXPECT_FALSE(never.over());
}

TEST_F(Client, PausedAnswerWaitsInTheSocket) {
  Answer answer;
  ClientConnection& connection = send(answer, {.idle = 50ms});
  bool paused = false;
  answer.at_body = [&] {
    if (!std::exchange(paused, true)) connection.pause();
  };
  Peer server = accept();
  expect_request(server);
  const std::string body(32 << 20, 'y');
  const std::string bytes = sized(body);
  std::size_t sent = server.send_some(std::string_view(bytes).substr(0, 100));
  ASSERT_TRUE(loop_.until([&] { return paused; }));
  const std::size_t before = answer.body.size();
  // Until the socket takes no more, and for longer than the idle limit: it is not the server that is silent.
  for (std::size_t stuck = 0; stuck < 300;) {
    const std::size_t put = server.send_some(std::string_view(bytes).substr(sent));
    stuck = put == 0 ? stuck + 1 : 0;
    sent += put;
    loop_.turn();
  }
  EXPECT_LT(sent, bytes.size());
  EXPECT_EQ(answer.body.size(), before);
  EXPECT_FALSE(answer.over());
  connection.resume();
  ASSERT_TRUE(loop_.until([&] {
    sent += server.send_some(std::string_view(bytes).substr(sent));
    return answer.over();
  }));
  EXPECT_TRUE(answer.complete);
  EXPECT_TRUE(answer.body == body);
}

TEST_F(Client, ServerThatWasNotReadFromMayBeSilentForAnotherIdleTime) {
  Answer answer;
  ClientConnection& connection = send(answer, {.idle = 300ms});
  answer.at_head = [&] { connection.pause(); };
  Peer server = accept();
  expect_request(server);
  server.send(sized("xy").substr(0, sized("xy").size() - 1));
  ASSERT_TRUE(loop_.until([&] { return answer.status == 200; }));
  const auto turn_for = [&](Duration span) {
    const Instant end = loop_.loop().now() + span;
    return loop_.until([&] { return loop_.loop().now() >= end; });
  };
  ASSERT_TRUE(turn_for(400ms));
  connection.resume();
  ASSERT_TRUE(turn_for(150ms));
  EXPECT_FALSE(answer.over()) << answer.failure->message;
  server.send("y");
  ASSERT_TRUE(wait(answer));
  EXPECT_EQ(answer.body, "xy");
}

TEST_F(Client, LargeRequestToASlowServerArrivesWhole) {
  const std::string body(8 << 20, 'b');
  const std::string head =
      fmt::format("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.size());
  Answer answer;
  ClientConnection& connection = send(answer, {}, {.head = head, .body = body});
  Peer server = accept();
  loop_.settle();
  EXPECT_FALSE(connection.request_sent());
  ASSERT_TRUE(loop_.until([&] { return server.read(300'000).got.size() == head.size() + body.size(); }));
  EXPECT_TRUE(connection.request_sent());
  EXPECT_TRUE(server.got == head + body);
  server.send(sized("x"));
  ASSERT_TRUE(wait(answer));
  EXPECT_EQ(origin_->idle_connections(), 1u);
}

TEST_F(Client, EarlyAnswerCountsAndItsConnectionDoesNot) {
  const std::string body(32 << 20, 'b');
  const std::string head =
      fmt::format("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.size());
  Answer answer;
  send(answer, {}, {.head = head, .body = body});
  Peer server = accept();
  loop_.settle();
  server.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 1\r\n\r\nx");
  ASSERT_TRUE(wait(answer));
  EXPECT_EQ(answer.status, 413);
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(origin_->idle_connections(), 0u);  // half of a request is on its way there
}

}  // namespace
}  // namespace heng
