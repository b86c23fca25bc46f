// Reads and changes workers at run time: every change is a new overlay for the gateway.
#include "gateway/admin_workers.h"

#include <fmt/format.h>
#include <simdjson.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "config/schema.h"
#include "config/values.h"

namespace heng {

namespace {

namespace dom = simdjson::dom;

std::string_view to_string(Outcome outcome) {
  constexpr std::string_view kNames[] = {"none",  "client error", "overloaded",     "server error", "refused",
                                         "reset", "time-out",     "protocol error", "canceled"};
  const auto at = static_cast<std::size_t>(outcome);
  return at < std::size(kNames) ? kNames[at] : "none";
}

std::string_view to_string(WorkerOrigin origin) {
  constexpr std::string_view kNames[] = {"file", "runtime", "dns", "discovery file"};
  return kNames[static_cast<std::size_t>(origin)];
}

/// What an operator did to it goes before what its health is.
std::string_view state_of(const Pool& pool, Slot slot, const WorkerHealth& health) {
  if (pool.is_leaving(slot)) return "removing";
  if (!pool.is_drained(slot)) return heng::to_string(health.state());
  return pool.in_flight(slot) > 0 ? "draining" : "drained";
}

/// {"refused":0,...}
std::string faults_of(const WorkerHealth& health) {
  std::string list;
  for (std::size_t i = 0; i < kFaults; ++i) {
    const Fault fault = static_cast<Fault>(i);
    append_element(list, fmt::format(R"("{}":{})", heng::to_string(fault), health.faults(fault)));
  }
  return "{" + list + "}";
}

std::string engine_load_of(const EngineLoad& load, Instant now) {
  if (!load.known()) return "null";
  return fmt::format(R"({{"running":{},"waiting":{},"kv_used":{},"age_s":{:.1f}}})",
                     json_number(load.running), json_number(load.waiting), json_number(load.kv_used),
                     to_seconds(now - load.at));
}

/// The worker as the configuration or the operator named it, without what was changed since.
WorkerConfig as_named(WorkerConfig worker, const WorkerConfig& like) {
  worker.origin = like.origin;
  worker.drained = like.drained;
  worker.weight = like.weight;
  worker.capacity = like.capacity;
  return worker;
}

/// One worker out of a JSON object, read by the tables of the configuration.
Result<WorkerConfig> parse_worker(std::string_view body) {
  std::string text;
  try {
    dom::parser parser;
    const simdjson::padded_string padded(body);
    const dom::object object = parser.parse(padded);
    std::string_view url;
    if (object["url"].get(url) != simdjson::SUCCESS)
      return fail(ErrorCode::invalid, R"(expected {"url":"http://10.0.0.1:8000"}; `url` is missing)");
    if (const auto verdict = check_worker_url(url); !verdict) return std::unexpected(verdict.error());
    text = simdjson::minify(object);
  } catch (const simdjson::simdjson_error&) {
    return fail(ErrorCode::protocol, R"(expected a JSON object like {"url":"http://10.0.0.1:8000"})");
  }
  WorkerListLoad load = parse_worker_list("[" + text + "]");
  if (!load.issues.empty()) {
    std::string message;
    for (const ConfigIssue& issue : load.issues) message += (message.empty() ? "" : "; ") + issue.message;
    return fail(ErrorCode::invalid, message);
  }
  WorkerConfig worker = std::move(load.workers.front());
  worker.origin = WorkerOrigin::runtime;
  return worker;
}

int status_of(ErrorCode code) {
  if (code == ErrorCode::refused) return 403;
  return code == ErrorCode::protocol ? 400 : 422;
}

AdminAnswer error_of(const Error& error) {
  return admin_error(status_of(error.code), error.message,
                     error.code == ErrorCode::refused ? "worker_not_allowed" : "worker_invalid");
}

const WorkerConfig* find_worker(const PoolConfig& pool, std::string_view name) {
  const auto found = std::ranges::find(pool.workers, name, &WorkerConfig::name);
  return found == pool.workers.end() ? nullptr : &*found;
}

}  // namespace

/// Waits for the addresses of a new worker's name. Keeps itself until they are here.
class AdminWorkers::Addition final : public AnswerObserver {
 public:
  Addition(AdminWorkers& owner, ServerConnection& connection, std::string model, WorkerConfig worker)
      : owner_(owner),
        owner_alive_(owner.alive_),
        connection_(&connection),
        model_(std::move(model)),
        worker_(std::move(worker)) {
    connection.observe(this);
  }

  void on_client_gone() override { connection_ = nullptr; }

  void on_addresses(const Result<std::vector<SocketAddress>>& found) {
    if (owner_alive_.expired() || connection_ == nullptr) return;
    connection_->observe(nullptr);
    const AdminAnswer reply = judge(found);
    const HeaderField fields[] = {{"Content-Type", reply.type}, {"Cache-Control", "no-store"}};
    connection_->respond(reply.status, fields, reply.body);
  }

 private:
  AdminAnswer judge(const Result<std::vector<SocketAddress>>& found) {
    if (!found) return admin_error(422, found.error().message, "worker_invalid");
    for (const SocketAddress& address : *found) {
      const WorkerAllow& allow = owner_.gateway_.config().worker_allow;
      if (const auto verdict = admit_worker(allow, worker_.endpoint.host, address); !verdict)
        return error_of(verdict.error());
    }
    return owner_.put_added(model_, worker_);
  }

  AdminWorkers& owner_;
  std::weak_ptr<bool> owner_alive_;
  ServerConnection* connection_;
  std::string model_;
  WorkerConfig worker_;
};

std::optional<AdminAnswer> AdminWorkers::answer(ServerConnection& connection, std::string_view method,
                                                std::string_view path, std::string_view query) {
  const auto place = place_of(path);
  if (!place) return admin_error(404, fmt::format("nothing at '{}'; GET / lists what there is", path));
  if (place->pool == nullptr) {
    return admin_error(404, fmt::format("there is no pool '{}'; GET /api/v1/pools lists them", place->model),
                       "pool_not_found");
  }
  if (!place->worker.empty()) return change(*place, method, connection.body(), query);
  if (method == "POST") return add(connection, *place);
  if (method != "GET" && method != "HEAD")
    return admin_error(405, "workers are listed with GET, added with POST");
  const auto pool = gateway_.pools().find(place->pool->model.empty() ? place->model : place->pool->model);
  return AdminAnswer{200,
                     pool == gateway_.pools().end() ? "{\"workers\":[]}" : list_json(pool->second.get())};
}

std::optional<AdminWorkers::Place> AdminWorkers::place_of(std::string_view path) const {
  std::vector<std::string_view> parts;  // model, "workers", name, act
  for (std::size_t at = kPathStart.size(); at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    parts.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  if (parts.size() < 2 || parts.size() > 4 || parts[1] != "workers") return {};
  const auto model = percent_decoded(parts[0]);
  const auto worker = percent_decoded(parts.size() > 2 ? parts[2] : "");
  if (!model || !worker || (parts.size() > 2 && worker->empty())) return {};
  const std::string_view act = parts.size() > 3 ? parts[3] : "";
  if (parts.size() > 3 && act != "drain" && act != "ready") return {};
  return Place{pool_named(*model), *model, *worker, act};
}

/// By its model or an alias; pools without a model by one of those that their workers have.
const PoolConfig* AdminWorkers::pool_named(std::string_view model) const {
  const auto& pools = gateway_.roster().pools();
  const auto found = std::ranges::find_if(pools, [&](const PoolConfig& pool) {
    return pool.model == model || std::ranges::find(pool.aliases, model) != pool.aliases.end();
  });
  if (found != pools.end()) return &*found;
  if (!gateway_.pools().contains(std::string(model))) return nullptr;
  const auto unnamed = std::ranges::find(pools, "", &PoolConfig::model);
  return unnamed == pools.end() ? nullptr : &*unnamed;
}

std::optional<AdminAnswer> AdminWorkers::add(ServerConnection& connection, const Place& place) {
  const Result<WorkerConfig> worker = parse_worker(connection.body());
  if (!worker) return error_of(worker.error());
  const auto addition = std::make_shared<Addition>(*this, connection, place.pool->model, *worker);
  gateway_.resolver().look_up(worker->endpoint,
                              [addition](const auto& found) { addition->on_addresses(found); });
  return {};
}

/// The pool may have changed while the name was looked up.
AdminAnswer AdminWorkers::put_added(const std::string& model, const WorkerConfig& worker) {
  const PoolConfig* pool = pool_named(model);
  if (pool == nullptr) return admin_error(404, fmt::format("there is no pool '{}' any more", model));
  const WorkerOverlay& overlay = gateway_.roster().overlay();
  const WorkerChange* known = overlay.find(model, worker.name);
  if (known != nullptr && known->removed) {
    return admin_error(409, fmt::format("'{}' was removed but is still in the configuration; POST .../ready "
                                        "(`heng worker ready`) brings it back",
                                        worker.name));
  }
  for (const WorkerConfig& other : pool->workers) {
    if (other.name != worker.name && other.url != worker.url) continue;
    const WorkerConfig& original = known != nullptr && known->added ? *known->added : other;
    const bool same = original == worker || as_named(worker, other) == other;
    const bool same_weight =
        original == worker || (worker.weight == other.weight && worker.capacity == other.capacity);
    if (same && same_weight) return apply(known != nullptr ? *known : WorkerChange{model, worker.name});
    return admin_error(409,
                       fmt::format("the pool has another worker '{}' at {}; remove it first or give this "
                                   "one another `name` and `url`",
                                   other.name, other.url));
  }
  WorkerChange change{model, worker.name};
  change.added = worker;
  spdlog::info("worker '{}' ({}) added to pool '{}'", worker.name, worker.url, model);
  return apply(std::move(change), 201);
}

AdminAnswer AdminWorkers::change(const Place& place, std::string_view method, std::string_view body,
                                 std::string_view query) {
  const WorkerConfig* worker = find_worker(*place.pool, place.worker);
  const WorkerChange* known = gateway_.roster().overlay().find(place.pool->model, place.worker);
  const bool back = known != nullptr && known->removed && place.act == "ready";
  if (worker == nullptr && !back) {
    return admin_error(404,
                       fmt::format("pool '{}' has no worker '{}'; GET /api/v1/workers lists them",
                                   place.model, place.worker),
                       "worker_not_found");
  }
  WorkerChange change = known != nullptr ? *known : WorkerChange{place.pool->model, place.worker};
  if (place.act.empty()) {
    if (method == "GET" || method == "HEAD") return apply(change);
    if (method == "PATCH") return set_weight(std::move(change), *worker, body);
    if (method == "DELETE") return remove(std::move(change), query_value(query, "now") == "true");
    return admin_error(405, "a worker is changed with PATCH, removed with DELETE");
  }
  if (method != "POST") return admin_error(405, fmt::format("'{}' wants POST", place.act));
  change.drained = place.act == "drain";
  change.removed = false;
  spdlog::info("worker '{}' of pool '{}': {}", change.worker, change.pool, place.act);
  return apply(std::move(change));
}

AdminAnswer AdminWorkers::set_weight(WorkerChange change, const WorkerConfig& worker, std::string_view body) {
  WorkerConfig scratch = worker;
  try {
    dom::parser parser;
    const simdjson::padded_string padded(body);
    const dom::object wanted = parser.parse(padded);
    for (const auto [key, value] : wanted) {
      auto& target = key == "weight" ? change.weight : change.capacity;
      if (key != "weight" && key != "capacity") {
        return admin_error(
            422,
            fmt::format("unknown key {}; `weight` and `capacity` can change while running", json_quote(key)));
      }
      target.reset();  // null: as configured
      if (value.is_null()) continue;
      const auto field = std::ranges::find(worker_fields(), key, &Field::key);
      const auto set = set_field(*field, &scratch, simdjson::minify(value), "");
      if (!set) return admin_error(422, fmt::format("`{}`: {}", key, set.error().message));
      target = key == "weight" ? scratch.weight : scratch.capacity;
    }
    if (wanted.size() == 0) return admin_error(422, "nothing to change: give `weight` or `capacity`");
  } catch (const simdjson::simdjson_error&) {
    return admin_error(400, R"(expected a JSON object like {"weight":2,"capacity":100})");
  }
  spdlog::info("worker '{}' of pool '{}': weight {}, capacity {}", change.worker, change.pool, scratch.weight,
               scratch.capacity);
  return apply(std::move(change));
}

AdminAnswer AdminWorkers::remove(WorkerChange change, bool now) {
  const std::vector<Seat> seats = seats_of(change);
  std::uint32_t in_flight = 0;
  for (const Seat& seat : seats) in_flight += seat.pool->pool().in_flight(seat.slot);
  WorkerChange gone{change.pool, change.worker};
  gone.removed = !change.added;
  WorkerOverlay next = gateway_.roster().overlay();
  next.put(gone);
  spdlog::info("worker '{}' of pool '{}' removed, {} request(s) under way{}", change.worker, change.pool,
               in_flight, now ? ", cut off" : "");
  gateway_.set_overlay(std::move(next));
  if (now) {
    for (const Seat& seat : seats) gateway_.cut_worker(*seat.pool, seat.slot);
  }
  return {200, fmt::format(R"({{"pool":{},"name":{},"state":"{}","in_flight":{}}})", json_quote(change.pool),
                           json_quote(change.worker), in_flight == 0 || now ? "removed" : "removing",
                           now ? 0 : in_flight)};
}

/// Makes the change unless it is there already, and shows the worker.
AdminAnswer AdminWorkers::apply(WorkerChange change, int status) {
  WorkerOverlay next = gateway_.roster().overlay();
  next.put(change);
  if (next != gateway_.roster().overlay()) gateway_.set_overlay(std::move(next));
  const std::vector<Seat> seats = seats_of(change);
  if (seats.empty()) {  // a pool that waits for its workers to name their models
    return {status, fmt::format(R"({{"pool":{},"name":{},"state":"unknown","in_flight":0}})",
                                json_quote(change.pool), json_quote(change.worker))};
  }
  return {status, worker_json(*seats.front().pool, seats.front().slot, shares_of(*seats.front().pool))};
}

std::vector<AdminWorkers::Seat> AdminWorkers::seats_of(const WorkerChange& change) const {
  std::vector<Seat> seats;
  for (const auto& [model, pool] : gateway_.pools()) {
    if (pool->config().model != change.pool) continue;
    for (const Slot slot : members_of(*pool)) {
      if (pool->worker_name(slot) == change.worker) seats.push_back({pool, slot});
    }
  }
  return seats;
}

std::string AdminWorkers::list_json(const ModelPool* only) const {
  std::string list;
  for (const auto& [model, pool] : gateway_.pools()) {
    if (only != nullptr && pool.get() != only) continue;
    const std::vector<double> shares = shares_of(*pool);
    for (Slot slot = 0; slot < pool->pool().slots(); ++slot) {
      if (pool->pool().is_member(slot) || pool->pool().is_leaving(slot))
        append_element(list, worker_json(*pool, slot, shares));
    }
  }
  return "{\"workers\":[" + list + "]}";
}

std::string AdminWorkers::worker_json(const ModelPool& pool, Slot slot,
                                      std::span<const double> shares) const {
  const Instant now = gateway_.loop().now();
  const PoolView view = pool.pool().view();
  const Worker& worker = pool.worker(slot);
  const WorkerHealth& health = worker.health();
  const bool leaving = pool.pool().is_leaving(slot);
  const bool eligible = std::ranges::binary_search(view.eligible, slot);
  std::string json = fmt::format(
      R"({{"pool":{},"index":{},"name":{},"url":{},"origin":"{}","state":"{}","eligible":{},)"
      R"("last_fault":"{}","faults":{},"ejections":{},"since_s":{:.1f},"weight":{},"share":{},"ramp":{},)"
      R"("capacity":{},"in_flight":{},"max_in_flight":{},"engine_load":{})",
      json_quote(pool.model()), slot, json_quote(pool.worker_name(slot)), json_quote(worker.config().url),
      to_string(pool.worker_origin(slot)), state_of(pool.pool(), slot, health), eligible,
      to_string(health.last_fault()), faults_of(health), health.ejections(), to_seconds(now - health.since()),
      json_number(view.weight[slot]), json_number(leaving ? 0 : shares[slot]), json_number(health.ramp(now)),
      json_number(view.capacity[slot]), view.in_flight[slot], pool.pool().limit(slot),
      engine_load_of(view.reported[slot], now));
  if (const MemberMetrics* metrics = pool.metrics(slot)) {
    json +=
        fmt::format(R"(,"requests":{},"ttft_p50_s":{},"ttft_p95_s":{},"prompt_tokens":{},"output_tokens":{})",
                    metrics->ttft.count(), json_number(metrics->ttft.quantile(0.5)),
                    json_number(metrics->ttft.quantile(0.95)), json_number(metrics->prompt_tokens.value),
                    json_number(metrics->output_tokens.value));
  } else {  // its series left with it
    json +=
        R"(,"requests":null,"ttft_p50_s":null,"ttft_p95_s":null,"prompt_tokens":null,"output_tokens":null)";
  }
  return json + "}";
}

}  // namespace heng
