// Who the workers are: the configuration's, those discovered, and what was changed at run time.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gateway/discovery.h"
#include "gateway/overlay.h"

namespace heng {

/// Lives on the gateway's loop. The overlay and what was discovered last outlive changes of the
/// configuration.
class Roster {
 public:
  explicit Roster(Resolver& resolver) : resolver_(resolver) {}

  /// The pools of this configuration with all their workers. What is discovered may only be where
  /// `worker_allow` says; the rest is left out and said once.
  const std::vector<PoolConfig>& build(const Config& config);
  /// As they were built last.
  const std::vector<PoolConfig>& pools() const { return pools_; }
  /// Looks for workers; about every 100 ms.
  void tick(Instant now);
  /// Bumped when build() would find other workers than before.
  std::uint64_t version() const;

  const WorkerOverlay& overlay() const { return overlay_; }
  void set_overlay(WorkerOverlay overlay);

 private:
  Discovery& discovery_of(const PoolConfig& pool);
  std::vector<WorkerConfig> admitted(const Config& config, std::vector<WorkerConfig> found);

  Resolver& resolver_;
  std::vector<PoolConfig> pools_;
  std::vector<std::unique_ptr<Discovery>> discoveries_;
  WorkerOverlay overlay_;
  std::uint64_t changes_ = 0;      // of the overlay and of discoveries_
  std::set<std::string> refused_;  // URLs, said in the log
};

}  // namespace heng
