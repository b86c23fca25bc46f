// The workers of one model: who may be chosen, what is reserved on whom, and the policy that chooses.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/rng.h"
#include "flow/pool_event.h"
#include "model/attempt.h"
#include "model/pool_view.h"
#include "model/request.h"
#include "policy/route/explain.h"
#include "policy/route/policy.h"

namespace heng {

/// Owned by one loop. Choosing a worker and counting the request against it is one step, so no two requests
/// ever see the same load. Every reservation is ended exactly once.
class Pool {
 public:
  Pool(std::unique_ptr<RoutePolicy> policy, Rng rng);

  /// Before the first worker. The observer must outlive the pool; null = none.
  void observe(PoolObserver* observer) { observer_ = observer; }

  /// `identity`: hash of the worker's URL. `capacity` 0 = not declared. The worker starts eligible.
  Slot add(std::uint64_t identity, double weight, double capacity);
  void set_weight(Slot slot, double weight, double capacity);
  /// No new requests; the slot is free for another worker once its last request has ended.
  void remove(Slot slot);
  /// May be chosen. `usable`: may also be given what belongs to it, though others are to be chosen now.
  void set_eligible(Slot slot, bool eligible, bool usable);
  void set_eligible(Slot slot, bool eligible) { set_eligible(slot, eligible, eligible); }
  /// No new requests although it stays, whatever set_eligible says.
  void set_drained(Slot slot, bool drained);
  /// Share of its weight a worker in slow start gets, in (0, 1].
  void set_ramp(Slot slot, double share);

  /// What the worker says about its engine.
  void set_reported(Slot slot, const EngineLoad& load);

  /// How many requests a worker, and the whole pool, may have at a time; 0 = no limit. Those under way stay.
  void set_limit(Slot slot, std::uint32_t in_flight_max);
  void set_pool_limit(std::uint32_t in_flight_max);

  /// So many requests beside the pool's own are under way on the worker, or (kNoSlot) on others: they count
  /// like its own.
  void set_elsewhere(Slot slot, std::uint32_t in_flight);

  /// The policy's choice among those with room, reserved; nothing if there is none, see room(). `avoid` (a
  /// worker just tried) is left out.
  std::optional<Slot> reserve(const RequestView& request, Instant now, Slot avoid = kNoSlot);
  /// Reserves a given worker, if it is eligible and has room (sessions), or `bound` to it (resources that
  /// live there only) and usable.
  bool reserve_on(Slot slot, const RequestView& request, Instant now, bool bound = false);
  void first_byte(Slot slot, const RequestView& request, Duration elapsed, Instant now);
  void first_byte(const AttemptEvent& event, Instant now);
  /// `event.worker` is released.
  void end(const AttemptEvent& event, Instant now);
  void tick(Instant now);
  /// See RoutePolicy::report_load.
  bool report_load(Slot slot, double load, Instant now);
  /// How the policy judges those a request could be given now, room or not. Changes no choice.
  std::vector<Candidate> explain(const RequestView& request, Instant now);

  PoolView view() const;
  const RoutePolicy& policy() const { return *policy_; }
  bool is_usable(Slot slot) const { return is_member(slot) && usable_[slot] != 0 && drained_[slot] == 0; }
  bool is_member(Slot slot) const { return slot < state_.size() && state_[slot] == State::member; }
  /// Removed, and its last request has not ended.
  bool is_leaving(Slot slot) const { return slot < state_.size() && state_[slot] == State::leaving; }
  bool is_drained(Slot slot) const { return drained_[slot] != 0; }
  std::uint32_t in_flight(Slot slot) const { return in_flight_[slot]; }
  std::uint32_t in_flight() const { return total_in_flight_; }
  /// Of these.
  std::uint32_t elsewhere(Slot slot) const { return elsewhere_[slot]; }
  enum class Room : std::uint8_t { free, full, none };  // none: no worker is eligible, waiting may be in vain
  Room room(Slot avoid = kNoSlot) const;
  /// No worker, or all drained: none will be eligible by itself.
  bool is_deserted() const;
  bool has_room(Slot slot) const {
    return (limit_[slot] == 0 || in_flight_[slot] < limit_[slot]) && pool_has_room();
  }
  std::uint32_t limit(Slot slot) const { return limit_[slot]; }
  std::uint32_t pool_limit() const { return pool_limit_; }
  bool limited() const { return pool_limit_ != 0 || limits_ != 0; }
  std::size_t slots() const { return state_.size(); }

 private:
  enum class State : std::uint8_t { free, member, leaving };
  void rebuild();
  bool may_serve(Slot slot) const { return is_member(slot) && healthy_[slot] != 0 && drained_[slot] == 0; }
  bool pool_has_room() const { return pool_limit_ == 0 || total_in_flight_ < pool_limit_; }
  std::optional<Slot> choose_among_some(const RequestView& request, Instant now, Slot avoid);
  void commit(Slot slot, const RequestView& request, Instant now);
  void put_limit(Slot slot, std::uint32_t in_flight_max);
  void count_elsewhere(Slot slot, std::uint32_t in_flight);
  void tell(const PoolEvent& event) const {
    if (observer_ != nullptr) observer_->on_event(event);
  }

  PoolObserver* observer_ = nullptr;
  std::unique_ptr<RoutePolicy> policy_;
  Rng rng_;
  std::vector<State> state_;  // [slots], like all below
  std::vector<char> healthy_;
  std::vector<char> usable_;
  std::vector<char> drained_;
  std::vector<std::uint32_t> in_flight_;
  std::vector<std::uint32_t> elsewhere_;  // of in_flight_
  std::vector<std::uint32_t> limit_;
  std::vector<double> configured_weight_;
  std::vector<double> ramp_;
  std::vector<double> weight_;  // configured x ramp
  std::vector<double> capacity_;
  std::vector<std::uint64_t> identity_;
  std::vector<EngineLoad> reported_;
  std::vector<Slot> eligible_;
  std::vector<Slot> candidates_;  // scratch
  std::uint32_t total_in_flight_ = 0;
  std::uint32_t elsewhere_on_others_ = 0;  // of total_in_flight_
  std::uint32_t pool_limit_ = 0;
  std::size_t limits_ = 0;  // workers with one
  std::uint64_t generation_ = 0;
};

}  // namespace heng
