// From a scenario to a cluster and its tally.
#include "sim/run.h"

#include <fmt/format.h>

#include <algorithm>

#include "host/health_options.h"
#include "host/limit_options.h"
#include "sim/measures.h"

namespace heng {

namespace {

constexpr std::uint64_t kProgressEvents = 20'000;

ClusterOptions cluster_options(const Scenario& scenario, const ScenarioPolicy& policy) {
  ClusterOptions options;
  options.workers = scenario.workers;
  for (SimWorker& worker : options.workers) {
    if (worker.max_in_flight == 0) worker.max_in_flight = scenario.pool.worker_max_in_flight;
  }
  options.faults = scenario.faults;
  options.gateways = scenario.gateways;
  options.network = scenario.network;
  options.seed = scenario.seed;
  options.first_byte_timeout = scenario.gateway.timeouts.first_byte;
  options.idle_timeout = scenario.gateway.timeouts.idle;
  options.gateway.policy = policy.entry;
  options.gateway.policy_options = policy.options;
  options.gateway.health = health_options(scenario.gateway.health);
  options.gateway.max_ejected_share = scenario.gateway.health.max_ejected_share;
  const EngineLoadConfig& load = scenario.gateway.engine_load;
  options.gateway.engine_load_interval = load.wanted_by(*policy.entry) ? load.interval : Duration(0);
  options.gateway.engine_load_timeout = load.timeout;
  options.gateway.max_in_flight = scenario.pool.max_in_flight;
  options.gateway.adaptive_limit = limit_options(scenario.gateway.adaptive_limit);
  options.gateway.queue_length = scenario.gateway.queue.length;
  options.gateway.queue_timeout = scenario.gateway.queue.timeout;
  options.gateway.retry = scenario.gateway.retry.enabled;
  options.gateway.retry_budget_ratio = scenario.gateway.retry.budget_ratio;
  options.gateway.retry_budget_floor = scenario.gateway.retry.budget_floor;
  return options;
}

/// Why a run that went well says nothing.
Error nothing_counted(const Scenario& scenario, std::uint64_t arrived) {
  if (arrived > 0) {
    return {ErrorCode::invalid,
            fmt::format("no request is counted: all {} come within the warm-up of {:g} s; shorten it",
                        arrived, to_seconds(scenario.warmup))};
  }
  const ScenarioTraffic& traffic = scenario.traffic;
  const ShapeOptions& shape = traffic.shape;
  std::string cut;
  if (shape.start > Duration(0)) cut += fmt::format(" from {:g} s on", to_seconds(shape.start));
  if (shape.duration > Duration(0)) cut += fmt::format(" for {:g} s", to_seconds(shape.duration));
  if (shape.sample < 1) cut += fmt::format(" in a sample of {:g}", shape.sample);
  return {ErrorCode::invalid,
          fmt::format("there is no request in {}{}",
                      traffic.trace.empty() ? "the made-up traffic" : traffic.trace, cut)};
}

bool is_about(const Expectation& expectation, const ScenarioPolicy& policy) {
  return expectation.policy.empty() || expectation.policy == policy.entry->name ||
         expectation.policy == policy.label;
}

}  // namespace

Result<Tally> run_scenario(const Scenario& scenario, const ScenarioPolicy& policy, const RunHooks& hooks) {
  const auto traffic = open_traffic(scenario, hooks.warn);
  if (!traffic) return std::unexpected(traffic.error());
  TallyOptions tally_options;
  tally_options.workers = scenario.workers.size();
  for (const SimWorker& worker : scenario.workers) tally_options.speeds.push_back(worker.engine.speed);
  tally_options.ttft_objective = scenario.ttft_objective;
  tally_options.tpot_objective = scenario.tpot_objective;
  tally_options.warmup = scenario.warmup;
  Tally tally(tally_options);
  Cluster cluster(cluster_options(scenario, policy), **traffic, tally);
  cluster.on_end(hooks.on_end);
  for (std::uint64_t events = 1;; ++events) {
    const Result<bool> more = cluster.step();
    if (!more) return std::unexpected(more.error());
    if (!*more && tally.counted() == 0)
      return std::unexpected(nothing_counted(scenario, cluster.counts().arrived));
    if (!*more) return tally;
    if (hooks.progress && events % kProgressEvents == 0)
      hooks.progress(cluster.counts().arrived, cluster.now());
  }
}

std::vector<std::string> unmet_expectations(const Scenario& scenario, const ScenarioPolicy& policy,
                                            const Tally& tally) {
  std::vector<std::string> unmet;
  for (const Expectation& expectation : scenario.expect) {
    if (!is_about(expectation, policy)) continue;
    const double value = find_measure(expectation.measure)->of(tally);
    if (value >= expectation.min && value <= expectation.max) continue;
    const bool low = value < expectation.min;
    unmet.push_back(fmt::format("line {}: {} of {} is {:.6g}, expected at {} {:.6g}", expectation.line,
                                expectation.measure, policy.label, value, low ? "least" : "most",
                                low ? expectation.min : expectation.max));
  }
  return unmet;
}

std::vector<std::string> unanswered_expectations(const Scenario& scenario) {
  std::vector<std::string> unanswered;
  for (const Expectation& expectation : scenario.expect) {
    if (std::ranges::any_of(scenario.policies, [&](const auto& one) { return is_about(expectation, one); }))
      continue;
    unanswered.push_back(fmt::format("line {}: a bound on {} of {}, which is not run", expectation.line,
                                     expectation.measure, expectation.policy));
  }
  return unanswered;
}

}  // namespace heng
