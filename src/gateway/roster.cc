// Puts the lists of workers together.
#include "gateway/roster.h"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace heng {

const std::vector<PoolConfig>& Roster::build(const Config& config) {
  pools_ = config.pools;
  std::vector<const Discovery*> used;
  for (PoolConfig& pool : pools_) {
    std::vector<WorkerConfig> discovered;
    if (pool.discover.used()) {
      const Discovery& discovery = discovery_of(pool);
      used.push_back(&discovery);
      discovered = admitted(config, discovery.workers());
    }
    pool.workers = overlay_.apply(pool, discovered);
  }
  changes_ += std::erase_if(
      discoveries_, [&](const auto& one) { return std::ranges::find(used, one.get()) == used.end(); });
  return pools_;
}

void Roster::tick(Instant now) {
  for (const auto& discovery : discoveries_) discovery->tick(now);
}

std::uint64_t Roster::version() const {
  std::uint64_t version = changes_;
  for (const auto& discovery : discoveries_) version += discovery->version();
  return version;
}

void Roster::set_overlay(WorkerOverlay overlay) {
  overlay_ = std::move(overlay);
  ++changes_;
}

Discovery& Roster::discovery_of(const PoolConfig& pool) {
  const auto found = std::ranges::find_if(discoveries_, [&](const auto& one) {
    return one->model() == pool.model && one->config() == pool.discover;
  });
  if (found != discoveries_.end()) return **found;
  discoveries_.push_back(std::make_unique<Discovery>(resolver_, pool.model, pool.discover));
  return *discoveries_.back();
}

/// Names are held against the list when they are connected to, by the address they lead to then.
std::vector<WorkerConfig> Roster::admitted(const Config& config, std::vector<WorkerConfig> found) {
  std::erase_if(found, [&](const WorkerConfig& worker) {
    const auto ip = parse_ip(worker.endpoint.host);
    Result<void> verdict = check_worker_url(worker.url);
    if (verdict && ip) verdict = check_worker_address(config.worker_allow, worker.endpoint.host, *ip);
    if (!verdict && refused_.insert(worker.url).second)
      spdlog::warn("discovered worker {} is not used: {}", worker.url, verdict.error().message);
    return !verdict;
  });
  return found;
}

}  // namespace heng
