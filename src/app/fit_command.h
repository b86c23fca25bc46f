// `heng engine fit`: parameters of the engine model from measured requests.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "sim/fit.h"

namespace heng {

class FitCommand {
 public:
  void add_to(CLI::App& engine, int& exit_code);

 private:
  int run();
  Result<void> fit();

  FitOptions options_;
  std::vector<std::string> measurements_, held_out_;
  MeasuredChoice choice_;
  bool json_ = false;
};

/// The limits of an engine as flags.
void add_engine_limits(CLI::App& command, EngineParams& engine);
/// The `engine` section of a scenario. Throws CLI::ValidationError with place and mistake.
void read_engine(const std::string& path, EngineParams& engine);

}  // namespace heng
