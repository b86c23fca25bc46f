// The HTTP server against peers that are slow, rude, gone or in a hurry.
#include "live/http_server.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ifaddrs.h>

#include <functional>
#include <map>

#include "live/loopback_test_peer.h"

namespace heng {
namespace {

constexpr std::string_view kGet = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

struct ClientWatch : AnswerObserver {
  void on_client_gone() override { gone = true; }
  void on_drained() override { ++drained; }
  bool gone = false;
  int drained = 0;
};

/// Answers with the request's target and body at once, or leaves the answer to the test.
struct Handler : RequestHandler {
  bool on_head(ServerConnection& connection) override {
    heads.emplace_back(connection.head().target);
    EXPECT_EQ(connection.tenant, nullptr);
    Tenant tenant;
    tenant.key_id = heads.back();
    connection.tenant = std::make_shared<const Tenant>(tenant);
    if (const auto payer = payers.find(heads.back()); payer != payers.end())
      connection.charge_to(&payer->second);
    if (refuse_with == 0) return true;
    const HeaderField field{"WWW-Authenticate", "Bearer"};
    connection.respond(refuse_with, {&field, 1}, "no");
    return false;
  }
  void on_request(ServerConnection& connection) override {
    targets.emplace_back(connection.head().target);
    EXPECT_EQ(connection.tenant->key_id, targets.back());
    bodies.emplace_back(connection.body());
    if (answer) return answer(connection);
    if (hold) {
      held = &connection;
      connection.observe(&watch);
      return;
    }
    echo(connection, targets.back() + bodies.back());
  }
  void on_bad_request(int status) override { refused.push_back(status); }

  static void echo(ServerConnection& connection, std::string_view text) { connection.respond(200, {}, text); }

  std::vector<std::string> heads;
  int refuse_with = 0;                          // in on_head
  std::map<std::string, MemoryAccount> payers;  // by target
  std::vector<std::string> targets;
  std::vector<std::string> bodies;
  std::vector<int> refused;
  bool hold = false;
  ServerConnection* held = nullptr;
  ClientWatch watch;
  std::function<void(ServerConnection&)> answer;
};

std::string answer_with(std::string_view body, std::string_view more = "") {
  return fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{}\r\n{}", body.size(), more, body);
}

class Server : public testing::Test {
 protected:
  void start(HttpServer::Options options = {}) {
    server_.emplace(loop_.loop(), handler_, options);
    ASSERT_TRUE(server_->listen({"127.0.0.1", 0}).has_value());
  }
  void TearDown() override { loop_.turn(); }  // deferred calls come before the server goes

  Peer connect() {
    Peer peer = Peer::connect_to(server_->endpoint());
    EXPECT_TRUE(loop_.until([&] { return peer.established(); }));
    return peer;
  }
  /// Turns until the peer has `bytes` bytes or the connection has ended.
  bool receive(Peer& peer, std::size_t bytes) {
    return loop_.until([&] { return peer.read().got.size() >= bytes || peer.ended || peer.broken; });
  }
  bool receive_end(Peer& peer) {
    return loop_.until([&] { return peer.read().ended || peer.broken; });
  }
  void expect_exactly(Peer& peer, std::string_view bytes) {
    EXPECT_TRUE(receive(peer, bytes.size()));
    loop_.settle();
    EXPECT_EQ(peer.read().got, bytes);
  }
  /// A request whose answer the test gives; the connection is handler_.held.
  Peer connect_and_hold(std::string_view request = kGet) {
    handler_.hold = true;
    Peer peer = connect();
    peer.send(request);
    EXPECT_TRUE(loop_.until([&] { return handler_.held != nullptr; }));
    return peer;
  }

  TurnedLoop loop_;
  Handler handler_;
  std::optional<HttpServer> server_;
};

TEST_F(Server, AnswersOneRequestAfterTheOtherOnAConnection) {
  start();
  Peer peer = connect();
  for (int i = 0; i < 3; ++i) {
    peer.got.clear();
    peer.send(fmt::format("POST /{} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", i));
    expect_exactly(peer, answer_with(fmt::format("/{}hi", i)));
  }
  EXPECT_EQ(server_->connections(), 1u);
}

std::string refusal_401(bool kept) {
  return fmt::format("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 2\r\n{}\r\nno",
                     kept ? "" : "Connection: close\r\n");
}

TEST_F(Server, AsksTheHandlerBeforeItAsksForTheBody) {
  start();
  Peer peer = connect();
  peer.send("POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  expect_exactly(peer, "HTTP/1.1 100 Continue\r\n\r\n");
  EXPECT_EQ(handler_.heads, std::vector<std::string>{"/a"});
  EXPECT_TRUE(handler_.targets.empty());
  peer.send("hi");
  peer.got.clear();
  expect_exactly(peer, answer_with("/ahi"));
  handler_.refuse_with = 401;
  peer.got.clear();
  peer.send("POST /b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  ASSERT_TRUE(receive_end(peer));
  EXPECT_EQ(peer.got, refusal_401(false));
  EXPECT_EQ(handler_.targets, std::vector<std::string>{"/a"});
}

TEST_F(Server, KeepsAConnectionWhoseRefusedRequestIsThereInFull) {
  start();
  handler_.refuse_with = 401;
  Peer peer = connect();
  peer.send(std::string(kGet) + "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi" +
            std::string(kGet));
  expect_exactly(peer, refusal_401(true) + refusal_401(true) + refusal_401(true));
  EXPECT_EQ(handler_.heads, (std::vector<std::string>{"/", "/b", "/"}));
  handler_.refuse_with = 0;
  peer.got.clear();
  peer.send(kGet);
  expect_exactly(peer, answer_with("/"));
}

TEST_F(Server, NeverTakesTheRestOfARefusedBodyForARequest) {
  for (const std::string_view framing : {"Content-Length: 1000", "Transfer-Encoding: chunked"}) {
    for (const bool at_once : {false, true}) {
      start();
      handler_ = {};
      handler_.refuse_with = 401;
      Peer peer = connect();
      const std::string head = fmt::format("POST /a HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", framing);
      if (at_once) {
        peer.send(head + std::string(kGet) + "0\r\n\r\n" + std::string(kGet));
      } else {
        peer.send(head);
        EXPECT_TRUE(receive(peer, refusal_401(false).size()));
        peer.send(kGet);
      }
      ASSERT_TRUE(receive_end(peer));
      EXPECT_EQ(peer.got, refusal_401(false));
      loop_.settle();
      EXPECT_EQ(handler_.heads, std::vector<std::string>{"/a"});
      peer.close();
      EXPECT_TRUE(loop_.until([&] { return server_->connections() == 0; }));
    }
  }
}

TEST_F(Server, LetsNoSenderHaveTheLoopForItself) {
  start();
  handler_.refuse_with = 413;
  Peer rude = connect();
  rude.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n");
  ASSERT_TRUE(receive_end(rude));  // half-closed: what it sends is thrown away
  std::size_t sent = 0;
  const std::string much(4 << 20, 'x');
  EXPECT_TRUE(loop_.until([&] { return (sent += rude.send_some(much)) > (8u << 20); }));
  handler_.refuse_with = 0;
  Peer other = connect();
  other.send(kGet);
  expect_exactly(other, answer_with("/"));
}

TEST_F(Server, TakesMemoryForABodyAsItArrives) {
  start();
  std::string body(3 << 20, 'b');
  for (std::size_t i = 0; i < body.size(); i += 4093) body[i] = static_cast<char>('a' + i % 23);
  Peer peer = connect();
  peer.send(fmt::format("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.size()));
  for (std::size_t sent = 0; sent < body.size();) {
    sent += peer.send_some(std::string_view(body).substr(sent, 300'000));
    loop_.turn();
  }
  ASSERT_TRUE(receive(peer, body.size()));
  EXPECT_EQ(handler_.bodies, std::vector<std::string>{body});
}

TEST_F(Server, AnswersPipelinedRequestsInOrder) {
  start();
  Peer peer = connect();
  peer.send(
      "GET /a HTTP/1.1\r\nHost: a\r\n\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
      "chunked\r\n\r\n"
      "2\r\nxy\r\n0\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\n");
  ASSERT_TRUE(receive_end(peer));
  EXPECT_EQ(peer.got, answer_with("/a") + answer_with("/bxy") + answer_with("/c", "Connection: close\r\n"));
  EXPECT_TRUE(peer.ended);
  EXPECT_EQ(handler_.targets.size(), 3u);
}

TEST_F(Server, TakesARequestHoweverItIsCut) {
  start();
  const std::string requests =
      "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
      "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nX: "
      "y\r\n\r\n";
  const std::string answers = answer_with("/ahello") + answer_with("/babcd");
  Peer peer = connect();
  for (std::size_t cut = 1; cut < requests.size(); ++cut) {
    const std::size_t before = handler_.targets.size();
    peer.got.clear();
    peer.send(requests.substr(0, cut));
    loop_.turn();
    peer.send(requests.substr(cut));
    ASSERT_TRUE(receive(peer, answers.size()));
    ASSERT_EQ(peer.got, answers) << cut;
    ASSERT_EQ(handler_.targets.size(), before + 2) << cut;
  }
}

TEST_F(Server, RetiredOneAnswersOnceMoreAndClosesNothing) {
  start();
  Peer idle = connect();
  Peer unused = connect();
  Peer held = connect_and_hold();
  loop_.settle();
  server_->retire();
  loop_.settle();
  EXPECT_FALSE(idle.read().ended) << "it may be about to send";
  EXPECT_EQ(server_->listener(), -1);
  Handler::echo(*std::exchange(handler_.held, nullptr), "held");
  ASSERT_TRUE(receive_end(held));
  EXPECT_EQ(held.got, answer_with("held", "Connection: close\r\n"));
  handler_.hold = false;
  for (Peer* peer : {&idle, &unused}) {
    peer->send(kGet);
    ASSERT_TRUE(receive_end(*peer));
    EXPECT_EQ(peer->got, answer_with("/", "Connection: close\r\n"));
  }
}

TEST_F(Server, RetiredOneKeepsAConnectionThatWasPromisedToStay) {
  start();
  Peer peer = connect_and_hold();
  handler_.held->start(200, "OK", {}, BodyFraming::length, 2);
  handler_.held->flush();
  ASSERT_TRUE(receive(peer, 1));
  server_->retire();
  const std::string_view body = "hi";
  std::exchange(handler_.held, nullptr)->write({&body, 1}, true);
  expect_exactly(peer, answer_with("hi"));
  EXPECT_FALSE(peer.ended);
  handler_.hold = false;
  peer.got.clear();
  peer.send(kGet);
  ASSERT_TRUE(receive_end(peer));
  EXPECT_EQ(peer.got, answer_with("/", "Connection: close\r\n"));
}

TEST_F(Server, InheritedSocketIsTakenWithItsQueue) {
  HttpServer before(loop_.loop(), handler_, {});
  ASSERT_TRUE(before.listen({"127.0.0.1", 0}).has_value());
  const Endpoint endpoint = before.endpoint();
  const int passed_on = ::dup(before.listener());
  before.retire();
  Peer queued = Peer::connect_to(endpoint);  // nobody accepts now
  queued.send(kGet);
  loop_.settle();
  InheritedSockets inherited(std::span(&passed_on, 1));
  EXPECT_EQ(inherited.left().size(), 1u);
  server_.emplace(loop_.loop(), handler_, HttpServer::Options{});
  ASSERT_TRUE(server_->listen(endpoint, &inherited).has_value());
  EXPECT_TRUE(inherited.left().empty());
  expect_exactly(queued, answer_with("/"));
}

TEST_F(Server, BodyBeyondTheMemoryForAllIsRefused) {
  HttpServer::Options options;
  options.limits.buffered_bytes = Buffer::held_bytes() + 100'000;
  start(options);
  Peer declared = connect();
  declared.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
  ASSERT_TRUE(receive_end(declared));
  EXPECT_TRUE(declared.got.starts_with("HTTP/1.1 503 ")) << declared.got;
  EXPECT_TRUE(declared.got.contains("Retry-After: 1\r\n")) << declared.got;
  Peer chunked = connect();
  chunked.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = fmt::format("{:x}\r\n{}\r\n", 20'000, std::string(20'000, 'x'));
  for (int i = 0; i < 8; ++i) chunked.send(chunk);
  ASSERT_TRUE(receive(chunked, 12));
  EXPECT_TRUE(chunked.got.starts_with("HTTP/1.1 503 ")) << chunked.got;
  Peer bare = connect();
  bare.send(kGet);
  expect_exactly(bare, answer_with("/"));
}

TEST_F(Server, WhoPaysMayHoldAsMuchMemoryAsIsFree) {
  handler_.payers = {{"/greedy", {}}, {"/modest", {}}};
  HttpServer::Options options;
  options.limits.buffered_bytes = Buffer::held_bytes() + 400'000;
  start(options);
  const auto post = [](std::string_view target, std::size_t size) {
    return fmt::format("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", target, size);
  };
  Peer holds = connect();
  holds.send(post("/greedy", 150'000));
  Peer trickles = connect();
  trickles.send("POST /greedy HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n");
  ASSERT_TRUE(loop_.until([&] { return handler_.payers["/greedy"].held_bytes >= 150'000; }));
  Peer asks = connect();
  asks.send(post("/greedy", 60'000));
  ASSERT_TRUE(receive(asks, 12));
  EXPECT_TRUE(asks.got.starts_with("HTTP/1.1 503 ")) << "210,000 with it, and 190,000 would be free";
  Peer other = connect();
  other.send(post("/modest", 100'000) + std::string(100'000, 'x'));
  expect_exactly(other, answer_with("/modest" + std::string(100'000, 'x')));

  Peer more = connect();
  more.send(post("/modest", 120'000));
  ASSERT_TRUE(loop_.until([&] { return handler_.payers["/modest"].held_bytes >= 120'000; }));
  trickles.send("1\r\nx\r\n");
  ASSERT_TRUE(receive(trickles, 12));
  EXPECT_TRUE(trickles.got.starts_with("HTTP/1.1 503 ")) << "makes room when others come";
  holds.send(std::string(150'000, 'x'));
  ASSERT_TRUE(receive(holds, 12));
  EXPECT_TRUE(holds.got.starts_with("HTTP/1.1 503 ")) << "... as does the next that goes on";
  ASSERT_TRUE(loop_.until([&] { return handler_.payers["/greedy"].held_bytes < 10'000; }));
}

TEST_F(Server, HeadsThatAreNotCompleteLeaveMemoryToRequests) {
  handler_.payers["/"];
  HttpServer::Options options;
  options.limits.buffered_bytes = Buffer::held_bytes() + 400'000;
  start(options);
  std::vector<Peer> slow;
  for (int i = 0; i < 20; ++i) {
    slow.push_back(connect());
    slow.back().send("GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(30'000, 'x'));
    loop_.settle();
  }
  EXPECT_GE(handler_.refused.size(), 10u);
  EXPECT_EQ(handler_.refused.back(), 503);
  Peer good = connect();
  good.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n" + std::string(90'000, 'x'));
  expect_exactly(good, answer_with("/" + std::string(90'000, 'x')));
}

TEST_F(Server, ReadsNotAheadForWhoHoldsTooMuchMemory) {
  handler_.payers["/"].held_bytes = 4 << 20;  // elsewhere
  HttpServer::Options options;
  options.limits.buffered_bytes = 2 << 20;
  start(options);
  Peer peer = connect_and_hold();
  const std::uint64_t before = Buffer::held_bytes();
  peer.send("GET /next HTTP/1.1\r\nHost: a\r\nX: " + std::string(10'000, 'x') + "\r\n\r\n");
  loop_.settle();
  EXPECT_LT(Buffer::held_bytes(), before + 10'000);
  handler_.hold = false;
  Handler::echo(*handler_.held, "late");
  expect_exactly(peer, answer_with("late") + answer_with("/next"));

  handler_.held = nullptr;
  Peer leaves = connect_and_hold();
  leaves.close();
  EXPECT_TRUE(loop_.until([&] { return handler_.watch.gone; })) << "it is noticed all the same";
}

TEST_F(Server, OutOfDescriptorsItTellsWhoeverComes) {
  start();
  std::vector<Peer> waiting;
  for (int i = 0; i < 3; ++i) waiting.push_back(Peer::connect_to(server_->endpoint()));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int lowest = ::dup(0);
  ::close(lowest);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(lowest);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const bool told = loop_.until([&] {
    return std::ranges::all_of(waiting, [](Peer& peer) { return peer.read().ended || peer.broken; });
  });
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_TRUE(told);
  for (const Peer& peer : waiting) EXPECT_TRUE(peer.got.starts_with("HTTP/1.1 503 ")) << peer.got;
  Peer later = connect();
  later.send(kGet);
  expect_exactly(later, answer_with("/"));
}

TEST_F(Server, PipelinedRequestsBeyondTheReadAheadAreNotForgotten) {
  start();
  Peer peer = connect_and_hold();
  // A multiple of the request's size fills the read-ahead exactly.
  const std::string padding(1024 - std::string_view("GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n").size(), 'x');
  const std::string request = fmt::format("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", padding);
  std::string requests;
  for (int i = 0; i < 200; ++i) requests += request;
  std::size_t sent = 0;
  for (int answered = 0; answered < 201; ++answered) {
    ASSERT_TRUE(loop_.until([&] {
      if (sent < requests.size()) sent += peer.send_some(std::string_view(requests).substr(sent));
      peer.read();
      return handler_.held != nullptr;
    })) << answered;
    Handler::echo(*std::exchange(handler_.held, nullptr), "x");
  }
  EXPECT_EQ(handler_.targets.size(), 201u);
}

TEST_F(Server, LargeBodyPipelinedBehindASlowAnswerArrives) {
  start();
  Peer peer = connect_and_hold();
  const std::string body(32 << 20, 'b');
  const std::string request =
      fmt::format("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
  std::size_t sent = 0;
  const auto go_on = [&] { return sent += peer.send_some(std::string_view(request).substr(sent)); };
  // Until neither side takes any more.
  ASSERT_TRUE(loop_.until([&] {
    const std::size_t before = sent;
    loop_.settle();
    return go_on() == before;
  }));
  ASSERT_LT(sent, request.size());
  handler_.hold = false;
  Handler::echo(*handler_.held, "first");
  ASSERT_TRUE(loop_.until([&] {
    if (sent < request.size()) go_on();
    return handler_.bodies.size() == 2;
  }));
  EXPECT_EQ(handler_.bodies.back(), body);
}

TEST_F(Server, RequestStaysReadableAfterTheAnswerThatClosesTheConnection) {
  start();
  std::string seen;
  handler_.answer = [&](ServerConnection& connection) {
    connection.respond(200, {}, "x");
    seen = std::string(connection.head().target) + std::string(connection.body());
  };
  Peer peer = connect();
  peer.send("POST /kept HTTP/1.1\r\nConnection: close\r\nContent-Length: 4\r\n");
  loop_.settle();  // so that the request lies in the connection's own buffer
  peer.send("Host: a\r\n\r\nbody");
  ASSERT_TRUE(receive_end(peer));
  EXPECT_EQ(seen, "/keptbody");
}

TEST_F(Server, MalformedRequestsAreAnsweredAndNothingBehindThemIsRun) {
  start();
  for (const auto& [request, status] : std::vector<std::pair<std::string, int>>{
           {"GET / HTTP/1.1\r\n\r\n", 400},
           {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400},
           {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
           {"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405},
           {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
           {"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 1\r\n\r\n", 417},
           {"GET /" + std::string(9000, 'x') + " HTTP/1.1\r\n\r\n", 414}}) {
    handler_.refused.clear();
    Peer peer = connect();
    peer.send(request + std::string(kGet));
    ASSERT_TRUE(receive_end(peer)) << request;
    EXPECT_TRUE(peer.ended) << request;
    EXPECT_TRUE(peer.got.starts_with(fmt::format("HTTP/1.1 {} ", status))) << request << peer.got;
    EXPECT_TRUE(peer.got.contains("Connection: close\r\n")) << peer.got;
    EXPECT_TRUE(peer.got.contains("\"error\"")) << peer.got;
    EXPECT_FALSE(peer.got.contains("HTTP/1.1 200")) << peer.got;
    EXPECT_EQ(handler_.refused, std::vector<int>{status});
  }
  EXPECT_TRUE(handler_.targets.empty());
}

TEST_F(Server, RefusalAfterAHeadRequestHasItsBody) {
  start();
  Peer peer = connect();
  peer.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
  expect_exactly(peer, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n");
  peer.got.clear();
  peer.send("\tbad\r\n\r\n");
  ASSERT_TRUE(receive_end(peer));
  EXPECT_TRUE(peer.got.contains("\"error\"")) << peer.got;
}

TEST_F(Server, BodiesOverTheLimitAreRefusedBeforeTheyAreRead) {
  HttpServer::Options options;
  options.limits.body_bytes = 10;
  start(options);
  Peer declared = connect();
  declared.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n");
  ASSERT_TRUE(receive_end(declared));
  EXPECT_TRUE(declared.got.starts_with("HTTP/1.1 413 "));
  Peer chunked = connect();
  chunked.send(
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n5\r\n12345\r\n");
  ASSERT_TRUE(receive_end(chunked));
  EXPECT_TRUE(chunked.got.starts_with("HTTP/1.1 413 "));
  Peer fitting = connect();
  fitting.send(
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
      "chunked\r\n\r\n6\r\n123456\r\n4\r\n1234\r\n0\r\n\r\n");
  expect_exactly(fitting, answer_with("/1234561234"));
}

TEST_F(Server, ChunkedBodiesOfAlmostNoPayloadEnd) {
  start();
  const std::string start_of_body = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1";
  for (const std::string& endless :
       {";" + std::string(200'000, 'x'), "\r\nx\r\n0\r\nX: " + std::string(200'000, 'x')}) {
    Peer peer = connect();
    const std::string bytes = start_of_body + endless;
    std::size_t sent = 0;
    ASSERT_TRUE(loop_.until([&] {
      sent += peer.send_some(std::string_view(bytes).substr(sent));
      return peer.read().ended || peer.broken;
    }));
    EXPECT_TRUE(peer.got.starts_with("HTTP/1.1 400 ")) << peer.got;
  }
  Peer crumbs = connect();  // many tiny chunks are fine
  std::string bytes = start_of_body + "\r\nx\r\n";
  for (int i = 1; i < 50'000; ++i) bytes += "1\r\nx\r\n";
  bytes += "0\r\n\r\n";
  std::size_t sent = 0;
  ASSERT_TRUE(loop_.until([&] {
    if (sent < bytes.size()) sent += crumbs.send_some(std::string_view(bytes).substr(sent));
    return !handler_.bodies.empty();
  }));
  EXPECT_EQ(handler_.bodies.back(), std::string(50'000, 'x'));
}

TEST_F(Server, RefusedClientThatGoesOnSendingStillGetsItsAnswer) {
  HttpServer::Options options;
  options.limits.body_bytes = 10;
  start(options);
  Peer peer = connect();
  peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
  for (int i = 0; i < 20; ++i) {
    peer.send(std::string(10000, 'x'));
    loop_.turn();
  }
  ASSERT_TRUE(receive_end(peer));
  EXPECT_TRUE(peer.ended) << "closed with a reset";
  EXPECT_TRUE(peer.got.starts_with("HTTP/1.1 413 "));
}

TEST_F(Server, ContinueIsSentOnceTheHeadHasPassed) {
  start();
  Peer peer = connect();
  peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  expect_exactly(peer, "HTTP/1.1 100 Continue\r\n\r\n");
  peer.got.clear();
  peer.send("ok");
  expect_exactly(peer, answer_with("/ok"));
}

TEST_F(Server, StreamsInChunksAsTheyAreWritten) {
  start();
  Peer peer = connect_and_hold();
  ServerConnection& connection = *handler_.held;
  const HeaderField type{"Content-Type", "text/event-stream"};
  connection.start(200, "Fine", {&type, 1}, BodyFraming::chunked);
  connection.flush();
  const std::string head =
      "HTTP/1.1 200 Fine\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
  expect_exactly(peer, head);
  const std::string_view pieces[] = {"data: ", "", "1\n\n"};
  connection.write(pieces, false);
  expect_exactly(peer, head + "9\r\ndata: 1\n\n\r\n");
  connection.flush();  // no payload: must not be the last chunk
  const std::vector<std::string_view> many(1500, "x");
  connection.write(many, true);
  expect_exactly(peer, head + "9\r\ndata: 1\n\n\r\n5dc\r\n" + std::string(1500, 'x') + "\r\n0\r\n\r\n");
  EXPECT_FALSE(handler_.watch.gone);
}

TEST_F(Server, OldClientsGetAPlainStreamUntilTheEnd) {
  start();
  Peer peer = connect_and_hold("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  handler_.held->start(200, "OK", {}, BodyFraming::chunked);
  const std::string_view piece = "data";
  handler_.held->write({&piece, 1}, true);
  ASSERT_TRUE(receive_end(peer));
  EXPECT_EQ(peer.got, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndata");
  EXPECT_TRUE(peer.ended);
}

TEST_F(Server, HeadAnswersHaveNoBody) {
  start();
  Peer peer = connect_and_hold("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
  handler_.held->start(200, "OK", {}, BodyFraming::chunked);
  const std::vector<std::string_view> many(1000, "x");
  handler_.held->write(many, true);
  expect_exactly(peer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
}

/// Chunks of 1000 bytes until the socket takes no more.
std::size_t fill(ServerConnection& connection) {
  const std::string chunk(1000, 'x');
  const std::string_view piece = chunk;
  std::size_t written = 0;
  connection.flush();
  for (; connection.pending_bytes() == 0; written += piece.size()) connection.write({&piece, 1}, false);
  return written;
}

std::string payload_of(std::string_view answer) {
  HttpHead head;
  llhttp_t parser;
  const HeadScan scan = scan_head(answer, 0, {});
  EXPECT_FALSE(parse_response_head(answer.substr(0, scan.size), {}, false, head, parser));
  std::vector<std::string_view> pieces;
  const ChunkResult result = decode_chunks(parser, answer.substr(scan.size), pieces);
  std::string payload = result.state == ChunkResult::State::end ? "" : "unfinished: ";
  for (const std::string_view piece : pieces) payload += piece;
  return payload;
}

TEST_F(Server, SlowReaderIsWaitedForAndThenLosesNothing) {
  start();
  Peer peer = connect_and_hold();
  ServerConnection& connection = *handler_.held;
  connection.start(200, "OK", {}, BodyFraming::chunked);
  std::size_t written = fill(connection);
  EXPECT_LE(connection.pending_bytes(), 2000u);  // only what the socket did not take is kept
  loop_.settle();
  EXPECT_EQ(handler_.watch.drained, 0);
  ASSERT_TRUE(loop_.until([&] { return peer.read(4096), handler_.watch.drained == 1; }));
  EXPECT_EQ(connection.pending_bytes(), 0u);
  written += fill(connection);
  connection.finish();
  ASSERT_TRUE(loop_.until([&] { return peer.read().got.ends_with("\r\n0\r\n\r\n"); }));
  EXPECT_EQ(payload_of(peer.got), std::string(written, 'x'));
  EXPECT_FALSE(handler_.watch.gone);
}

TEST_F(Server, ReaderThatTakesNothingIsCut) {
  HttpServer::Options options;
  options.timeouts.client_write = 20ms;
  start(options);
  Peer peer = connect_and_hold();
  handler_.held->start(200, "OK", {}, BodyFraming::chunked);
  fill(*handler_.held);
  ASSERT_TRUE(loop_.until([&] { return handler_.watch.gone; }));
  EXPECT_TRUE(loop_.until([&] { return server_->connections() == 0; }));
}

TEST_F(Server, TellsThatTheClientHasLeft) {
  start();
  for (const bool started : {false, true}) {
    for (const bool with_reset : {false, true}) {
      handler_.watch = {};
      handler_.held = nullptr;
      Peer peer = connect_and_hold();
      if (started) {
        handler_.held->start(200, "OK", {}, BodyFraming::chunked);
        handler_.held->flush();
        receive(peer, 1);
      }
      with_reset ? peer.reset() : peer.close();
      ASSERT_TRUE(loop_.until([&] { return handler_.watch.gone; })) << started << with_reset;
      ASSERT_TRUE(loop_.until([&] { return server_->connections() == 0; }));
    }
  }
}

TEST_F(Server, WritingToAClientThatHasLeftIsHarmless) {
  start();
  Peer peer = connect_and_hold();
  handler_.held->start(200, "OK", {}, BodyFraming::chunked);
  peer.reset();
  const std::string chunk(1 << 20, 'x');
  const std::string_view piece = chunk;
  for (int i = 0; i < 3; ++i) handler_.held->write({&piece, 1}, false);  // in one turn: nobody was told yet
  EXPECT_TRUE(loop_.until([&] { return handler_.watch.gone; }));
}

TEST_F(Server, ClientThatOnlySendsNoMoreGetsItsAnswer) {
  start();
  Peer before_head = connect_and_hold();
  before_head.half_close();
  loop_.settle();
  EXPECT_FALSE(handler_.watch.gone);
  Handler::echo(*std::exchange(handler_.held, nullptr), "late");
  ASSERT_TRUE(receive_end(before_head));
  EXPECT_EQ(before_head.got, "HTTP/1.1 100 Continue\r\n\r\n" + answer_with("late"));
  EXPECT_TRUE(before_head.ended);

  Peer in_stream = connect_and_hold();
  handler_.held->start(200, "OK", {}, BodyFraming::chunked);
  handler_.held->flush();
  ASSERT_TRUE(receive(in_stream, 1));
  in_stream.half_close();
  loop_.settle();
  const std::string_view piece = "late";
  handler_.held->write({&piece, 1}, false);
  handler_.held->finish();
  ASSERT_TRUE(receive_end(in_stream));
  EXPECT_EQ(payload_of(in_stream.got), "late");
  EXPECT_FALSE(handler_.watch.gone);
}

TEST_F(Server, PipelinedRequestsOfAHalfClosedClientAreAnswered) {
  start();
  Peer peer = connect_and_hold(std::string(kGet) +
                               "GET /2 HTTP/1.1\r\nHost: a\r\n\r\nPOST /3 HTTP/1.1\r\n"
                               "Host: a\r\nContent-Length: 9\r\n\r\ncut");
  peer.half_close();
  loop_.settle();
  handler_.hold = false;
  Handler::echo(*handler_.held, "1");
  ASSERT_TRUE(receive_end(peer));
  EXPECT_EQ(handler_.targets, (std::vector<std::string>{"/", "/2"}));
  EXPECT_TRUE(peer.got.contains(answer_with("1") + answer_with("/2") + "HTTP/1.1 400 ")) << peer.got;
}

TEST_F(Server, BodyThatEndsEarlyIsRefused) {
  start();
  Peer peer = connect();
  peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
  peer.half_close();
  ASSERT_TRUE(receive_end(peer));
  EXPECT_TRUE(peer.got.starts_with("HTTP/1.1 400 "));
  EXPECT_TRUE(handler_.targets.empty());
}

TEST_F(Server, AbortedStreamsDoNotLookComplete) {
  start();
  const std::string_view piece = "data";
  Peer chunked = connect_and_hold();
  handler_.held->start(200, "OK", {}, BodyFraming::chunked);
  handler_.held->write({&piece, 1}, false);
  std::exchange(handler_.held, nullptr)->abort();
  ASSERT_TRUE(receive_end(chunked));
  EXPECT_TRUE(chunked.got.ends_with("4\r\ndata\r\n"));  // and no last chunk

  Peer old = connect_and_hold("GET / HTTP/1.0\r\n\r\n");
  handler_.held->start(200, "OK", {}, BodyFraming::chunked);
  handler_.held->write({&piece, 1}, false);
  ASSERT_TRUE(loop_.until([&] { return old.read().got.ends_with("data"); }));
  std::exchange(handler_.held, nullptr)->abort();
  ASSERT_TRUE(receive_end(old));
  EXPECT_TRUE(old.broken) << "a clean end is the end of the answer for this client";

  Peer sized = connect_and_hold();
  handler_.held->start(200, "OK", {}, BodyFraming::length, 10);
  handler_.held->write({&piece, 1}, false);
  std::exchange(handler_.held, nullptr)->abort();
  ASSERT_TRUE(receive_end(sized));
  EXPECT_TRUE(sized.got.ends_with("Content-Length: 10\r\n\r\ndata"));
  EXPECT_FALSE(handler_.watch.gone);
  EXPECT_TRUE(loop_.until([&] {
    sized.half_close();
    chunked.half_close();
    return server_->connections() == 0;
  }));
}

TEST_F(Server, SlowHeadsBodiesAndIdleConnectionsTimeOut) {
  HttpServer::Options options;
  options.timeouts.client_header = options.timeouts.client_body = options.timeouts.client_idle = 20ms;
  start(options);
  Peer idle = connect();
  Peer head = connect();
  head.send("GET / HT");
  Peer body = connect();
  body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
  ASSERT_TRUE(receive_end(idle));
  EXPECT_TRUE(idle.ended && idle.got.empty());
  ASSERT_TRUE(receive_end(head));
  EXPECT_TRUE(head.got.starts_with("HTTP/1.1 408 "));
  ASSERT_TRUE(receive_end(body));
  EXPECT_TRUE(body.got.starts_with("HTTP/1.1 408 "));
  EXPECT_TRUE(handler_.targets.empty());
}

TEST_F(Server, ConnectionsBeyondTheLimitAreTurnedAway) {
  HttpServer::Options options;
  options.limits.connections = 2;
  start(options);
  Peer first = connect();
  Peer second = connect();
  ASSERT_TRUE(loop_.until([&] { return server_->connections() == 2; }));
  Peer third = Peer::connect_to(server_->endpoint());
  ASSERT_TRUE(receive_end(third));
  EXPECT_TRUE(third.got.starts_with("HTTP/1.1 503 "));
  EXPECT_TRUE(third.got.contains("Retry-After: "));
  first.close();
  ASSERT_TRUE(loop_.until([&] { return server_->connections() == 1; }));
  Peer fourth = connect();
  fourth.send(kGet);
  expect_exactly(fourth, answer_with("/"));
}

TEST_F(Server, TheConnectionIdleForLongestMakesRoom) {
  HttpServer::Options options;
  options.limits.connections = 2;
  start(options);
  Peer used = connect();
  Peer idle = connect();
  used.send(kGet);
  expect_exactly(used, answer_with("/"));
  const auto begun = std::chrono::steady_clock::now();
  ASSERT_TRUE(loop_.until([&] { return std::chrono::steady_clock::now() > begun + 1100ms; }));
  Peer fresh = connect();
  fresh.send(kGet);
  expect_exactly(fresh, answer_with("/"));
  ASSERT_TRUE(receive_end(idle));
  EXPECT_TRUE(idle.ended && idle.got.empty());
  used.got.clear();
  used.send(kGet);
  expect_exactly(used, answer_with("/"));
  EXPECT_EQ(server_->connections(), 2u);
}

TEST_F(Server, WhereAllGiveWayNobodyHoldsAConnection) {
  constexpr std::string_view kHeldBy[] = {"", "G", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"};
  for (const std::string_view begun : kHeldBy) {
    HttpServer::Options options;
    options.limits.connections = 2;
    options.all_give_way = true;
    start(options);
    Peer first = connect();
    first.send(begun);
    loop_.settle();
    Peer second = connect();
    second.send(begun);
    loop_.settle();
    Peer fresh = connect();
    fresh.send(kGet);
    expect_exactly(fresh, answer_with("/"));
    ASSERT_TRUE(receive_end(first)) << begun;
    EXPECT_EQ(server_->connections(), 2u);
    loop_.turn();
    server_.reset();
  }
}

TEST_F(Server, WhereAllGiveWayAnAnswerThatIsNotMadeYetDoesNot) {
  HttpServer::Options options;
  options.limits.connections = 1;
  options.all_give_way = true;
  start(options);
  Peer asks = connect_and_hold();
  Peer fresh = Peer::connect_to(server_->endpoint());
  ASSERT_TRUE(receive_end(fresh));
  EXPECT_TRUE(fresh.got.starts_with("HTTP/1.1 503 "));
  Handler::echo(*handler_.held, "done");
  expect_exactly(asks, answer_with("done"));
}

TEST_F(Server, OneAddressHasNotMoreThanItsShareOfConnections) {
  ifaddrs* interfaces = nullptr;
  ASSERT_EQ(::getifaddrs(&interfaces), 0);
  std::string host;
  for (const ifaddrs* one = interfaces; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
    const char* bytes = reinterpret_cast<const char*>(one->ifa_addr);
    const SocketAddress address{std::vector<char>(bytes, bytes + sizeof(sockaddr_in))};
    if (address.source() != 0) host = address.host();
  }
  ::freeifaddrs(interfaces);
  if (host.empty()) GTEST_SKIP() << "this machine has no address but loopback";
  HttpServer::Options options;
  options.limits.connections_per_source = 2;
  server_.emplace(loop_.loop(), handler_, options);
  ASSERT_TRUE(server_->listen({"0.0.0.0", 0}).has_value());
  const Endpoint endpoint{host, server_->endpoint().port};
  Peer first = Peer::connect_to(endpoint);
  Peer second = Peer::connect_to(endpoint);
  ASSERT_TRUE(loop_.until([&] { return server_->connections() == 2; }));
  Peer third = Peer::connect_to(endpoint);
  ASSERT_TRUE(receive_end(third));
  EXPECT_TRUE(third.got.starts_with("HTTP/1.1 429 "));
  Peer local = Peer::connect_to({"127.0.0.1", endpoint.port});
  local.send(kGet);
  expect_exactly(local, answer_with("/"));
  first.close();
  third.close();
  ASSERT_TRUE(loop_.until([&] { return server_->connections() == 2; }));
  Peer fourth = Peer::connect_to(endpoint);
  ASSERT_TRUE(loop_.until([&] { return fourth.established(); }));
  fourth.send(kGet);
  expect_exactly(fourth, answer_with("/"));
}

TEST_F(Server, ABodyThatDribblesIsNotWaitedForForEver) {
  HttpServer::Options options;
  options.timeouts.client_body = 50ms;
  options.limits.client_bytes_per_s = 1'000'000;
  start(options);
  for (const std::string_view framing : {"Content-Length: 1000000", "Transfer-Encoding: chunked"}) {
    Peer peer = connect();
    peer.send(fmt::format("POST / HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", framing));
    EXPECT_TRUE(loop_.until([&] {
      if (peer.read().got.empty()) peer.send("1\r\nx\r\n");
      return peer.ended || peer.broken;
    }));
    EXPECT_TRUE(peer.got.starts_with("HTTP/1.1 408 ")) << peer.got;
  }
}

TEST_F(Server, AReaderThatDribblesIsCut) {
  HttpServer::Options options;
  options.timeouts.client_write = 50ms;
  options.limits.client_bytes_per_s = 1'000'000'000;
  start(options);
  Peer peer = connect_and_hold();
  const std::string body(64 << 20, 'x');
  handler_.held->respond(200, {}, body);
  EXPECT_TRUE(loop_.until([&] {
    peer.read(10'000);
    return handler_.watch.gone;
  }));
}

TEST_F(Server, AResetThatComesWithTheRequestIsNoticed) {
  start();
  handler_.hold = true;
  Peer peer = connect();
  peer.send(kGet);
  peer.reset();
  EXPECT_TRUE(loop_.until([&] { return handler_.held != nullptr; }));
  EXPECT_TRUE(loop_.until([&] { return handler_.watch.gone; }));
}

TEST_F(Server, AClientThatLeavesWithItsReadAheadFullIsNoticed) {
  start();
  for (const bool reset : {false, true}) {
    handler_.held = nullptr;
    handler_.watch.gone = false;
    Peer peer = connect_and_hold();
    const std::string much(100'000, 'x');
    for (std::size_t sent = 0; sent < much.size(); loop_.turn())
      sent += peer.send_some(std::string_view(much).substr(sent));
    loop_.settle();
    EXPECT_FALSE(handler_.watch.gone);
    reset ? peer.reset() : peer.close();
    EXPECT_TRUE(loop_.until([&] { return handler_.watch.gone; })) << reset;
  }
}

TEST_F(Server, DrainFinishesWhatIsUnderWayAndNothingElse) {
  start();
  Peer idle = connect();
  Peer busy = connect_and_hold();
  const Endpoint endpoint = server_->endpoint();
  server_->drain();
  ASSERT_TRUE(receive_end(idle));
  EXPECT_TRUE(idle.ended && idle.got.empty());
  Peer late = Peer::connect_to(endpoint);
  ASSERT_TRUE(receive_end(late));
  EXPECT_TRUE(late.broken);  // refused
  Handler::echo(*handler_.held, "done");
  ASSERT_TRUE(receive_end(busy));
  EXPECT_EQ(busy.got, answer_with("done", "Connection: close\r\n"));
  busy.close();
  EXPECT_TRUE(loop_.until([&] { return server_->connections() == 0; }));
}

TEST_F(Server, ListenSaysWhyItCannot) {
  start();
  HttpServer second(loop_.loop(), handler_, {});
  const auto taken = second.listen(server_->endpoint());
  ASSERT_FALSE(taken.has_value());
  EXPECT_TRUE(taken.error().message.contains("127.0.0.1:")) << taken.error().message;
}

}  // namespace
}  // namespace heng
