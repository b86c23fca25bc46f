// `heng docs`: the reference pages that the tables in the program generate.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace heng {

class DocsCommand {
 public:
  void add_to(CLI::App& app, int& exit_code);

 private:
  std::string page_ = "configuration";
  bool write_ = false;
};

}  // namespace heng
