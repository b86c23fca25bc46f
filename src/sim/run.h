// Runs a scenario under one policy and checks what it expects.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sim/scenario.h"

namespace heng {

struct RunHooks {
  /// Called now and then with the requests that have arrived and the simulated time. May be empty.
  std::function<void(std::uint64_t arrived, Instant now)> progress;
  /// Called with every request that has ended. May be empty.
  std::function<void(const RequestRecord&)> on_end;
  /// May be empty.
  TrafficWarning warn;
};

/// The scenario must be complete. Fails as its traffic does, and if no request is counted.
Result<Tally> run_scenario(const Scenario& scenario, const ScenarioPolicy& policy,
                           const RunHooks& hooks = {});

/// What a run missed of what the scenario expects; one line each.
std::vector<std::string> unmet_expectations(const Scenario& scenario, const ScenarioPolicy& policy,
                                            const Tally& tally);

/// Bounds on policies that the scenario does not run: nothing would ever check them. One line each.
std::vector<std::string> unanswered_expectations(const Scenario& scenario);

}  // namespace heng
