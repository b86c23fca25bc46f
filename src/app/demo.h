// `heng demo`: the whole thing on this machine, to watch weights find unequal speeds.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace heng {

struct DemoOptions {
  int iterations = 60;
  double interval_s = 0.5;
  std::string plot;  // file to leave a picture in; "" = none
  std::uint64_t seed = 1;
};

class DemoCommand {
 public:
  void add_to(CLI::App& app, int& exit_code);

 private:
  DemoOptions options_;
};

}  // namespace heng
