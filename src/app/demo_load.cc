// Sends chats and measures the time to their first token.
#include "app/demo_load.h"

#include <fmt/format.h>

#include "sim/text.h"

namespace heng {

namespace {

/// Whether some event in it carries text: the first one only names the role.
bool has_content(std::string_view events) {
  constexpr std::string_view kKey = "\"content\":\"";
  for (std::size_t at = events.find(kKey); at != events.npos; at = events.find(kKey, at + 1)) {
    if (at + kKey.size() < events.size() && events[at + kKey.size()] != '"') return true;
  }
  return false;
}

}  // namespace

class DemoLoad::Call final : public ResponseObserver {
 public:
  explicit Call(DemoLoad& load) : load_(load) {}
  ~Call() override {
    if (connection_ != nullptr) connection_->cancel();
  }

  void send(std::string request) {
    request_ = std::move(request);
    sent_ = load_.loop_.now();
    answered_ = false;
    connection_ = &load_.origin_.send({request_, {}}, {}, *this);
  }

 private:
  void on_response_head(const HttpHead& head) override { status_ = head.status; }
  void on_response_body(std::span<const std::string_view> pieces, bool complete) override {
    for (const std::string_view piece : pieces) {
      if (answered_ || !has_content(piece)) continue;
      answered_ = true;
      load_.ttfts_.push_back(to_seconds(load_.loop_.now() - sent_));
    }
    if (!complete) return;
    ++(status_ == 200 && answered_ ? load_.completed_ : load_.failed_);
    done();
  }
  void on_response_failed(const ExchangeFailure&) override {
    ++load_.failed_;
    done();
  }
  void done() {
    connection_ = nullptr;
    load_.free_.push_back(this);
  }

  DemoLoad& load_;
  std::string request_;
  Instant sent_;
  int status_ = 0;
  bool answered_ = false;
  ClientConnection* connection_ = nullptr;
};

DemoLoad::DemoLoad(Loop& loop, DemoLoadOptions options)
    : loop_(loop),
      options_(std::move(options)),
      rng_(options_.seed),
      resolver_(loop),
      origin_(loop, resolver_, {.endpoint = options_.gateway, .admit = {}}),
      timer_(loop, [this] { arrive(); }) {}

DemoLoad::~DemoLoad() = default;

void DemoLoad::start() {
  due_ = loop_.now();
  next();
}

void DemoLoad::next() {
  due_ += from_seconds(rng_.exponential(1 / options_.requests_per_second));
  timer_.once(due_ - loop_.now());
}

void DemoLoad::arrive() {
  if (free_.empty()) {
    calls_.push_back(std::make_unique<Call>(*this));
    free_.push_back(calls_.back().get());
  }
  Call* call = free_.back();
  free_.pop_back();
  const std::uint32_t spread = options_.output_tokens_max - options_.output_tokens_min + 1;
  const std::string body = fmt::format(R"({{"model":"{}","stream":true,"max_tokens":{},)"
                                       R"("messages":[{{"role":"user","content":"Question {}: {}"}}]}})",
                                       options_.model, options_.output_tokens_min + rng_.below(spread),
                                       rng_.below(1'000'000'000), filler_text(rng_.next(), 64));
  call->send(
      fmt::format("POST /v1/chat/completions HTTP/1.1\r\nHost: demo\r\nContent-Type: application/json\r\n"
                  "Content-Length: {}\r\n\r\n{}",
                  body.size(), body));
  next();
}

}  // namespace heng
