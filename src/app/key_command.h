// `heng key`: makes API keys, and looks at the file they stand in.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "model/api_key.h"

namespace heng {

class KeyCommand {
 public:
  void add_to(CLI::App& app, int& exit_code);

 private:
  int make();
  int list() const;
  int check() const;

  Tenant tenant_;
  std::string expires_;
  std::string file_;
  std::string shown_file_;  // holds a key to be checked
};

}  // namespace heng
