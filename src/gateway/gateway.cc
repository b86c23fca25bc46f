// Routes requests to exchanges, keeps pools and workers in step with configuration, health and discovery.
#include "gateway/gateway.h"

#include <fmt/format.h>
#include <malloc.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>

#include <algorithm>

#include "flow/api_error.h"
#include "gateway/forwarding.h"

namespace heng {

namespace {

constexpr Duration kTick = 100ms;
constexpr Duration kDiscoveryEvery = 30s;
constexpr HeaderField kJson{"Content-Type", "application/json"};

std::uint64_t random_seed() {
  std::uint64_t seed = 0;
  HENG_ASSERT(::getrandom(&seed, sizeof seed, 0) == sizeof seed);
  return seed;
}

/// Large bodies come and go: without this each would map and fault in fresh pages.
void keep_freed_memory() {
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 64 << 20);
}

/// One is always allowed, unless hedging is off.
RetryBudget hedge_budget(const RetryConfig& retry) {
  return {retry.hedge_ratio, retry.hedge_ratio > 0 ? 1u : 0u};
}

bool same_policy(const PoolConfig& a, const PoolConfig& b) {
  return a.policy == b.policy && a.policy_options == b.policy_options;
}

/// By the name the client uses or by the pool's own: an alias gives no access and takes none away.
bool may_use(const Tenant* tenant, std::string_view name, std::string_view model) {
  return tenant == nullptr || allows_model(*tenant, name) || allows_model(*tenant, model);
}

std::string model_object(std::string_view id, double created) {
  return fmt::format(R"({{"id":{},"object":"model","created":{:.0f},"owned_by":"heng"}})", json_quote(id),
                     created);
}

}  // namespace

Gateway::Gateway(Loop& loop, Config config)
    : loop_(loop),
      config_(std::move(config)),
      wall_started_s_(wall_time_s()),
      started_(loop.now()),
      seed_(config_.seed != 0 ? config_.seed : random_seed()),
      secret_seed_(random_seed()),
      rng_(Rng(seed_).split("gateway")),
      access_(metrics_, secret_seed_),
      resolver_(loop),
      hedge_budget_(hedge_budget(config_.retry)),
      tenant_uses_(config_.retry),
      roster_(resolver_),
      server_(loop, *this, {config_.timeouts, config_.limits}),
      tick_timer_(loop, [this] { tick(); }),
      hedge_timer_(loop, [this] { hedge_due(); }) {
  keep_freed_memory();
  access_.configure(config_);
}

Gateway::~Gateway() = default;

Result<void> Gateway::start() {
  if (const auto prepared = prepare(); !prepared) return prepared;
  return listen();
}

Result<void> Gateway::listen(InheritedSockets* inherited) {
  return server_.listen(config_.listen, inherited);
}

Result<void> Gateway::prepare() {
  if (!config_.access_log.empty()) {
    auto writer = LineWriter::open(loop_, config_.access_log, "access log");
    if (!writer) return std::unexpected(writer.error());
    access_log_ = std::move(*writer);
  }
  if (!config_.record.empty()) {
    auto recorder = Recorder::open(loop_, config_.record);
    if (!recorder) return std::unexpected(recorder.error());
    recorder_ = std::move(*recorder);
  }
  resolver_.set_server(config_.dns_server);
  auto tls = read_tls(config_);
  if (!tls) return std::unexpected(tls.error());
  use_tls(std::move(*tls));
  build_pools();
  tick();
  serving_ = true;
  tick_timer_.every(kTick);
  return {};
}

Result<void> Gateway::reload(Config config) {
  if (config.listen != config_.listen || config.admin != config_.admin) {
    return fail(ErrorCode::invalid,
                "'listen' and 'admin' cannot change while running: restart to change them");
  }
  if (config.record != config_.record) {
    return fail(ErrorCode::invalid,
                "'record' cannot change while running, for a recording is of use from a pool's beginning "
                "only: restart, or hand over to a new process");
  }
  auto tls = read_tls(config);
  if (!tls) return std::unexpected(tls.error());
  const bool other_log = config.access_log != config_.access_log;
  std::unique_ptr<LineWriter> access_log;
  if (other_log && !config.access_log.empty()) {
    auto opened = LineWriter::open(loop_, config.access_log, "access log");
    if (!opened) return std::unexpected(opened.error());
    access_log = std::move(*opened);
  }
  // Nothing below can fail: a reload is applied as a whole or not at all.
  use_tls(std::move(*tls));
  if (other_log) {
    access_log_ = std::move(access_log);
  } else {
    reopen_access_log();
  }
  config_ = std::move(config);
  access_.configure(config_);
  tenant_uses_.set_retry(config_.retry);
  hedge_budget_ = hedge_budget(config_.retry);
  server_.set_options({config_.timeouts, config_.limits});
  for (const auto& [key, worker] : workers_) worker->configure(config_);
  resolver_.set_server(config_.dns_server);
  build_pools();
  tick();
  return {};
}

void Gateway::reopen_access_log() {
  if (access_log_) access_log_->reopen();
}

void Gateway::set_overlay(WorkerOverlay overlay) {
  roster_.set_overlay(std::move(overlay));
  build_pools();
  tick();
}

void Gateway::cut_worker(const ModelPool& pool, Slot slot) {
  for (const auto& exchange : exchanges_) exchange->cut(pool, slot);
}

/// Reads all TLS files, which may have changed although the configuration has not. Changes nothing.
Result<Gateway::LoadedTls> Gateway::read_tls(const Config& config) {
  LoadedTls loaded;
  const auto checked = check_tls_files(config, wall_time_s(), loaded.to_workers);
  if (!checked) return std::unexpected(checked.error());
  if (!checked->empty()) spdlog::warn("{}", *checked);
  if (!config.tls.enabled()) return loaded;
  auto tls = server_tls(config.tls);
  if (!tls) return std::unexpected(tls.error());
  loaded.to_clients = std::move(*tls);
  return loaded;
}

/// For connections to come; those there are stay as they are.
void Gateway::use_tls(LoadedTls tls) {
  tls_ = std::move(tls);
  server_.set_tls(tls_.to_clients.context);
  for (const auto& [key, worker] : workers_) worker->load_tls(tls_.to_workers);
}

void Gateway::drain() {
  draining_ = true;
  server_.drain();
}

// --- pools and workers ---

std::shared_ptr<Worker> Gateway::worker_for(const WorkerConfig& config) {
  std::shared_ptr<Worker>& worker = workers_[Worker::key_of(config)];
  if (worker) return worker;
  worker = std::make_shared<Worker>(loop_, resolver_, config, config_, serving_);
  worker->load_tls(tls_.to_workers);
  return worker;
}

/// Pools that were replaced and still have requests count in the series of those that replaced them: a worker
/// that leaves takes its series from all of them.
void Gateway::drop_from_retired(const std::string& model, const PoolConfig& config,
                                std::span<const std::shared_ptr<Worker>> workers) {
  for (const auto& pool : retired_pools_) {
    if (pool->model() == model) pool->drop_others(config, workers);
  }
}

void Gateway::put_pool(const std::string& model, const PoolConfig& config,
                       std::vector<std::shared_ptr<Worker>> workers) {
  std::shared_ptr<ModelPool>& pool = pools_[model];
  std::shared_ptr<ModelPool> old;
  if (pool && !same_policy(pool->config(), config)) {
    old = std::exchange(pool, nullptr);
    retired_pools_.push_back(old);
  }
  drop_from_retired(model, config, workers);
  if (!pool) pool = std::make_shared<ModelPool>(loop_, model, config, seed_, metrics_, recorder_.get());
  pool->set_max_ejected_share(config_.health.max_ejected_share);
  pool->set_members(config, std::move(workers));
  pool->set_limits(config_);
  pool->count_elsewhere(retired_pools_);
  if (old) {
    for (Exchange* waiting : old->line().take_all(loop_.now())) waiting->change_pool(pool);
  }
  names_[model] = model;
  for (const std::string& alias : config.aliases) names_[alias] = model;
}

/// From configuration and what discovery has found. Pools and workers that stay keep all they have learned.
void Gateway::build_pools() {
  names_.clear();
  std::map<std::string, bool> wanted_pools;
  std::map<const Worker*, bool> wanted_workers;  // and whether their load is
  for (const PoolConfig& config : roster_.build(config_)) {
    std::vector<std::shared_ptr<Worker>> workers;
    for (const WorkerConfig& worker : config.workers) workers.push_back(worker_for(worker));
    for (const auto& worker : workers) {
      wanted_workers[worker.get()] |= config_.engine_load.wanted_by(*config.policy);
      const bool needs_models = config.model.empty() || config.model == "*";
      if (needs_models) worker->discover_models(kDiscoveryEvery);
    }
    if (!config.model.empty()) {
      put_pool(config.model, config, workers);
      wanted_pools[config.model] = true;
      continue;
    }
    std::map<std::string, std::vector<std::shared_ptr<Worker>>> by_model;
    for (const auto& worker : workers) {
      for (const std::string& model : worker->models()) by_model[model].push_back(worker);
    }
    for (auto& [model, members] : by_model) {
      if (wanted_pools[model]) continue;  // a pool that names the model has precedence
      put_pool(model, config, std::move(members));
      wanted_pools[model] = true;
    }
  }
  std::erase_if(pools_, [&](auto& entry) {
    if (wanted_pools[entry.first]) return false;
    drop_from_retired(entry.first, entry.second->config(), {});
    entry.second->set_members(entry.second->config(), {});
    for (Exchange* waiting : entry.second->line().take_all(loop_.now()))
      waiting->turn_away({404, "this model is no longer served here", "model", "model_not_found"});
    retired_pools_.push_back(entry.second);
    return true;
  });
  std::erase_if(workers_, [&](auto& entry) {
    const auto wanted = wanted_workers.find(entry.second.get());
    if (wanted != wanted_workers.end()) {
      entry.second->read_engine_load(wanted->second, loop_.now());
      return false;
    }
    retired_workers_.push_back(entry.second);
    return true;
  });
  discovered_version_ = discovered_version();
}

std::uint64_t Gateway::discovered_version() const {
  std::uint64_t version = roster_.version();
  for (const auto& [key, worker] : workers_) version += worker->models_version();
  return version;
}

bool Gateway::discovering() const {
  return std::ranges::any_of(workers_, [](const auto& entry) { return entry.second->models_awaited(); });
}

bool Gateway::settled() const {
  const auto unknown = [this](const auto& entry) {
    return config_.health.active && entry.second->health().state() == HealthState::unknown;
  };
  const auto empty = [](const PoolConfig& pool) { return pool.discover.used() && pool.workers.empty(); };
  return !discovering() && std::ranges::none_of(roster_.pools(), empty) &&
         std::ranges::none_of(workers_, unknown);
}

void Gateway::tick() {
  const Instant now = loop_.now();
  for (const auto& [key, worker] : workers_) worker->tick(now);
  roster_.tick(now);
  if (discovered_version() != discovered_version_) build_pools();
  for (const auto& [model, pool] : pools_) {
    pool->count_elsewhere(retired_pools_);
    pool->tick(now, uptime_s());
  }
  for (const auto& pool : retired_pools_) pool->line().serve(now);
  leave_stopped_workers();
  // Here no callback of theirs is on the stack, so what nobody uses any more can go.
  for (const auto& pool : retired_pools_) {
    const bool used = std::ranges::any_of(retired_pools_, [&](const auto& other) {
      return other->model() == pool->model() && other.use_count() > 1;
    });
    if (!used && !pools_.contains(pool->model())) metrics_.remove({{"model", pool->model()}});
  }
  std::erase_if(retired_pools_, [](const auto& pool) { return pool.use_count() == 1; });
  std::erase_if(retired_workers_, [](const auto& worker) { return worker.use_count() == 1; });
}

std::shared_ptr<ModelPool> Gateway::find_pool(std::string_view model, const Tenant* tenant) const {
  auto name = names_.find(model);
  if (name == names_.end()) name = names_.find("*");
  if (name == names_.end() || !may_use(tenant, model, name->second)) return nullptr;
  const auto pool = pools_.find(name->second);
  return pool == pools_.end() ? nullptr : pool->second;
}

bool Gateway::ready() const {
  return !draining_ && std::ranges::any_of(pools_, [](const auto& entry) {
    return !entry.second->pool().view().eligible.empty();
  });
}

// --- requests ---

bool Gateway::on_head(ServerConnection& connection) {
  const HttpHead& head = connection.head();
  // Without keys nobody can be told from anybody: behind a proxy all have one address.
  if (access_.is_open()) connection.charge_to(nullptr);
  if (access_.is_open() || !head.target.starts_with("/v1/")) return true;
  auto login = access_.login(head, connection.source(), loop_.now(), wall_time_s());
  if (login) {
    connection.charge_to(&tenant_uses_.of(login->get()).memory);
    connection.tenant = std::move(*login);
    return true;
  }
  ++totals_.arrived;
  ++totals_.refused;
  const ApiError& error = login.error();
  const std::string id = new_request_id();
  const RetryAfter wait(error.retry_after);
  answer_fields_.assign({kJson, {"x-request-id", id}});
  if (error.status == 401) answer_fields_.push_back({"WWW-Authenticate", "Bearer realm=\"heng\""});
  wait.append_to(answer_fields_);
  connection.respond(error.status, answer_fields_, api_error_body(error.status, error.message, error.code));
  return false;
}

void Gateway::on_request(ServerConnection& connection) {
  const HttpHead& head = connection.head();
  const std::string_view path = head.target.substr(0, head.target.find('?'));
  if (path.starts_with("/v1/")) {
    const bool models = path == "/v1/models" || path.starts_with("/v1/models/");
    if (models && (head.method == "GET" || head.method == "HEAD")) return answer_models(connection);
    if (free_exchanges_.empty()) {
      exchanges_.push_back(std::make_unique<Exchange>(*this));
      free_exchanges_.push_back(exchanges_.back().get());
    }
    Exchange* exchange = free_exchanges_.back();
    free_exchanges_.pop_back();
    return exchange->begin(connection);
  }
  if (path == "/healthz" || path == "/health")
    return connection.respond(200, {&kJson, 1}, R"({"status":"ok"})");
  if (path == "/readyz") {
    return ready() ? connection.respond(200, {&kJson, 1}, R"({"status":"ready"})")
                   : connection.respond(503, {&kJson, 1}, R"({"status":"no worker available"})");
  }
  ++totals_.arrived;
  ++totals_.refused;
  connection.respond(
      404, {&kJson, 1},
      api_error_body(404, fmt::format("'{}' is not served here; the OpenAI API is under /v1/", path),
                     "not_found"));
}

void Gateway::on_bad_request(int) {
  ++totals_.arrived;
  ++totals_.refused;
}

void Gateway::answer_models(ServerConnection& connection) {
  ++totals_.arrived;
  std::vector<std::string> models;
  for (const auto& [name, model] : names_) {
    if (name != "*") models.push_back(name);
  }
  if (const auto any = pools_.find("*"); any != pools_.end()) {
    for (const auto& worker : any->second->config().workers) {
      for (const std::string& model : worker_for(worker)->models()) models.push_back(model);
    }
  }
  std::ranges::sort(models);
  models.erase(std::unique(models.begin(), models.end()), models.end());
  std::erase_if(models, [&](const std::string& model) { return !find_pool(model, connection.tenant.get()); });
  const std::string_view path = connection.head().target.substr(0, connection.head().target.find('?'));
  const double created = wall_started_s_;
  const HeaderField id_field{"x-request-id", ""};
  const std::string id = new_request_id();
  const HeaderField fields[] = {kJson, {id_field.name, id}};
  if (path == "/v1/models") {
    ++totals_.completed;
    std::string list;
    for (const std::string& model : models) list += (list.empty() ? "" : ",") + model_object(model, created);
    return connection.respond(200, fields, fmt::format(R"({{"object":"list","data":[{}]}})", list));
  }
  const std::string_view wanted = path.substr(std::string_view("/v1/models/").size());
  if (std::ranges::find(models, wanted) != models.end()) {
    ++totals_.completed;
    return connection.respond(200, fields, model_object(wanted, created));
  }
  ++totals_.refused;
  connection.respond(404, fields,
                     api_error_body(404, fmt::format("the model '{}' does not exist here", wanted),
                                    "model_not_found", "model"));
}

double Gateway::wall_time_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string Gateway::new_request_id() {
  return fmt::format("req_{:016x}{:08x}", rng_.next(), totals_.arrived & 0xffffffff);
}

void Gateway::recycle(Exchange* exchange) { free_exchanges_.push_back(exchange); }

void Gateway::hedge_later(Exchange& exchange) {
  const Duration after = config_.retry.hedge_after;
  if (after == Duration(0)) return;
  hedge_budget_.on_request(loop_.now());
  const Instant due = loop_.now() + after;
  // Nearly always the last; after a reload to a shorter time those before it may be due later.
  const auto place = std::ranges::upper_bound(hedges_, due, {}, &HedgeEntry::due);
  const bool soonest = place == hedges_.begin();
  hedges_.insert(place, {due, &exchange, exchange.request_id()});
  if (soonest) hedge_timer_.once(after);
}

void Gateway::hedge_due() {
  const Instant now = loop_.now();
  while (!hedges_.empty() && hedges_.front().due <= now) {
    const HedgeEntry entry = hedges_.front();
    hedges_.pop_front();
    if (entry.exchange->request_id() == entry.request_id) entry.exchange->hedge();
  }
  if (!hedges_.empty()) hedge_timer_.once(hedges_.front().due - now);
}

/// Requests that wait for a first byte from a worker that has just stopped answering need not wait for their
/// own time-out.
void Gateway::leave_stopped_workers() {
  for (const auto& [key, worker] : workers_) {
    if (!worker->take_stopped() || worker->in_flight == 0) continue;
    for (const auto& exchange : exchanges_) exchange->leave_worker(*worker);
  }
}

std::string Gateway::metrics_page() {
  const auto total = [&](std::string_view end, std::uint64_t value) {
    metrics_.counter("heng_requests_ended_total", "Requests by how they ended", {{"end", std::string(end)}})
        .value = static_cast<double>(value);
  };
  metrics_.counter("heng_requests_arrived_total", "Requests received, bad ones included", {}).value =
      static_cast<double>(totals_.arrived);
  total("completed", totals_.completed);
  total("refused", totals_.refused);
  total("failed", totals_.failed);
  total("canceled", totals_.canceled);
  metrics_.gauge("heng_requests_in_flight", "Requests under way", {})
      .set(static_cast<double>(totals_.in_flight));
  server_.expose(metrics_);
  if (tls_.to_clients.context) {
    metrics_.gauge("heng_tls_certificate_expires_seconds", "When clients' certificate ends, since 1970", {})
        .set(static_cast<double>(tls_.to_clients.expires_s));
  }
  metrics_.gauge("heng_buffered_bytes", "Request bodies and waiting answers in memory", {})
      .set(static_cast<double>(Buffer::held_bytes()));
  metrics_.gauge("heng_uptime_seconds", "Time since start", {}).set(uptime_s());
  metrics_
      .counter("heng_access_log_dropped_total", "Access log lines lost to a disk too slow, full or broken",
               {})
      .value = access_log_ ? static_cast<double>(access_log_->dropped()) : 0;
  metrics_.gauge("heng_recording", "1 while what decisions are made from is recorded, else 0", {})
      .set(recorder_ && !recorder_->stopped() ? 1 : 0);
  for (const auto& [model, pool] : pools_) pool->expose_gauges();
  key_uses_.expose_gauges(metrics_, loop_.now());
  return metrics_.expose();
}

}  // namespace heng
