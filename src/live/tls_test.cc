// The server and the client speak TLS with each other: who is trusted, what is refused, and reloading.
#include "live/tls.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <functional>

#include "live/certificates_for_tests.h"
#include "live/http_client.h"
#include "live/http_server.h"
#include "live/loopback_test_peer.h"

namespace heng {
namespace {

using testing::AllOf;
using testing::HasSubstr;

struct Echo : RequestHandler {
  void on_request(ServerConnection& connection) override {
    ++requests;
    peer = connection.peer();
    connection.respond(200, {}, connection.body());
  }
  void on_bad_request(int) override { ++refused; }
  std::string peer;
  int requests = 0;
  int refused = 0;
};

struct Answer : ResponseObserver {
  void on_response_head(const HttpHead& head) override { status = head.status; }
  void on_response_body(std::span<const std::string_view> pieces, bool last) override {
    for (const std::string_view piece : pieces) body += piece;
    over = last;
  }
  void on_response_failed(const ExchangeFailure& told) override {
    failure = told;
    over = true;
  }
  int status = 0;
  std::string body;
  ExchangeFailure failure;
  bool over = false;
};

class Tls : public testing::Test {
 protected:
  void SetUp() override { std::signal(SIGPIPE, SIG_IGN); }  // as main() does; OpenSSL writes without asking
  void TearDown() override {
    loop_.turn();
    origin_.reset();
    server_.reset();
  }
  TlsConfig server_config() {
    const auto files = authority_.issue("server");
    return {.cert_file = files.cert, .key_file = files.key, .client_ca_file = {}};
  }
  void serve(const TlsConfig& config, HttpServer::Options options = {}) {
    const auto tls = server_tls(config);
    ASSERT_TRUE(tls) << tls.error().message;
    server_.emplace(loop_.loop(), echo_, options);
    server_->set_tls(tls->context);
    ASSERT_TRUE(server_->listen({"127.0.0.1", 0}));
  }
  void trust(const ClientTlsFiles& files) {
    HttpOrigin::Options options;
    options.endpoint = server_->endpoint();
    options.tls = true;
    origin_.emplace(loop_.loop(), resolver_, options);
    const auto ready = ClientTlsContexts().of(files);
    ASSERT_TRUE(ready) << ready.error().message;
    origin_->set_tls(ready->context);
  }
  Answer ask(const std::string& body = "hi", const ExchangeTimeouts& timeouts = {}) {
    const std::string head =
        fmt::format("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.size());
    Answer answer;
    origin_->send({.head = head, .body = body}, timeouts, answer);
    EXPECT_TRUE(loop_.until([&] { return answer.over; }));
    return answer;
  }
  double failures(const std::string& reason) {
    MetricRegistry metrics;
    server_->expose(metrics);
    return metrics.counter("heng_tls_handshake_failures_total", "", {{"reason", reason}}).value;
  }

  TurnedLoop loop_;
  Resolver resolver_{loop_.loop()};
  TestAuthority authority_;
  Echo echo_;
  std::optional<HttpServer> server_;
  std::optional<HttpOrigin> origin_;
};

TEST_F(Tls, CarriesBodiesOfAnySizeAndKeepsTheConnection) {
  serve(server_config());
  trust({authority_.ca_file(), "", ""});
  for (const std::size_t bytes : {0u, 1u, 16'384u, 16'385u, 3u << 20}) {
    std::string body(bytes, 'x');
    for (std::size_t i = 0; i < bytes; i += 97) body[i] = static_cast<char>('a' + i % 26);
    const Answer answer = ask(body);
    EXPECT_EQ(answer.status, 200) << answer.failure.message;
    EXPECT_EQ(answer.body, body);
  }
  EXPECT_EQ(server_->connections(), 1u);
}

TEST_F(Tls, NobodyIsServedWithoutTrustingTheCertificate) {
  serve(server_config());
  const TestAuthority other;
  trust({other.ca_file(), "", ""});
  const Answer answer = ask();
  EXPECT_EQ(answer.failure.cause, Outcome::protocol);
  EXPECT_FALSE(answer.failure.request_sent);
  EXPECT_THAT(answer.failure.message, HasSubstr("unable to get local issuer certificate"));
  EXPECT_EQ(echo_.requests, 0);
  EXPECT_TRUE(loop_.until([&] { return server_->connections() == 0; }));
  EXPECT_EQ(failures("TLS: tlsv1 alert unknown ca"), 1);
}

TEST_F(Tls, ClientsNeedACertificateWhereTheirAuthorityIsNamed) {
  const TestAuthority clients;
  TlsConfig config = server_config();
  config.client_ca_file = clients.ca_file();
  serve(config);
  const auto wrong = authority_.issue("stranger");
  for (const ClientTlsFiles& files :
       {ClientTlsFiles{authority_.ca_file(), "", ""},
        ClientTlsFiles{.ca_file = authority_.ca_file(), .cert_file = wrong.cert, .key_file = wrong.key}}) {
    trust(files);
    EXPECT_EQ(ask().status, 0);
    EXPECT_EQ(echo_.requests, 0);
  }
  const auto known = clients.issue("client");
  trust({.ca_file = authority_.ca_file(), .cert_file = known.cert, .key_file = known.key});
  EXPECT_EQ(ask().status, 200);
  EXPECT_EQ(failures("TLS: peer did not return a certificate"), 1);
}

TEST_F(Tls, ANewCertificateIsForNewConnectionsOnly) {
  serve(server_config());
  trust({authority_.ca_file(), "", ""});
  EXPECT_EQ(ask().status, 200);
  const TestAuthority next;
  const auto files = next.issue("renewed");
  server_->set_tls(
      server_tls({.cert_file = files.cert, .key_file = files.key, .client_ca_file = {}})->context);
  EXPECT_EQ(ask().status, 200);  // on the connection that is there
  EXPECT_EQ(server_->connections(), 1u);
  origin_->drop_idle();
  EXPECT_EQ(ask().status, 0);
  trust({next.ca_file(), "", ""});
  EXPECT_EQ(ask().status, 200);
}

TEST_F(Tls, HttpWithoutTlsIsToldSo) {
  serve(server_config());
  Peer peer = Peer::connect_to(server_->endpoint());
  ASSERT_TRUE(loop_.until([&] { return peer.established(); }));
  peer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(loop_.until([&] { return peer.read().ended || peer.broken; }));
  EXPECT_THAT(peer.got, AllOf(HasSubstr("HTTP/1.1 400 "), HasSubstr("use https://")));
  EXPECT_EQ(echo_.requests, 0);
  EXPECT_EQ(echo_.refused, 1);
}

TEST_F(Tls, HandshakesThatDoNotComeAboutEnd) {
  HttpServer::Options options;
  options.timeouts.client_handshake = 20ms;
  serve(server_config(), options);
  Peer silent = Peer::connect_to(server_->endpoint());
  EXPECT_TRUE(loop_.until([&] { return silent.read().ended || silent.broken; }));
  EXPECT_TRUE(silent.got.empty());
  EXPECT_EQ(failures("timeout"), 1);
}

TEST_F(Tls, AWorkerThatDoesNotShakeHandsIsATimeOutOfConnecting) {
  const int listener = tcp_listen(numeric_address({"127.0.0.1", 0}).value()).value();
  HttpOrigin::Options options;
  const SocketAddress address = local_address(listener);
  options.endpoint = {address.host(), address.port()};
  options.tls = true;
  origin_.emplace(loop_.loop(), resolver_, options);
  origin_->set_tls(ClientTlsContexts().of({authority_.ca_file(), "", ""}).value().context);
  const Answer answer = ask("hi", {.connect = 20ms, .first_byte = 600s});
  EXPECT_EQ(answer.failure.cause, Outcome::timeout);
  EXPECT_FALSE(answer.failure.request_sent);
  EXPECT_THAT(answer.failure.message, HasSubstr("handshake"));
  ::close(listener);
}

TEST_F(Tls, ACrowdOfNewcomersIsServedInTurn) {
  serve(server_config());
  trust({authority_.ca_file(), "", ""});
  const std::string head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  std::vector<Answer> answers(100);
  for (Answer& answer : answers) origin_->send({.head = head, .body = {}}, {}, answer);
  EXPECT_TRUE(loop_.until([&] { return std::ranges::all_of(answers, &Answer::over); }));
  for (const Answer& answer : answers) EXPECT_EQ(answer.status, 200) << answer.failure.message;
}

TEST_F(Tls, OnlyHttp11AndTheConfiguredVersionsAreSpoken) {
  TlsConfig config = server_config();
  config.min_version = "1.3";
  serve(config);
  const auto speaks = [&](int max_version, std::string_view alpn) {
    const TlsContext context = ClientTlsContexts().of({authority_.ca_file(), "", ""}).value().context;
    SSL_CTX_set_max_proto_version(context.get(), max_version);
    SSL_CTX_set_alpn_protos(context.get(), reinterpret_cast<const unsigned char*>(alpn.data()),
                            static_cast<unsigned>(alpn.size()));
    Transport transport(tcp_connect(numeric_address(server_->endpoint()).value()).value());
    EXPECT_TRUE(transport.start_tls(*context, "127.0.0.1", true));
    IoResult result{IoResult::State::blocked, 0};
    EXPECT_TRUE(loop_.until([&] {
      if (tcp_connected(transport.fd())) result = transport.handshake();
      return result.state != IoResult::State::blocked;
    }));
    return result.state == IoResult::State::ok;
  };
  EXPECT_TRUE(speaks(TLS1_3_VERSION, "\x08http/1.1"));
  EXPECT_TRUE(speaks(TLS1_3_VERSION, "\x02h2\x08http/1.1"));
  EXPECT_FALSE(speaks(TLS1_3_VERSION, "\x02h2"));
  EXPECT_FALSE(speaks(TLS1_2_VERSION, "\x08http/1.1"));
}

TEST_F(Tls, BadFilesAreNamedWithTheReason) {
  const auto good = authority_.issue("good");
  const auto other = authority_.issue("other");
  const auto expired = authority_.issue("expired", -7200, -3600);
  const auto future = authority_.issue("future", 3600, 7200);
  const auto said = [](const TestAuthority::Files& files, const std::string& ca = "") {
    const auto tls = server_tls({.cert_file = files.cert, .key_file = files.key, .client_ca_file = ca});
    return tls ? "" : tls.error().message;
  };
  EXPECT_EQ(said(good, authority_.ca_file()), "");
  EXPECT_THAT(said({authority_.path("missing"), good.key}),
              AllOf(HasSubstr("missing"), HasSubstr("No such file")));
  EXPECT_THAT(said({good.key, good.key}), AllOf(HasSubstr(good.key), HasSubstr("no start line")));
  EXPECT_THAT(said({good.cert, other.key}), HasSubstr("is not that of the certificate"));
  EXPECT_THAT(said(expired), AllOf(HasSubstr(expired.cert), HasSubstr("has expired on")));
  EXPECT_THAT(said(future), HasSubstr("is not valid before"));
  EXPECT_THAT(said(good, authority_.path("no-ca")), HasSubstr("no-ca"));
}

TEST_F(Tls, FilesOfAConfigurationAreCheckedAndSoonEndsForetold) {
  const auto good = authority_.issue("good", -60, 86400 * 30);
  const auto soon = authority_.issue("soon", -60, 86400 * 3);
  const double now_s = static_cast<double>(::time(nullptr));
  Config config;
  const auto check = [&] {
    ClientTlsContexts contexts;
    return check_tls_files(config, now_s, contexts);
  };
  EXPECT_EQ(check().value(), "");
  config.tls.cert_file = good.cert;
  config.tls.key_file = good.key;
  EXPECT_EQ(check().value(), "");
  WorkerConfig worker;
  worker.name = "w";
  worker.tls = true;
  worker.tls_ca_file = authority_.ca_file();
  worker.tls_cert_file = soon.cert;
  worker.tls_key_file = soon.key;
  PoolConfig pool;
  pool.workers.push_back(worker);
  config.pools.push_back(pool);
  EXPECT_THAT(check().value(), AllOf(HasSubstr(soon.cert), HasSubstr("3.0 days")));
  config.pools[0].workers[0].tls_key_file = good.key;
  EXPECT_THAT(check().error().message, HasSubstr("worker 'w'"));
}

TEST_F(Tls, WorkersWithTheSameFilesShareWhatIsLoaded) {
  const auto one = authority_.issue("one");
  ClientTlsContexts contexts;
  const ClientTlsFiles files{authority_.ca_file(), one.cert, one.key};
  const ClientTls first = contexts.of(files).value();
  EXPECT_EQ(contexts.of(files).value().context, first.context);
  EXPECT_EQ(contexts.of(files).value().expires_s, first.expires_s);
  EXPECT_NE(contexts.of({authority_.ca_file(), "", ""}).value().context, first.context);
  EXPECT_FALSE(contexts.of({authority_.path("late"), "", ""}));
  std::filesystem::copy_file(authority_.ca_file(), authority_.path("late"));
  EXPECT_TRUE(contexts.of({authority_.path("late"), "", ""})) << "a failure is not kept";
}

TEST(UnixSocket, IsItsOwnersOnlyAndGoesWithItsServer) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("heng_" + std::to_string(getpid()) + ".sock")).string();
  TurnedLoop loop;
  Echo echo;
  {
    // Left over by a program that is gone: the descriptor is closed, the file stays.
    ::close(tcp_listen(resolve_address({path, 0}).value()).value());
    HttpServer server(loop.loop(), echo, {});
    ASSERT_TRUE(server.listen({path, 0}));
    EXPECT_EQ(server.endpoint().host, path);
    struct stat facts{};
    ASSERT_EQ(::stat(path.c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, 0600u);
    Peer peer(tcp_connect(resolve_address({path, 0}).value()).value());
    peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    EXPECT_TRUE(loop.until([&] { return peer.read().got.ends_with("hi"); }));
    HttpServer second(loop.loop(), echo, {});
    const auto taken = second.listen({path, 0});
    ASSERT_FALSE(taken);
    EXPECT_THAT(taken.error().message, HasSubstr("unix:" + path));
    loop.turn();
  }
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
}

TEST(UnixSocket, ClientsHaveNoNamesOfTheirOwn) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("heng_" + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  TurnedLoop loop;
  Echo echo;
  HttpServer server(loop.loop(), echo, {});
  ASSERT_TRUE(server.listen({folder / "s", 0}));
  const SocketAddress own = resolve_address({folder / "x\r\nAuthorization: forged", 0}).value();
  const SocketAddress to = resolve_address({folder / "s", 0}).value();
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const auto as_sockaddr = [](const SocketAddress& address) {
    return reinterpret_cast<const sockaddr*>(address.bytes.data());
  };
  ASSERT_EQ(::bind(fd, as_sockaddr(own), static_cast<socklen_t>(own.bytes.size())), 0);
  ASSERT_EQ(::connect(fd, as_sockaddr(to), static_cast<socklen_t>(to.bytes.size())), 0);
  Peer peer(fd);
  peer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(loop.until([&] { return echo.requests == 1; }));
  EXPECT_EQ(echo.peer, "unix");
  std::filesystem::remove_all(folder);
}

TEST(SocketAddress, SourcesAreMachines) {
  const auto source = [](const char* host) { return numeric_address({host, 1}).value().source(); };
  for (const char* local : {"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"})
    EXPECT_EQ(source(local), 0u);
  EXPECT_NE(source("10.0.0.1"), 0u);
  EXPECT_NE(source("10.0.0.1"), source("10.0.0.2"));
  EXPECT_EQ(source("10.0.0.1"), source("::ffff:10.0.0.1"));
  EXPECT_EQ(source("2001:db8:1:2::1"), source("2001:db8:1:2:3::4"));
  EXPECT_NE(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
}

}  // namespace
}  // namespace heng
