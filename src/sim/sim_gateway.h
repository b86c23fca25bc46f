// One gateway of a simulated cluster: the live gateway's own pool, policy, health, retry budget and queue.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "control/adaptive_limit.h"
#include "control/load_poll.h"
#include "control/worker_health.h"
#include "flow/pool.h"
#include "flow/request_queue.h"
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
  std::uint32_t max_in_flight = 0;  // on all workers together; 0 = no limit
  AdaptiveLimitOptions adaptive_limit;
  std::size_t queue_length = 1000;
  Duration queue_timeout = 30s;
};

/// A worker as gateways are told of it.
struct SimMember {
  std::uint64_t identity = 0;
  double weight = 1;
  double capacity = 0;
  std::uint32_t max_in_flight = 0;  // 0 = no limit; or kAdaptive
};

/// Workers to turn to after a tick.
struct SimGatewayDue {
  std::vector<Slot> probes;
  std::vector<Slot> silent;  // requests waiting there should look for a reason to leave
  std::vector<Slot> loads;   // to be asked for their engine's load
};

/// Knows only what its own requests and probes have told it. Owned by the cluster; workers have the same
/// slots on all gateways. Requests that wait have numbers of the cluster's. Of the queue there is one tenant
/// and one priority: what a request costs decides nothing.
class SimGateway {
 public:
  /// `serve_later` is called when the line should be served at the end of the instant.
  SimGateway(const SimGatewayOptions& options, Rng rng, std::function<void()> serve_later);

  void add_worker(const SimMember& worker, Instant now);

  void on_request(Instant now) { budget_.on_request(now); }
  /// A worker for a request that has just come; nothing if none has room, or others wait.
  std::optional<Slot> admit(const RequestView& request, Instant now);
  /// A worker for another attempt, but not `avoid`.
  std::optional<Slot> reserve(const RequestView& request, Instant now, Slot avoid);
  void first_byte(Slot slot, const RequestView& request, Duration elapsed, Instant now);
  /// `answering`: its first byte has been seen.
  void end(const AttemptEvent& event, const RequestView& request, bool answering, Instant now);

  // --- those who wait ---
  struct Turn {
    std::uint32_t request = 0;
    Slot slot = kNoSlot;  // reserved for it
  };
  using ViewOf = std::function<RequestView(std::uint32_t request)>;

  /// Waiting might be in vain where no worker is eligible.
  bool may_wait() const { return pool_.room() != Pool::Room::none; }
  /// `avoid`: the worker that has just failed it, if any; it has had its turn then. Returns who is turned
  /// away in return, if that is one too many.
  std::optional<std::uint32_t> wait(std::uint32_t request, Slot avoid, Instant now);
  /// The line is about to be served: until nobody is late, then until nobody has a turn.
  void begin_service() { line_due_ = false; }
  std::optional<std::uint32_t> next_late(Instant now);
  std::optional<Turn> next_turn(const ViewOf& view_of, Instant now);
  std::size_t waiting() const { return queue_.size(); }
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
  struct Waiting : QueuedRequest {
    std::uint32_t request = 0;
    Slot avoid = kNoSlot;
  };
  void refresh(Slot slot);
  std::optional<Slot> choose(const RequestView& request, Instant now);
  std::optional<Slot> begin(std::optional<Slot> slot, const RequestView& request, Instant now);
  std::uint32_t forget(QueuedRequest& waiting);
  void serve_line_later();
  bool has_alternative(Slot slot) const;

  SimGatewayOptions options_;
  Pool pool_;
  RetryBudget budget_;
  Rng phases_;
  std::function<void()> serve_later_;
  RequestQueue queue_;
  std::unordered_map<std::uint32_t, Waiting> waiting_;  // by request; nodes stay where they are
  bool line_due_ = false;                               // will be served, at the end of the instant
  std::vector<std::unique_ptr<AdaptiveLimit>> limits_;  // [slots] null: the worker's limit is not learned
  std::vector<WorkerHealth> health_;                    // [slots]
  std::vector<LoadPoll> load_polls_;                    // [slots]
  std::vector<Standing> standings_;                     // [slots] as the pool knows them
  std::vector<std::uint32_t> silences_;                 // [slots] as last seen
  std::vector<std::uint32_t> streams_;                  // [slots] attempts past their first byte
};

}  // namespace heng
