// Health probes, model discovery and the reading of engines' load over connections of their own.
#include "gateway/worker.h"

#include <fmt/format.h>
#include <simdjson.h>
#include <spdlog/spdlog.h>

#include "base/hash.h"
#include "host/health_options.h"

namespace heng {

namespace {

constexpr std::size_t kQueryAnswerMax = 1 << 20;  // of answers that are read
constexpr std::size_t kModelsMax = 256;           // each gets a pool of its own
constexpr Duration kDiscoveryRetry = 1s;          // until the first answer

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

/// Hands the body of a 200 over as it comes, and then says how it ended.
class Worker::Query final : public ResponseObserver {
 public:
  using Take = std::function<void(std::string_view piece)>;
  using Done = std::function<void(int status, const ExchangeFailure* failure)>;

  /// `take` may be null: the body is of no interest.
  Query(const Worker& worker, std::string_view path, Take take, Done done)
      : take_(std::move(take)),
        done_(std::move(done)),
        request_(fmt::format("GET {}{} HTTP/1.1\r\n{}User-Agent: heng\r\nAccept: */*\r\n\r\n",
                             worker.config_.base_path, path, worker.address_fields_)) {}
  ~Query() override {
    if (connection_ != nullptr) connection_->cancel();
  }
  bool busy() const { return connection_ != nullptr; }
  /// `timeout`: of the whole exchange.
  void send(HttpOrigin& origin, Duration timeout) {
    received_ = 0;
    connection_ =
        &origin.send({request_, {}},
                     {.connect = timeout, .first_byte = timeout, .idle = timeout, .total = timeout}, *this);
  }

 private:
  void on_response_head(const HttpHead& head) override { status_ = head.status; }
  void on_response_body(std::span<const std::string_view> pieces, bool complete) override {
    if (take_ && status_ == 200) {
      for (const std::string_view piece : pieces) {
        received_ += piece.size();
        if (received_ > kQueryAnswerMax) return give_up();
        take_(piece);
      }
    }
    if (!complete) return;
    connection_ = nullptr;
    done_(status_, nullptr);
  }
  void on_response_failed(const ExchangeFailure& failure) override {
    connection_ = nullptr;
    done_(0, &failure);
  }
  void give_up() {
    std::exchange(connection_, nullptr)->cancel();
    const ExchangeFailure failure{Outcome::protocol, true, "its answer is longer than 1 MiB"};
    done_(0, &failure);
  }

  Take take_;
  Done done_;
  std::string request_;
  std::size_t received_ = 0;
  int status_ = 0;
  ClientConnection* connection_ = nullptr;
};

Worker::Worker(Loop& loop, Resolver& resolver, const WorkerConfig& config, const Config& gateway,
               bool joins_late)
    : loop_(loop),
      config_(config),
      health_config_(gateway.health),
      load_config_(gateway.engine_load),
      identity_(hash_bytes(config.url)),
      address_fields_(heng::address_fields(config)),
      origin_(loop, resolver, origin_options(config, gateway)),
      own_origin_(loop, resolver, origin_options(config, gateway)),
      health_(health_options(gateway.health), loop.now(), joins_late),
      told_(health_.standing()) {
  make_probe();
  make_load_query();
  discovery_ = std::make_unique<Query>(
      *this, "/v1/models", [this](std::string_view piece) { models_answer_.append(piece); },
      [this](int status, const ExchangeFailure*) { on_models_answer(status); });
}

Worker::~Worker() = default;

void Worker::load_tls(ClientTlsContexts& contexts) {
  if (!config_.tls) return;
  const auto loaded = contexts.of(tls_files_of(config_));
  if (!loaded) return spdlog::error("{}: {}", config_.url, loaded.error().message);
  for (HttpOrigin* origin : {&origin_, &own_origin_}) origin->set_tls(loaded->context);
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
  for (HttpOrigin* origin : {&origin_, &own_origin_})
    origin->set_limits(options.idle_timeout, options.head_limits);
  if (!same_path) {
    health_.on_probe(false, Outcome::canceled, loop_.now());
    make_probe();
  }
  const bool same_page = gateway.engine_load.path == load_config_.path;
  load_config_ = gateway.engine_load;
  if (!same_page) {
    load_poll_ = {};
    make_load_query();
  }
  if (health_.standing() != told_) tell();
}

void Worker::make_probe() {
  probe_ = std::make_unique<Query>(
      *this, health_config_.path, nullptr,
      [this](int status, const ExchangeFailure* failure) { on_probe_answer(status, failure); });
}

void Worker::make_load_query() {
  load_query_ = std::make_unique<Query>(
      *this, load_config_.path, [this](std::string_view piece) { load_reader_.take(piece); },
      [this](int status, const ExchangeFailure* failure) { on_load_answer(status, failure); });
}

void Worker::read_engine_load(bool wanted, Instant now) {
  constexpr double kHashes = 18446744073709551616.0;  // 2^64
  load_poll_.start(wanted ? load_config_.interval : Duration(0), static_cast<double>(identity_) / kHashes,
                   now);
  if (!wanted && load_.known()) set_load({});
}

void Worker::tell() {
  told_ = health_.standing();
  for (WorkerWatcher* watcher : watchers_) watcher->on_standing_changed();
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

void Worker::tick(Instant now) {
  health_.tick(now);
  if (health_.probe_due(now) && !probe_->busy()) {
    health_.on_probe_sent(now);
    probe_->send(own_origin_, health_config_.timeout);
  }
  if (health_.standing() != told_) tell();
  if (discovery_every_ > Duration(0) && now >= next_discovery_ && !discovery_->busy()) {
    next_discovery_ = now + (models_known_ ? discovery_every_ : kDiscoveryRetry);
    models_answer_.clear();
    discovery_->send(own_origin_, health_config_.timeout);
  }
  if (health_.state() != HealthState::ejected && load_poll_.due(now)) {
    load_poll_.on_sent(now);
    load_reader_.begin();
    load_query_->send(own_origin_, load_config_.timeout);
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

void Worker::on_models_answer(int status) {
  if (status != 200) return;
  const std::string_view body = models_answer_.view();
  std::vector<std::string> found;
  bool too_many = false;
  try {
    simdjson::dom::parser parser;
    const simdjson::dom::element document = parser.parse(body.data(), body.size(), false);
    for (const simdjson::dom::element model : document["data"].get_array()) {
      too_many = found.size() == kModelsMax;
      if (too_many) break;
      found.emplace_back(std::string_view(model["id"]));
    }
  } catch (const simdjson::simdjson_error& problem) {
    return spdlog::warn("{}: /v1/models is not understood: {}", config_.url, problem.what());
  }
  const bool news = !models_known_ || found != models_;
  if (news) ++models_version_;
  if (news && too_many)
    spdlog::warn("{}: /v1/models lists more than {} models; the others are not served", config_.url,
                 kModelsMax);
  models_known_ = true;
  models_ = std::move(found);
}

/// llama-server without `--metrics` answers 501.
void Worker::on_load_answer(int status, const ExchangeFailure* failure) {
  const Instant now = loop_.now();
  if (failure != nullptr || (status >= 500 && status != 501)) {
    return load_poll_.on_answer(LoadAnswer::failed, now);  // its probes fail too, if it matters
  }
  Result<EngineLoad> load = status == 200 ? load_reader_.finish()
                                          : fail(ErrorCode::not_found, fmt::format("it answers {}", status));
  load_poll_.on_answer(load ? LoadAnswer::load : LoadAnswer::absent, now);
  std::string problem = load ? "" : load.error().message;
  if (problem != load_problem_ && !problem.empty()) {
    spdlog::warn("{}{}: no engine load there: {}. It is asked again once a minute; see `engine_load`",
                 config_.url, load_config_.path, problem);
  }
  load_problem_ = std::move(problem);
  if (!load || !load_poll_.on()) return;  // a reload may have turned it off meanwhile
  load->at = now;
  set_load(*load);
}

void Worker::set_load(const EngineLoad& load) {
  load_ = load;
  for (WorkerWatcher* watcher : watchers_) watcher->on_engine_load(*this);
}

}  // namespace heng
