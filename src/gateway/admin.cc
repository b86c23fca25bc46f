// Reads the gateway's state into JSON and takes the few changes that are offered.
#include "gateway/admin.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>

#include "base/hash.h"
#include "base/keyed_hash.h"
#include "config/values.h"
#include "flow/api_error.h"
#include "gateway/forwarding.h"

namespace heng {

namespace {

constexpr std::string_view kIndex =
    R"({"heng":{"read":["/healthz","/readyz","/metrics","/api/v1/info","/api/v1/pools",)"
    R"("/api/v1/workers","/api/v1/weights","/api/v1/policies"],)"
    R"("change":["POST /balance","POST /api/v1/reload","POST /api/v1/handover",)"
    R"("POST /api/v1/pools/{model}/workers",)"
    R"("PATCH, DELETE /api/v1/pools/{model}/workers/{name}",)"
    R"("POST /api/v1/pools/{model}/workers/{name}/drain",)"
    R"("POST /api/v1/pools/{model}/workers/{name}/ready"]}})";

constexpr Duration kHeadTime = 3s;  // for a small head, mostly from this machine

/// "localhost" or an IP address, with or without a port: names that no one else's DNS can give us.
bool is_local_name(std::string_view host) {
  if (host.starts_with('[')) return true;
  host = host.substr(0, host.rfind(':'));
  return equals_ignoring_case(host, "localhost") || equals_ignoring_case(host, "localhost.") ||
         (!host.empty() && host.find_first_not_of("0123456789.") == host.npos);
}

}  // namespace

AdminApi::AdminApi(Gateway& gateway, std::function<Result<void>()> reload, AdminHandover::Start hand_over)
    : gateway_(gateway),
      reload_(std::move(reload)),
      handover_(std::move(hand_over)),
      failed_logins_(gateway.secret_seed()),
      workers_(gateway),
      server_(gateway.loop(), *this, {gateway.config().timeouts, gateway.config().limits}) {}

/// Whatever the API's clients take of the machine, this is left: few connections, small bodies. And no
/// client, credentials or not, can hold these for itself.
void AdminApi::apply_config() {
  const Config& config = gateway_.config();
  HttpServer::Options options{config.timeouts, config.limits};
  options.limits.connections = 16;
  options.limits.body_bytes = 1 << 20;
  options.limits.buffered_bytes = 0;
  options.timeouts.client_header = std::min(options.timeouts.client_header, kHeadTime);
  options.all_give_way = true;
  server_.set_options(options);
  server_.set_tls(config.tls.admin ? gateway_.tls() : nullptr);
}

Result<void> AdminApi::start(const Endpoint& endpoint, InheritedSockets* inherited) {
  apply_config();
  if (const auto listening = server_.listen(endpoint, inherited); !listening) return listening;
  loopback_ = is_loopback(server_.endpoint().host);
  socket_ = server_.endpoint().is_unix();
  return {};
}

bool AdminApi::has_token(const HttpHead& head) const {
  const std::string& configured = gateway_.config().admin_token;
  const std::string& token = configured.empty() ? own_token_ : configured;
  return !token.empty() && equal_in_constant_time(head.find("authorization").value_or(""), "Bearer " + token);
}

/// By the head alone, before a body is read.
bool AdminApi::on_head(ServerConnection& connection) {
  const auto refused = refusal(connection);
  if (!refused) return true;
  std::vector<HeaderField> fields{{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}};
  if (refused->status == 401) fields.push_back({"WWW-Authenticate", "Bearer realm=\"heng admin\""});
  const RetryAfter wait(refused->retry_after);
  wait.append_to(fields);
  connection.respond(refused->status, fields, api_error_body(refused->status, refused->message));
  return false;
}

std::optional<ApiError> AdminApi::refusal(ServerConnection& connection) {
  const HttpHead& head = connection.head();
  const bool reading = head.method == "GET" || head.method == "HEAD";
  const std::string_view path = head.target.substr(0, head.target.find('?'));
  if (reading && (path == "/healthz" || path == "/readyz")) return std::nullopt;
  if (!reading && (head.find("origin") || head.find("sec-fetch-site").value_or("none") != "none"))
    return ApiError{403, "changes are not taken from web pages", {}, {}};
  if (socket_) return std::nullopt;
  // A page that has its own name resolve to this machine (DNS rebinding) cannot help sending that name.
  const bool rebound = loopback_ && !is_local_name(head.find("host").value_or("localhost"));
  if (has_token(head) || (reading && loopback_ && !rebound)) return std::nullopt;
  if (reading && rebound)
    return ApiError{403, "without the admin token, ask by an IP address or as 'localhost'", {}, {}};
  const Duration wait = failed_logins_.count(
      connection.source(), gateway_.config().limits.failed_logins_per_minute, gateway_.loop().now());
  if (wait > Duration(0))
    return ApiError{429, "too many requests without the admin token from this address", {}, {}, wait};
  return ApiError{
      401, "this needs the admin token: send 'Authorization: Bearer TOKEN' (see docs/admin-api.md)", {}, {}};
}

void AdminApi::on_request(ServerConnection& connection) {
  const std::optional<AdminAnswer> reply = answer(connection);
  if (!reply) return;  // it comes later
  const HeaderField fields[] = {{"Content-Type", reply->type}, {"Cache-Control", "no-store"}};
  connection.respond(reply->status, fields, reply->body);
}

std::optional<AdminAnswer> AdminApi::answer(ServerConnection& connection) {
  const HttpHead& head = connection.head();
  const std::size_t mark = std::min(head.target.find('?'), head.target.size());
  const std::string_view path = head.target.substr(0, mark);
  const std::string_view query = head.target.substr(std::min(mark + 1, head.target.size()));
  const bool reading = head.method == "GET" || head.method == "HEAD";
  if (reading && path == "/healthz") return AdminAnswer{200, R"({"status":"ok"})"};
  if (reading && path == "/readyz") {
    return gateway_.ready() ? AdminAnswer{200, R"({"status":"ready"})"}
                            : AdminAnswer{503, R"({"status":"no worker available"})"};
  }
  if (!reading) {
    if (path == "/api/v1/handover" && head.method == "POST") {
      handover_.answer(connection);
      return std::nullopt;
    }
    if (held_) return admin_error(409, "a hand-over is under way; try again when it is over", "handover");
    if (path.starts_with(AdminWorkers::kPathStart))
      return workers_.answer(connection, head.method, path, query);
    if (head.method != "POST") return admin_error(405, "changes are made with POST");
    return change(path, connection.body());
  }
  if (path.starts_with(AdminWorkers::kPathStart))
    return workers_.answer(connection, head.method, path, query);
  if (path == "/") return AdminAnswer{200, std::string(kIndex)};
  if (path == "/metrics")
    return AdminAnswer{200, gateway_.metrics_page(), "text/plain; version=0.0.4; charset=utf-8"};
  if (path == "/api/v1/pools") return AdminAnswer{200, pools_json()};
  if (path == "/api/v1/workers") return AdminAnswer{200, workers_.list_json()};
  if (path == "/api/v1/weights") return AdminAnswer{200, weights_json(query)};
  if (path == "/api/v1/policies") return AdminAnswer{200, policies_json()};
  if (path == "/api/v1/info") {
    const RequestTotals& totals = gateway_.totals();
    return AdminAnswer{
        200,
        fmt::format(
            R"({{"version":"{}","uptime_s":{:.1f},"listen":"{}:{}","requests":{{"arrived":{},"completed":{},)"
            R"("refused":{},"failed":{},"canceled":{},"in_flight":{}}}}})",
            HENG_VERSION, gateway_.uptime_s(), gateway_.endpoint().host, gateway_.endpoint().port,
            totals.arrived, totals.completed, totals.refused, totals.failed, totals.canceled,
            totals.in_flight)};
  }
  return admin_error(404, fmt::format("nothing at '{}'; GET / lists what there is", path));
}

AdminAnswer AdminApi::change(std::string_view path, std::string_view body) {
  if (path == "/balance") return balance(body);
  if (path == "/api/v1/reload") {
    if (!reload_) return {409, api_error_body(409, "this gateway was not started from a configuration file")};
    const Result<void> done = reload_();
    if (done) return {200, R"({"reloaded":true})"};
    return {422, api_error_body(422, done.error().message, "config_invalid")};
  }
  return {404,
          api_error_body(404, fmt::format("nothing to change at '{}'; GET / lists what there is", path))};
}

std::string AdminApi::pools_json() const {
  std::string list;
  for (const auto& [model, pool] : gateway_.pools()) {
    std::string aliases;
    for (const std::string& alias : pool->config().aliases) append_element(aliases, json_quote(alias));
    append_element(
        list,
        fmt::format(
            R"({{"model":{},"aliases":[{}],"policy":"{}","workers":{},"eligible":{},"in_flight":{},)"
            R"("max_in_flight":{},"queued":{},"queue_length":{},"duration_p50_s":{},"duration_p99_s":{}}})",
            json_quote(model), aliases, pool->config().policy->name, pool->config().workers.size(),
            pool->pool().view().eligible.size(), pool->pool().in_flight(), pool->pool().pool_limit(),
            pool->line().size(), pool->line().length(), json_number(pool->duration().quantile(0.5)),
            json_number(pool->duration().quantile(0.99))));
  }
  return "{\"pools\":[" + list + "]}";
}

/// `?pool=MODEL` for one pool, `&since=S` for samples after that time.
std::string AdminApi::weights_json(std::string_view query) const {
  const std::string wanted = query_value(query, "pool");
  const std::string since_text = query_value(query, "since");
  const double since = since_text.empty() ? -1 : std::strtod(since_text.c_str(), nullptr);
  std::string list;
  for (const auto& [model, pool] : gateway_.pools()) {
    if (!wanted.empty() && wanted != model) continue;
    const std::vector<Slot> members = members_of(*pool);
    std::string names;
    for (const Slot slot : members) append_element(names, json_quote(pool->worker_name(slot)));
    std::string history;
    for (const WeightSample& sample : pool->history()) {
      if (sample.time_s <= since) continue;
      append_element(
          history, fmt::format(R"({{"time_s":{:.2f},"weights":{},"assigned":{}}})", sample.time_s,
                               slot_values(sample.weights, members), slot_values(sample.assigned, members)));
    }
    append_element(list,
                   fmt::format(R"({{"pool":{},"policy":"{}","workers":[{}],"weights":{},"history":[{}]}})",
                               json_quote(model), pool->config().policy->name, names,
                               slot_values(shares_of(*pool), members), history));
  }
  return "{\"pools\":[" + list + "]}";
}

std::string AdminApi::policies_json() const {
  std::string list;
  for (const RoutePolicyEntry& entry : route_policies()) {
    std::string options;
    for (const OptionField& field : entry.fields) {
      append_element(options, fmt::format(R"({{"key":"{}","default":{},"min":{},"max":{},"doc":{}}})",
                                          field.key, json_number(field.default_value), json_number(field.min),
                                          json_number(field.max), json_quote(field.doc)));
    }
    append_element(list, fmt::format(R"({{"name":"{}","summary":{},"options":[{}]}})", entry.name,
                                     json_quote(entry.summary), options));
  }
  return "{\"policies\":[" + list + "]}";
}

/// {"pool":p,"node_index":i,"load":x} or {"pool":p,"loads":[...]}; answers with the weights that follow.
AdminAnswer AdminApi::balance(std::string_view body) {
  constexpr std::string_view kNotALoad = "a load must be a number of at least 0";
  const auto bad = [](std::string_view message) { return AdminAnswer{400, api_error_body(400, message)}; };
  const auto& pools = gateway_.pools();
  try {
    simdjson::dom::parser parser;
    const simdjson::dom::element report = parser.parse(body.data(), body.size());
    std::string_view name;
    const bool named = report["pool"].get(name) == simdjson::SUCCESS;
    if (!named && pools.size() != 1)
      return bad("'pool' must name one of the pools: there is not exactly one");
    const auto found = named ? pools.find(std::string(name)) : pools.begin();
    if (found == pools.end()) return {404, api_error_body(404, fmt::format("there is no pool '{}'", name))};
    Pool& pool = found->second->pool();
    const Instant now = gateway_.loop().now();
    const auto take = [&](Slot slot, double load) { return pool.report_load(slot, load, now); };
    const std::vector<Slot> members = members_of(*found->second);
    const std::string_view policy = found->second->config().policy->name;
    if (policy != "dynamic_weight") {
      return bad(
          fmt::format("only pools with the policy dynamic_weight take loads; this one's is {}", policy));
    }
    simdjson::dom::array loads;
    if (report["loads"].get(loads) == simdjson::SUCCESS) {
      if (loads.size() != members.size()) {
        return bad(fmt::format("'loads' must have one number for each of the {} workers", members.size()));
      }
      for (const simdjson::dom::element load : loads) {
        if (double(load) < 0) return bad(kNotALoad);  // before any is taken
      }
      std::size_t index = 0;
      for (const simdjson::dom::element load : loads) {
        if (!take(members[index++], double(load))) return bad(kNotALoad);
      }
    } else {
      const std::uint64_t index = report["node_index"];
      if (index >= pool.slots() || !pool.is_member(static_cast<Slot>(index))) {
        return bad(fmt::format("'node_index' {} is nobody's; GET /api/v1/workers shows each worker's `index`",
                               index));
      }
      if (!take(static_cast<Slot>(index), double(report["load"]))) return bad(kNotALoad);
    }
    return {200, fmt::format(R"({{"weights":{}}})", slot_values(shares_of(*found->second), members))};
  } catch (const simdjson::simdjson_error&) {
    return bad(R"(expected {"pool":"model","node_index":0,"load":1.5} or {"pool":"model","loads":[1.5,2]})");
  }
}

}  // namespace heng
