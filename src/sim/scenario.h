// What a simulation is to run: traffic, workers, faults, policies, and what must come out.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "sim/cluster.h"
#include "sim/traffic/shape.h"
#include "sim/traffic/synthetic.h"

namespace heng {

struct ScenarioTraffic {
  std::string trace;  // a file; "" = made up as `synthetic` says
  SyntheticOptions synthetic;
  ShapeOptions shape;
  double rate = 0;             // 0 = the trace's own, or the default of made-up traffic
  std::uint64_t requests = 0;  // 0 = the trace's, or the default of made-up traffic
};

struct ScenarioPolicy {
  const RoutePolicyEntry* entry = nullptr;
  OptionValues options;
  std::string label;  // the name, and what was set
};

/// A bound on one measure of one policy.
struct Expectation {
  std::string measure;
  std::string policy;  // a label, or the name of all that have other options; "" = every policy of the run
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  int line = 0;
};

struct Scenario {
  std::string name;
  std::uint64_t seed = 1;
  std::uint32_t gateways = 1;
  Duration network{0};
  Duration warmup{0};
  Duration ttft_objective = 2s;
  Duration tpot_objective = 100ms;
  ScenarioTraffic traffic;
  EngineParams engine;             // what workers do not say themselves
  std::vector<SimWorker> workers;  // in order of joining
  std::vector<SimFault> faults;    // repetitions written out
  std::vector<ScenarioPolicy> policies;
  std::vector<Expectation> expect;
  Config gateway;   // of its groups, what is simulated
  PoolConfig pool;  // of this, the limits
};

struct ScenarioLoad {
  Scenario scenario;  // meaningful if `issues` is empty
  std::vector<ConfigIssue> issues;
};

/// Without workers and policies: the caller fills them in.
ScenarioLoad parse_scenario(std::string_view yaml, const std::string& directory);
/// Paths of traces are taken from the file's folder.
ScenarioLoad load_scenario(const std::string& path);

/// "least_connections" or "dynamic_weight:beta=0.2:normalise=false".
Result<ScenarioPolicy> parse_policy(std::string_view text);
/// Eight equal workers, default traffic, where the scenario says nothing.
void complete(Scenario& scenario);

/// The traffic as the scenario shapes it. Fails as its source does. `warn` may be empty.
Result<std::unique_ptr<TrafficSource>> open_traffic(const Scenario& scenario,
                                                    const TrafficWarning& warn = {});

}  // namespace heng
