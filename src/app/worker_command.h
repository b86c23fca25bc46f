// `heng worker add|drain|ready|remove|weight|list`: changes the workers of a running gateway.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "app/admin_client.h"

namespace heng {

class WorkerCommand {
 public:
  void add_to(CLI::App& app, int& exit_code);

 private:
  int list() const;
  int add() const;
  int drain() const;
  int ready() const;
  int remove() const;
  int weight() const;

  /// Sets `path` to the worker's place in the API; else the exit code after saying why.
  int find_worker(std::string& path, std::string& pool) const;
  int find_only_pool(std::string& pool) const;
  /// Asks, and prints what the state of the worker is then; the exit code.
  int change(const std::string& method, const std::string& path, const std::string& body = "") const;
  int wait_until_idle(const std::string& pool) const;

  AdminOptions options_;
  std::string pool_;
  std::string name_;
  std::string url_;
  std::string model_;
  std::string key_file_;
  double weight_ = 0;
  double capacity_ = -1;
  double timeout_s_ = 0;  // of --wait; 0 = as long as it takes
  bool wait_ = false;
  bool now_ = false;
};

}  // namespace heng
