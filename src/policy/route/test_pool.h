// For tests: a pool whose workers join, leave, fail and return, and which reserves and releases as the
// gateway does.
#pragma once

#include <algorithm>
#include <vector>

#include "base/hash.h"
#include "policy/route/policy.h"

namespace heng {

class TestPool {
 public:
  explicit TestPool(std::size_t workers = 0) {
    for (std::size_t i = 0; i < workers; ++i) add();
  }

  /// Takes the lowest free slot.
  Slot add(double worker_weight = 1, double worker_capacity = 0) {
    Slot slot = 0;
    while (slot < member_.size() && member_[slot]) ++slot;
    if (slot == member_.size()) {
      in_flight.push_back(0), weight.push_back(0), capacity.push_back(0), identity.push_back(0);
      reported.push_back({});
      member_.push_back(false), healthy_.push_back(false);
    }
    in_flight[slot] = 0;
    weight[slot] = worker_weight;
    capacity[slot] = worker_capacity;
    identity[slot] = mix(++joined_);
    reported[slot] = {};
    member_[slot] = healthy_[slot] = true;
    change();
    return slot;
  }
  void remove(Slot slot) { member_[slot] = false, change(); }
  void set_healthy(Slot slot, bool healthy) { healthy_[slot] = healthy, change(); }
  bool usable(Slot slot) const { return slot < member_.size() && member_[slot] && healthy_[slot]; }

  PoolView view() const { return {eligible_, in_flight, weight, capacity, identity, reported, generation_}; }

  /// Chooses, reserves and tells the policy; kNoSlot if nothing was eligible.
  Slot start(RoutePolicy& policy, const RequestView& request, Instant now, Rng& rng) {
    const std::optional<Slot> slot = policy.choose(request, view(), now, rng);
    if (slot) reserve(policy, request, *slot, now);
    return slot.value_or(kNoSlot);
  }
  void reserve(RoutePolicy& policy, const RequestView& request, Slot slot, Instant now) {
    ++in_flight[slot];
    policy.on({.kind = AttemptEvent::Kind::started,
               .worker = slot,
               .request = request.id,
               .prompt_tokens = request.prompt_tokens,
               .prefix = request.prefix,
               .block_tokens = request.block_tokens},
              view(), now);
  }
  void end(RoutePolicy& policy, const AttemptEvent& event, Instant now) {
    if (in_flight[event.worker] > 0) --in_flight[event.worker];
    policy.on(event, view(), now);
  }

  std::vector<std::uint32_t> in_flight;
  std::vector<double> weight;
  std::vector<double> capacity;
  std::vector<std::uint64_t> identity;
  std::vector<EngineLoad> reported;

 private:
  void change() {
    ++generation_;
    eligible_.clear();
    for (Slot slot = 0; slot < member_.size(); ++slot) {
      if (usable(slot)) eligible_.push_back(slot);
    }
  }

  std::vector<bool> member_, healthy_;
  std::vector<Slot> eligible_;
  std::uint64_t joined_ = 0;
  std::uint64_t generation_ = 0;
};

}  // namespace heng
