// The engine server over real sockets on its own loop: what clients of OpenAI's API rely on.
#include "app/engine_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <simdjson.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "app/engine_answer.h"
#include "sim/prompt.h"

namespace heng {
namespace {

namespace dom = simdjson::dom;

/// A thousand times faster than the default, so that tests take no time.
EngineServerOptions fast() {
  EngineServerOptions options;
  options.listen.port = 0;
  options.model = "m";
  options.engine.speed = 1000;
  return options;
}

struct Answer {
  int status = 0;
  std::string head;
  std::string body;  // without chunk framing
};

/// A client on the server's loop. Collects what arrives; tells when the server closes.
class Client {
 public:
  Client(Loop& loop, const Endpoint& server, std::function<void()> on_close)
      : on_close_(std::move(on_close)) {
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(server.port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    watch_.start(loop, fd_, [](void* self, FdWatch::Ready) { static_cast<Client*>(self)->read(); }, this);
  }
  ~Client() { close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void send(const std::string& bytes) {
    ASSERT_EQ(::send(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  void close() {
    if (fd_ < 0) return;
    watch_.stop();
    ::close(fd_);
    fd_ = -1;
  }
  std::string received;

 private:
  void read() {
    char buffer[65536];
    for (;;) {
      const ssize_t got = ::recv(fd_, buffer, sizeof buffer, MSG_DONTWAIT);
      if (got < 0) return;
      if (got == 0) break;
      received.append(buffer, static_cast<std::size_t>(got));
    }
    close();
    on_close_();
  }

  std::function<void()> on_close_;
  int fd_ = -1;
  FdWatch watch_;
};

std::string without_chunks(std::string_view framed) {
  std::string body;
  while (!framed.empty()) {
    const std::size_t line = framed.find("\r\n");
    const std::size_t size = std::stoul(std::string(framed.substr(0, line)), nullptr, 16);
    body += framed.substr(line + 2, size);
    framed.remove_prefix(std::min(framed.size(), line + 2 + size + 2));
  }
  return body;
}

class EngineServerTest : public testing::Test {
 protected:
  explicit EngineServerTest(EngineServerOptions options = fast()) : server_(loop_, std::move(options)) {
    EXPECT_TRUE(server_.start().has_value());
  }

  static std::string request(std::string_view method, std::string_view path, std::string_view body) {
    return fmt::format("{} {} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
                       method, path, body.size(), body);
  }

  Answer exchange(std::string_view method, std::string_view path, std::string_view body = {}) {
    Client client(loop_, server_.endpoint(), [this] { loop_.stop(); });
    client.send(request(method, path, body));
    run_loop();
    const std::size_t end = client.received.find("\r\n\r\n");
    if (end == std::string::npos) {
      ADD_FAILURE() << "no answer: " << client.received;
      return {};
    }
    Answer answer{std::stoi(client.received.substr(9, 3)), client.received.substr(0, end),
                  client.received.substr(end + 4)};
    if (answer.head.find("Transfer-Encoding: chunked") != std::string::npos) {
      answer.body = without_chunks(answer.body);
    }
    return answer;
  }
  Answer post(std::string_view path, std::string_view body) { return exchange("POST", path, body); }

  /// Until somebody stops the loop; a test that hangs fails instead.
  void run_loop() {
    Timer guard(loop_, [this] {
      ADD_FAILURE() << "nothing happened for 20 s";
      loop_.stop();
    });
    guard.once(20s);
    loop_.run();
  }

  dom::element parse(const std::string& text) {
    dom::element root;
    EXPECT_EQ(parser_.parse(text).get(root), simdjson::SUCCESS) << text;
    return root;
  }

  /// The data of all events, in order.
  static std::vector<std::string> events(const std::string& body) {
    std::vector<std::string> found;
    std::size_t at = 0;
    while ((at = body.find("data: ", at)) != std::string::npos) {
      const std::size_t end = body.find("\n\n", at);
      found.push_back(body.substr(at + 6, end - at - 6));
      at = end;
    }
    return found;
  }

  Loop loop_;
  EngineServer server_;
  dom::parser parser_;
};

std::string text(dom::element element) { return std::string(std::string_view(element)); }

TEST_F(EngineServerTest, ChatAnswersWithTheTokensAskedFor) {
  const Answer answer =
      post("/v1/chat/completions",
           R"({"model":"m","messages":[{"role":"user","content":"Hello"}],"max_tokens":7})");
  EXPECT_EQ(answer.status, 200);
  const dom::element root = parse(answer.body);
  EXPECT_EQ(text(root["object"]), "chat.completion");
  const dom::element choice = root["choices"].at(0);
  EXPECT_EQ(text(choice["message"]["role"]), "assistant");
  EXPECT_EQ(text(choice["message"]["content"]).size(), 7 * kBytesPerToken);
  EXPECT_EQ(text(choice["finish_reason"]), "length");
  // "<|user|>" 2 tokens, "Hello" 2, "<|assistant|>" 4.
  EXPECT_EQ(std::int64_t(root["usage"]["prompt_tokens"]), 8);
  EXPECT_EQ(std::int64_t(root["usage"]["completion_tokens"]), 7);
  EXPECT_EQ(std::int64_t(root["usage"]["total_tokens"]), 15);
  EXPECT_EQ(std::int64_t(root["usage"]["prompt_tokens_details"]["cached_tokens"]), 0);
}

TEST_F(EngineServerTest, WithoutAMaximumTheAnswerStopsByItself) {
  const Answer answer = post("/v1/completions", R"({"model":"m","prompt":"Hello"})");
  const dom::element root = parse(answer.body);
  EXPECT_EQ(text(root["choices"].at(0)["finish_reason"]), "stop");
  EXPECT_EQ(std::int64_t(root["usage"]["completion_tokens"]), 128);
}

TEST_F(EngineServerTest, AStreamSaysTheSameOneTokenAtATime) {
  const std::string fields =
      R"("model":"m","messages":[{"role":"user","content":"Hello"}],"max_completion_tokens":9)";
  const std::string whole = text(
      parse(post("/v1/chat/completions", "{" + fields + "}").body)["choices"].at(0)["message"]["content"]);
  const Answer answer = post("/v1/chat/completions",
                             "{" + fields + R"(,"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_NE(answer.head.find("text/event-stream"), std::string::npos);
  const auto chunks = events(answer.body);
  ASSERT_EQ(chunks.size(), 1u + 9 + 1 + 1 + 1);  // role, tokens, end, usage, [DONE]
  EXPECT_EQ(text(parse(chunks[0])["choices"].at(0)["delta"]["role"]), "assistant");
  std::string streamed;
  for (std::size_t i = 1; i <= 9; ++i) {
    const dom::element chunk = parse(chunks[i]);
    EXPECT_EQ(text(chunk["object"]), "chat.completion.chunk");
    EXPECT_TRUE(chunk["usage"].is_null());
    streamed += text(chunk["choices"].at(0)["delta"]["content"]);
  }
  EXPECT_EQ(streamed, whole);
  EXPECT_EQ(text(parse(chunks[10])["choices"].at(0)["finish_reason"]), "length");
  EXPECT_EQ(std::int64_t(parse(chunks[11])["usage"]["completion_tokens"]), 9);
  EXPECT_EQ(chunks[12], "[DONE]");
}

TEST_F(EngineServerTest, CompletionsStreamTextAndTakeTokenNumbers) {
  const auto chunks =
      events(post("/v1/completions", R"({"model":"m","prompt":[1,2,3],"max_tokens":2,"stream":true})").body);
  ASSERT_EQ(chunks.size(), 2u + 1 + 1);
  EXPECT_EQ(text(parse(chunks[0])["object"]), "text_completion");
  EXPECT_EQ(text(parse(chunks[1])["choices"].at(0)["text"]).size(), kBytesPerToken);
  const Answer whole = post("/v1/completions", R"({"model":"m","prompt":["Hello"],"max_tokens":2})");
  EXPECT_EQ(std::int64_t(parse(whole.body)["usage"]["prompt_tokens"]), 2);
}

TEST_F(EngineServerTest, TheNextTurnOfAChatIsCached) {
  const std::string question = R"({"role":"user","content":"Hello"})";
  const Answer first =
      post("/v1/chat/completions", R"({"model":"m","messages":[)" + question + R"(],"max_tokens":56})");
  std::string said = text(parse(first.body)["choices"].at(0)["message"]["content"]);
  said.pop_back();  // clients trim
  const Answer second =
      post("/v1/chat/completions", R"({"model":"m","messages":[)" + question +
                                       R"(,{"role":"assistant","content":")" + said +
                                       R"("},{"role":"user","content":"And now?"}],"max_tokens":1})");
  // The first turn had 8 + 56 tokens: four blocks of 16, the last token of which was made but never read.
  EXPECT_EQ(std::int64_t(parse(second.body)["usage"]["prompt_tokens_details"]["cached_tokens"]), 48);
  EXPECT_EQ(server_.engine().counters().prefix_hit_tokens, 48u);
}

TEST_F(EngineServerTest, EmbeddingsAreUnitVectorsInBothEncodings) {
  const Answer plain = post("/v1/embeddings", R"({"model":"m","input":["one","two","one"],"dimensions":8})");
  const dom::element data = parse(plain.body)["data"];
  std::vector<std::vector<float>> vectors;
  for (const dom::element entry : dom::array(data)) {
    std::vector<float> vector;
    for (const dom::element value : dom::array(entry["embedding"])) {
      vector.push_back(static_cast<float>(double(value)));
    }
    vectors.push_back(std::move(vector));
  }
  ASSERT_EQ(vectors.size(), 3u);
  for (const auto& vector : vectors) {
    ASSERT_EQ(vector.size(), 8u);
    double square = 0;
    for (const float value : vector) square += double{value} * double{value};
    EXPECT_NEAR(square, 1, 1e-6);
  }
  EXPECT_EQ(vectors[0], vectors[2]);
  EXPECT_NE(vectors[0], vectors[1]);
  EXPECT_EQ(vectors[0], embed("one", 8));

  const Answer packed =
      post("/v1/embeddings", R"({"model":"m","input":"one","dimensions":8,"encoding_format":"base64"})");
  const std::string base64 = text(parse(packed.body)["data"].at(0)["embedding"]);
  ASSERT_EQ(base64.size(), 44u);  // 32 bytes
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  for (std::size_t i = 0; i < base64.size(); i += 4) {
    std::size_t group = 0;
    for (std::size_t k = 0; k < 4; ++k) group = group << 6 | (kDigits.find(base64[i + k]) & 63);
    for (const int shift : {16, 8, 0}) bytes += static_cast<char>(group >> shift);
  }
  std::vector<float> unpacked(8);
  std::memcpy(unpacked.data(), bytes.data(), 32);
  EXPECT_EQ(unpacked, vectors[0]);
}

TEST_F(EngineServerTest, ResponsesAreStoredFoundContinuedAndDeleted) {
  const Answer first =
      post("/v1/responses", R"({"model":"m","input":"Hello","instructions":"Be \"brief\"."})");
  const std::string id = text(parse(first.body)["id"]);
  EXPECT_EQ(text(parse(first.body)["status"]), "completed");
  EXPECT_EQ(text(parse(first.body)["instructions"]), "Be \"brief\".");
  EXPECT_EQ(exchange("GET", "/v1/responses/" + id).body, first.body);
  const Answer second =
      post("/v1/responses",
           R"({"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"More"}]}],)"
           R"("instructions":"Be \"brief\".","max_output_tokens":3,"previous_response_id":")" +
               id + "\"}");
  const dom::element root = parse(second.body);
  EXPECT_EQ(text(root["status"]), "incomplete");
  EXPECT_EQ(text(root["incomplete_details"]["reason"]), "max_output_tokens");
  EXPECT_EQ(text(root["output"].at(0)["content"].at(0)["text"]).size(), 3 * kBytesPerToken);
  // 14 tokens of prompt and 128 of answer, but for the last: eight blocks of 16.
  EXPECT_EQ(std::int64_t(root["usage"]["input_tokens_details"]["cached_tokens"]), 128);
  EXPECT_EQ(exchange("DELETE", "/v1/responses/" + id).status, 200);
  EXPECT_EQ(exchange("GET", "/v1/responses/" + id).status, 404);
  EXPECT_EQ(post("/v1/responses", R"({"model":"m","input":"x","previous_response_id":")" + id + "\"}").status,
            404);
  const Answer unstored = post("/v1/responses", R"({"model":"m","input":"Hello","store":false})");
  EXPECT_EQ(exchange("GET", "/v1/responses/" + text(parse(unstored.body)["id"])).status, 404);
}

TEST_F(EngineServerTest, ResponsesStreamTypedEventsInSequence) {
  const Answer answer = post("/v1/responses", R"({"model":"m","input":"Hello","stream":true})");
  std::vector<std::string> types;
  std::string streamed;
  std::int64_t number = 0;
  for (const std::string& event : events(answer.body)) {
    const dom::element root = parse(event);
    EXPECT_EQ(std::int64_t(root["sequence_number"]), number++);
    const std::string type = text(root["type"]);
    EXPECT_NE(answer.body.find("event: " + type + "\ndata: "), std::string::npos);
    if (type == "response.output_text.delta") streamed += text(root["delta"]);
    if (types.empty() || types.back() != type) types.push_back(type);
    if (type == "response.completed") {
      EXPECT_EQ(text(root["response"]["output"].at(0)["content"].at(0)["text"]), streamed);
      EXPECT_EQ(std::int64_t(root["response"]["usage"]["output_tokens"]), 128);
      const std::string id = text(root["response"]["id"]);
      EXPECT_EQ(exchange("GET", "/v1/responses/" + id).status, 200);
    }
  }
  EXPECT_EQ(types,
            (std::vector<std::string>{
                "response.created", "response.in_progress", "response.output_item.added",
                "response.content_part.added", "response.output_text.delta", "response.output_text.done",
                "response.content_part.done", "response.output_item.done", "response.completed"}));
  EXPECT_EQ(streamed.size(), 128 * kBytesPerToken);
}

TEST_F(EngineServerTest, BadRequestsGetOpenAiErrors) {
  struct Case {
    std::string_view path;
    std::string body;
    int status;
    std::string_view code;
  };
  const std::string too_long(140'000ull * kBytesPerToken, 'a');
  const Case cases[] = {
      {"/v1/chat/completions", "{", 400, "invalid_json"},
      {"/v1/chat/completions", R"({"model":"m","messages":[{"role":"user","content":"a"}]} x)", 400,
       "invalid_json"},
      {"/v1/chat/completions", "[]", 400, ""},
      {"/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}]})", 400, "invalid_value"},
      {"/v1/chat/completions", R"({"model":7,"messages":[{"role":"user","content":"a"}]})", 400,
       "invalid_value"},
      {"/v1/chat/completions", R"({"model":"x","messages":[{"role":"user","content":"a"}]})", 404,
       "model_not_found"},
      {"/v1/chat/completions", R"({"model":"m","messages":[]})", 400, "invalid_value"},
      {"/v1/chat/completions", R"({"model":"m","messages":[{"content":"a"}]})", 400, "invalid_value"},
      {"/v1/chat/completions", R"({"model":"m","messages":[3]})", 400, "invalid_value"},
      {"/v1/chat/completions", R"({"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":0})",
       400, "invalid_value"},
      {"/v1/chat/completions", R"({"model":"m","messages":[{"role":"user","content":"a"}],"stream":1})", 400,
       "invalid_value"},
      {"/v1/completions", R"({"model":"m","prompt":""})", 400, "invalid_value"},
      {"/v1/completions", R"({"model":"m","prompt":["a","b"]})", 400, "invalid_value"},
      {"/v1/completions", R"({"model":"m","prompt":"a","n":2})", 400, "invalid_value"},
      {"/v1/completions", R"({"model":"m","prompt":")" + too_long + "\"}", 400, "context_length_exceeded"},
      {"/v1/embeddings", R"({"model":"m","input":[]})", 400, "invalid_value"},
      {"/v1/embeddings", R"({"model":"m","input":["a",""]})", 400, "invalid_value"},
      {"/v1/embeddings", R"({"model":"m","input":["a",")" + too_long + "\"]}", 400,
       "context_length_exceeded"},
      {"/v1/responses", R"({"model":"m"})", 400, "invalid_value"},
      {"/v1/nothing", "{}", 404, "not_found"},
      {"/control", R"({"speed":-1})", 400, "invalid_value"},
      {"/control", R"({"speed":"fast"})", 400, "invalid_value"},
  };
  for (const Case& bad : cases) {
    const Answer answer = post(bad.path, bad.body);
    EXPECT_EQ(answer.status, bad.status) << bad.body.substr(0, 100);
    const dom::element error = parse(answer.body)["error"];
    EXPECT_FALSE(text(error["message"]).empty());
    EXPECT_EQ(error["code"].is_null() ? "" : text(error["code"]), bad.code) << bad.body.substr(0, 100);
  }
  EXPECT_EQ(server_.engine().running() + server_.engine().waiting(), 0u);
  EXPECT_EQ(server_.engine().cache().used(), 0u);
}

TEST_F(EngineServerTest, AnAnswerIsCutWhereTheContextEnds) {
  const std::string prompt(131'000ull * kBytesPerToken, 'a');
  const Answer answer =
      post("/v1/completions", R"({"model":"m","prompt":")" + prompt + R"(","max_tokens":500})");
  const dom::element root = parse(answer.body);
  EXPECT_EQ(std::int64_t(root["usage"]["completion_tokens"]), 72);
  EXPECT_EQ(text(root["choices"].at(0)["finish_reason"]), "length");
}

TEST_F(EngineServerTest, ModelsAndHealth) {
  EXPECT_EQ(text(parse(exchange("GET", "/v1/models").body)["data"].at(0)["id"]), "m");
  EXPECT_EQ(text(parse(exchange("GET", "/v1/models/m").body)["id"]), "m");
  EXPECT_EQ(exchange("GET", "/v1/models/x").status, 404);
  EXPECT_EQ(exchange("GET", "/health").status, 200);
}

TEST_F(EngineServerTest, MetricsCountWhatHappened) {
  post("/v1/completions", R"({"model":"m","prompt":"Hello you","max_tokens":5})");
  const std::string page = exchange("GET", "/metrics").body;
  for (const std::string_view line :
       {"vllm:num_requests_running{model_name=\"m\"} 0\n", "vllm:num_requests_waiting{model_name=\"m\"} 0\n",
        "vllm:kv_cache_usage_perc{model_name=\"m\"} 0\n",
        "vllm:prefix_cache_queries_total{model_name=\"m\"} 3\n",
        "vllm:prefix_cache_hits_total{model_name=\"m\"} 0\n",
        "vllm:num_preemptions_total{model_name=\"m\"} 0\n", "vllm:prompt_tokens_total{model_name=\"m\"} 3\n",
        "vllm:generation_tokens_total{model_name=\"m\"} 5\n",
        "vllm:time_to_first_token_seconds_count{model_name=\"m\"} 1\n",
        "vllm:request_success_total{finished_reason=\"length\",model_name=\"m\"} 1\n"}) {
    EXPECT_NE(page.find(line), std::string::npos) << line << page;
  }
}

class SlowEngineServerTest : public EngineServerTest {
 protected:
  SlowEngineServerTest()
      : EngineServerTest([] {
          EngineServerOptions options = fast();
          options.engine.speed = 1;
          return options;
        }()) {}
};

TEST_F(SlowEngineServerTest, AClientThatLeavesCancelsItsRequests) {
  // Both would take minutes: one streams, one is silent until its end.
  Client streaming(loop_, server_.endpoint(), [] {});
  Client silent(loop_, server_.endpoint(), [] {});
  streaming.send(
      request("POST", "/v1/completions", R"({"model":"m","prompt":"a","max_tokens":90000,"stream":true})"));
  silent.send(request("POST", "/v1/completions", R"({"model":"m","prompt":"b","max_tokens":90000})"));
  Timer watch(loop_, [&] {
    if (server_.engine().counters().generation_tokens > 4) {
      streaming.close();
      silent.close();
    }
    if (server_.engine().counters().canceled == 2) loop_.stop();
  });
  watch.every(1ms);
  run_loop();
  EXPECT_EQ(server_.engine().running() + server_.engine().waiting(), 0u);
  EXPECT_EQ(server_.engine().cache().used(), 0u);
  EXPECT_NE(streaming.received.find("data: "), std::string::npos);
}

TEST_F(SlowEngineServerTest, ControlChangesTheSpeedUnderWay) {
  bool done = false;
  Client client(loop_, server_.endpoint(), [&] { done = true, loop_.stop(); });
  client.send(
      request("POST", "/v1/completions", R"({"model":"m","prompt":"a","max_tokens":20000})"));  // 200 s
  const Answer control = post("/control", R"({"speed":1000})");
  EXPECT_EQ(double(parse(control.body)["speed"]), 1000);
  if (!done) run_loop();
  EXPECT_TRUE(done);
  EXPECT_EQ(server_.engine().counters().finished, 1u);
  EXPECT_LT(server_.engine().counters().busy, 5s);
  EXPECT_EQ(double(parse(exchange("GET", "/control").body)["speed"]), 1000);
}

TEST(EngineServers, ShareALoopAtSpeedsOfTheirOwn) {
  Loop loop;
  EngineServerOptions options = fast();
  EngineServer one(loop, options);
  options.engine.speed = 250;
  EngineServer two(loop, options);
  ASSERT_TRUE(one.start().has_value());
  ASSERT_TRUE(two.start().has_value());
  int open = 2;
  const auto closed = [&] {
    if (--open == 0) loop.stop();
  };
  Client first(loop, one.endpoint(), closed);
  Client second(loop, two.endpoint(), closed);
  const std::string body = R"({"model":"m","prompt":"a","max_tokens":100})";
  for (Client* client : {&first, &second}) {
    client->send(fmt::format(
        "POST /v1/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
        body.size(), body));
  }
  loop.run();
  EXPECT_EQ(one.engine().counters().generation_tokens, 100u);
  EXPECT_NEAR(to_seconds(two.engine().counters().busy) / to_seconds(one.engine().counters().busy), 4, 0.001);
  // The same answer, but ids of their own.
  const auto part = [](const std::string& received, std::string_view key) {
    const std::size_t at = received.find(key);
    return received.substr(at, received.find(',', at) - at);
  };
  EXPECT_EQ(part(first.received, "\"text\":"), part(second.received, "\"text\":"));
  EXPECT_NE(part(first.received, "\"id\":"), part(second.received, "\"id\":"));
}

TEST(EngineServerOptionsCheck, NamesWhatIsWrong) {
  EXPECT_TRUE(check(EngineServerOptions{}).has_value());
  EngineServerOptions options;
  options.output_tokens = 0;
  ASSERT_FALSE(check(options).has_value());
  EXPECT_NE(check(options).error().message.find("output_tokens"), std::string::npos);
}

}  // namespace
}  // namespace heng
