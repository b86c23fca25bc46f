// One gateway of a simulated cluster: the live gateway's own pool, policy, health and retry budget.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "control/load_poll.h"
#include "control/worker_health.h"
#include "flow/pool.h"
#include "flow/retry_budget.h"
#include "policy/route/registry.h"

namespace heng {

struct SimGatewayOptions {
  const RoutePolicyEntry* policy = nullptr;
  OptionValues policy_options;
  HealthOptions health;
  double max_ejected_share = 0.5;
  bool retry = true;
  double retry_budget_ratio = 0.1;
  std::uint32_t retry_budget_floor = 10;
  Duration engine_load_interval{0};  // 0 = never read
  Duration engine_load_timeout = 1s;
};

/// Workers to turn to after a tick.
struct SimGatewayDue {
  std::vector<Slot> probes;
  std::vector<Slot> silent;  // requests waiting there should look for a reason to leave
  std::vector<Slot> loads;   // to be asked for their engine's load
};

/// Knows only what its own requests and probes have told it. Owned by the cluster; workers have the same
/// slots on all gateways.
class SimGateway {
 public:
  SimGateway(const SimGatewayOptions& options, Rng rng);

  void add_worker(std::uint64_t identity, double weight, double capacity, Instant now);

  void on_request(Instant now) { budget_.on_request(now); }
  std::optional<Slot> reserve(const RequestView& request, Instant now, Slot avoid = kNoSlot);
  void first_byte(Slot slot, const RequestView& request, Duration elapsed, Instant now);
  /// `answering`: its first byte has been seen.
  void end(const AttemptEvent& event, bool answering, Instant now);
  /// One more attempt on another worker: before the first byte, within the budget (which is charged).
  bool may_try_again(Slot slot, std::uint32_t attempts, Outcome outcome, Instant now);

  /// Whether a request that waits for its first byte since `since` should go to another worker, and what that
  /// says about this one.
  std::optional<Outcome> reason_to_leave(Slot slot, const RequestView& request, Instant since,
                                         Instant now) const;

  /// What the live gateway does every 100 ms. `flowing`: workers that are sending tokens now if they have any
  /// streams. Each probe and question in `due` is to be answered once.
  void tick(Instant now, std::span<const char> flowing, SimGatewayDue& due);
  void on_probe(Slot slot, Outcome outcome, Instant now);
  /// nullptr: no answer.
  void on_load(Slot slot, const EngineLoad* load, Instant now);

  const Pool& pool() const { return pool_; }

 private:
  void refresh(Slot slot);
  bool has_alternative(Slot slot) const;

  SimGatewayOptions options_;
  Pool pool_;
  RetryBudget budget_;
  Rng phases_;
  std::vector<WorkerHealth> health_;     // [slots]
  std::vector<LoadPoll> load_polls_;     // [slots]
  std::vector<Standing> standings_;      // [slots] as the pool knows them
  std::vector<std::uint32_t> silences_;  // [slots] as last seen
  std::vector<std::uint32_t> streams_;   // [slots] attempts past their first byte
};

}  // namespace heng
