// What was changed about workers at run time, laid over the configuration.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace heng {

/// About one worker of one pool.
struct WorkerChange {
  std::string pool;                        // `model` of the pool in the configuration, "" if it has none
  std::string worker;                      // its name
  std::optional<WorkerConfig> added = {};  // it is not in the configuration
  bool removed = false;
  bool drained = false;
  std::optional<double> weight = {};
  std::optional<double> capacity = {};

  bool operator==(const WorkerChange&) const = default;
};

/// A plain value: it outlives reloads and goes to the next program at a hand-over. It holds no change that
/// changes nothing.
struct WorkerOverlay {
  std::vector<WorkerChange> changes;

  const WorkerChange* find(std::string_view pool, std::string_view worker) const;
  /// Replaces what is known about that worker.
  void put(WorkerChange change);
  /// The pool's workers as they are to be: those of the file, then the discovered, then the added. Of two
  /// with one URL the first counts; a discovered one whose name is taken goes by its URL.
  std::vector<WorkerConfig> apply(const PoolConfig& pool, std::span<const WorkerConfig> discovered) const;

  bool operator==(const WorkerOverlay&) const = default;
};

/// With the API keys of added workers in it: for the next program, not for people.
std::string to_json(const WorkerOverlay& overlay);
/// Fails with what is wrong; takes what to_json wrote.
Result<WorkerOverlay> parse_overlay(std::string_view json);

}  // namespace heng
