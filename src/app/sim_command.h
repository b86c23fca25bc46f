// `heng sim`: routing policies on recorded or made-up traffic, in simulated time.
#pragma once

#include <CLI/CLI.hpp>
#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sim/run.h"

namespace heng {

/// A policy and what came of it.
struct SimResult {
  ScenarioPolicy policy;
  Tally tally;
  std::vector<std::string> unmet;  // expectations
};

class SimCommand {
 public:
  void add_to(CLI::App& app, int& exit_code);

 private:
  int run();
  Result<void> apply_flags(Scenario& scenario) const;
  Result<void> choose_policies(Scenario& scenario) const;
  Result<void> open_outputs();
  Result<SimResult> run_policy(const Scenario& scenario, std::size_t index, std::uint64_t requests);
  void warn(const std::string& text);
  int print(const Scenario& scenario, const std::vector<SimResult>& results) const;

  std::string file_;
  std::optional<std::string> trace_, duration_, start_, resample_, network_, warmup_, ttft_, tpot_;
  std::optional<double> rate_, scale_, sample_, streamed_;
  std::optional<std::uint64_t> requests_, seed_;
  std::optional<std::uint32_t> workers_, gateways_;
  std::vector<double> speeds_;
  std::vector<std::string> policies_;
  std::string report_, log_;
  std::ofstream log_file_;
  std::set<std::string> warned_;
  bool compare_ = false;
  bool json_ = false;
};

}  // namespace heng
