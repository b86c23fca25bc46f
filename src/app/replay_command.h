// `heng replay`: a recorded run through the same code again, or through another policy.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "host/replay.h"

namespace heng {

class ReplayCommand {
 public:
  void add_to(CLI::App& app, int& exit_code);

 private:
  int run();

  std::string log_;
  std::string policy_;
  std::string explain_;
  std::size_t differences_ = 10;
  bool json_ = false;
};

}  // namespace heng
