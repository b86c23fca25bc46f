// Health probes and model discovery over the worker's own connections.
#include "gateway/worker.h"

#include <fmt/format.h>
#include <simdjson.h>
#include <spdlog/spdlog.h>

#include "base/hash.h"
#include "host/health_options.h"

namespace heng {

namespace {

constexpr std::size_t kQueryAnswerMax = 1 << 20;
constexpr Duration kDiscoveryRetry = 1s;  // until the first answer

std::string address_fields(const WorkerConfig& config) {
  const bool v6 = config.endpoint.host.find(':') != std::string::npos;
  std::string fields = fmt::format("Host: {}{}{}:{}\r\n", v6 ? "[" : "", config.endpoint.host, v6 ? "]" : "",
                                   config.endpoint.port);
  if (!config.api_key.empty()) fields += fmt::format("Authorization: Bearer {}\r\n", config.api_key);
  return fields;
}

HttpOrigin::Options origin_options(const WorkerConfig& config, const Config& gateway) {
  HttpOrigin::Options options;
  options.endpoint = config.endpoint;
  options.tls = config.tls;
  options.tls_files = {config.tls_ca_file, config.tls_cert_file, config.tls_key_file};
  options.tls_verify = config.tls_verify;
  options.idle_timeout = gateway.timeouts.worker_idle;
  options.head_limits.head_bytes = gateway.limits.worker_head_bytes;
  if (config.origin != WorkerOrigin::file) {
    options.admit = [&gateway, host = config.endpoint.host](const SocketAddress& address) {
      return admit_worker(gateway.worker_allow, host, address);
    };
  }
  return options;
}

}  // namespace

Result<void> admit_worker(const WorkerAllow& allow, const std::string& host, const SocketAddress& address) {
  const auto ip = parse_ip(address.host());
  if (!ip) return fail(ErrorCode::refused, fmt::format("'{}' is not an address", address.text()));
  return check_worker_address(allow, host, *ip);
}

class Worker::Query final : public ResponseObserver {
 public:
  using Done = std::function<void(int status, std::string_view body, const ExchangeFailure* failure)>;

  Query(const Worker& worker, std::string_view path, Done done)
      : done_(std::move(done)),
        request_(fmt::format("GET {}{} HTTP/1.1\r\n{}User-Agent: heng\r\nAccept: */*\r\n\r\n",
                             worker.config_.base_path, path, worker.address_fields_)) {}
  ~Query() override {
    if (connection_ != nullptr) connection_->cancel();
  }
  bool busy() const { return connection_ != nullptr; }
  void send(HttpOrigin& origin, const ExchangeTimeouts& timeouts) {
    body_.clear();
    connection_ = &origin.send({request_, {}}, timeouts, *this);
  }

 private:
  void on_response_head(const HttpHead& head) override { status_ = head.status; }
  void on_response_body(std::span<const std::string_view> pieces, bool complete) override {
    for (const std::string_view piece : pieces) {
      if (body_.size() + piece.size() <= kQueryAnswerMax) body_.append(piece);
    }
    if (!complete) return;
    connection_ = nullptr;
    done_(status_, body_.view(), nullptr);
  }
  void on_response_failed(const ExchangeFailure& failure) override {
    connection_ = nullptr;
    done_(0, {}, &failure);
  }

  Done done_;
  std::string request_;
  Buffer body_;
  int status_ = 0;
  ClientConnection* connection_ = nullptr;
};

Worker::Worker(Loop& loop, Resolver& resolver, const WorkerConfig& config, const Config& gateway,
               bool joins_late)
    : loop_(loop),
      config_(config),
      health_config_(gateway.health),
      identity_(hash_bytes(config.url)),
      address_fields_(heng::address_fields(config)),
      origin_(loop, resolver, origin_options(config, gateway)),
      health_(health_options(gateway.health), loop.now(), joins_late),
      told_(health_.standing()) {
  load_tls();
  make_probe();
  discovery_ = std::make_unique<Query>(
      *this, "/v1/models",
      [this](int status, std::string_view body, const ExchangeFailure*) { on_models_answer(status, body); });
}

Worker::~Worker() = default;

void Worker::load_tls() {
  if (!config_.tls) return;
  if (const auto loaded = origin_.prepare_tls(); !loaded)
    spdlog::error("{}: {}", config_.url, loaded.error().message);
}

std::string Worker::key_of(const WorkerConfig& config) {
  return fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}", config.url, config.api_key, config.tls_ca_file,
                     config.tls_cert_file, config.tls_key_file, config.tls_verify,
                     config.origin == WorkerOrigin::file);
}

void Worker::configure(const Config& gateway) {
  const bool same_path = gateway.health.path == health_config_.path;
  health_config_ = gateway.health;
  health_.set_options(health_options(gateway.health));
  const HttpOrigin::Options options = origin_options(config_, gateway);
  origin_.set_limits(options.idle_timeout, options.head_limits);
  if (!same_path) {
    health_.on_probe(false, Outcome::canceled, loop_.now());
    make_probe();
  }
  if (health_.standing() != told_) tell();
}

void Worker::make_probe() {
  probe_ = std::make_unique<Query>(*this, health_config_.path,
                                   [this](int status, std::string_view, const ExchangeFailure* failure) {
                                     on_probe_answer(status, failure);
                                   });
}

void Worker::tell() {
  told_ = health_.standing();
  for (StandingWatcher* watcher : watchers_) watcher->on_standing_changed();
}

void Worker::attempt_started(const RequestView& request, Instant now) {
  ++in_flight;
  health_.on_attempt_started(request, now);
  if (health_.standing() != told_) tell();
}

void Worker::flowing(std::uint64_t request, Outcome outcome, Instant now) {
  health_.on_flowing(request, outcome, now);
  if (health_.standing() != told_) tell();
}

void Worker::attempt_ended(std::uint64_t request, Outcome outcome, Instant now) {
  --in_flight;
  health_.on_attempt(request, outcome, now);
  if (health_.standing() != told_) tell();
}

ExchangeTimeouts Worker::query_timeouts() const {
  return {.connect = health_config_.timeout,
          .first_byte = health_config_.timeout,
          .idle = health_config_.timeout,
          .total = health_config_.timeout};
}

void Worker::tick(Instant now) {
  health_.tick(now);
  if (health_.probe_due(now) && !probe_->busy()) {
    health_.on_probe_sent(now);
    probe_->send(origin_, query_timeouts());
  }
  if (health_.standing() != told_) tell();
  if (discovery_every_ > Duration(0) && now >= next_discovery_ && !discovery_->busy()) {
    next_discovery_ = now + (models_known_ ? discovery_every_ : kDiscoveryRetry);
    discovery_->send(origin_, query_timeouts());
  }
}

/// Any answer below 500 shows life: not every engine has the health path, and 401 is an answer too.
void Worker::on_probe_answer(int status, const ExchangeFailure* failure) {
  const Outcome cause = failure != nullptr ? failure->cause
                        : status >= 500    ? Outcome::server_error
                                           : Outcome::ok;
  health_.on_probe(cause == Outcome::ok, cause, loop_.now());
  if (health_.standing() != told_) tell();
}

void Worker::on_models_answer(int status, std::string_view body) {
  if (status != 200) return;
  std::vector<std::string> found;
  try {
    simdjson::dom::parser parser;
    const simdjson::dom::element document = parser.parse(body.data(), body.size(), false);
    for (const simdjson::dom::element model : document["data"].get_array()) {
      found.emplace_back(std::string_view(model["id"]));
    }
  } catch (const simdjson::simdjson_error& problem) {
    return spdlog::warn("{}: /v1/models is not understood: {}", config_.url, problem.what());
  }
  if (!models_known_ || found != models_) ++models_version_;
  models_known_ = true;
  models_ = std::move(found);
}

}  // namespace heng
