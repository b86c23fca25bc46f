// `heng engine`: a simulated inference server from the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "app/engine_server.h"
#include "app/fit_command.h"

namespace heng {

class EngineCommand {
 public:
  void add_to(CLI::App& app, int& exit_code);

 private:
  int run();

  EngineServerOptions options_;
  std::string listen_ = "127.0.0.1:8000";
  FitCommand fit_;
};

/// "HOST:PORT" or "[V6]:PORT".
Result<Endpoint> parse_endpoint(const std::string& text);

}  // namespace heng
