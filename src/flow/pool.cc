// Reservation and membership of one pool.
#include "flow/pool.h"

#include <algorithm>

#include "base/result.h"

namespace heng {

Pool::Pool(std::unique_ptr<RoutePolicy> policy, Rng rng) : policy_(std::move(policy)), rng_(rng) {}

Slot Pool::add(std::uint64_t identity, double weight, double capacity) {
  Slot slot = static_cast<Slot>(std::ranges::find(state_, State::free) - state_.begin());
  if (slot == state_.size()) {
    state_.push_back(State::free);
    healthy_.push_back(0);
    usable_.push_back(0);
    drained_.push_back(0);
    in_flight_.push_back(0);
    elsewhere_.push_back(0);
    limit_.push_back(0);
    configured_weight_.push_back(0);
    ramp_.push_back(1);
    weight_.push_back(0);
    capacity_.push_back(0);
    identity_.push_back(0);
    reported_.push_back({});
  }
  state_[slot] = State::member;
  healthy_[slot] = usable_[slot] = 1;
  drained_[slot] = 0;
  configured_weight_[slot] = weight;
  ramp_[slot] = 1;
  weight_[slot] = weight;
  capacity_[slot] = capacity;
  identity_[slot] = identity;
  reported_[slot] = {};
  put_limit(slot, 0);
  rebuild();
  tell({.kind = PoolEvent::Kind::add,
        .worker = slot,
        .identity = identity,
        .weight = weight,
        .capacity = capacity});
  return slot;
}

void Pool::set_weight(Slot slot, double weight, double capacity) {
  configured_weight_[slot] = weight;
  weight_[slot] = weight * ramp_[slot];
  capacity_[slot] = capacity;
  ++generation_;
  tell({.kind = PoolEvent::Kind::set_weight, .worker = slot, .weight = weight, .capacity = capacity});
}

void Pool::remove(Slot slot) {
  count_elsewhere(slot, 0);
  state_[slot] = in_flight_[slot] == 0 ? State::free : State::leaving;
  put_limit(slot, 0);
  rebuild();
  tell({.kind = PoolEvent::Kind::remove, .worker = slot});
}

void Pool::set_eligible(Slot slot, bool eligible, bool usable) {
  const bool same = (healthy_[slot] != 0) == eligible;
  if (same && (usable_[slot] != 0) == usable) return;
  usable_[slot] = usable ? 1 : 0;
  healthy_[slot] = eligible ? 1 : 0;
  if (!same) rebuild();
  tell({.kind = PoolEvent::Kind::set_eligible, .worker = slot, .yes = eligible, .usable = usable});
}

void Pool::set_drained(Slot slot, bool drained) {
  if ((drained_[slot] != 0) == drained) return;
  drained_[slot] = drained ? 1 : 0;
  rebuild();
  tell({.kind = PoolEvent::Kind::set_drained, .worker = slot, .yes = drained});
}

void Pool::set_ramp(Slot slot, double share) {
  if (ramp_[slot] == share) return;
  ramp_[slot] = share;
  weight_[slot] = configured_weight_[slot] * share;
  tell({.kind = PoolEvent::Kind::set_ramp, .worker = slot, .weight = share});
}

void Pool::set_reported(Slot slot, const EngineLoad& load) {
  reported_[slot] = load;
  tell({.kind = PoolEvent::Kind::set_reported, .worker = slot, .reported = load});
}

void Pool::set_limit(Slot slot, std::uint32_t in_flight_max) {
  if (limit_[slot] == in_flight_max) return;
  put_limit(slot, in_flight_max);
  tell({.kind = PoolEvent::Kind::set_limit, .worker = slot, .limit = in_flight_max});
}

void Pool::set_pool_limit(std::uint32_t in_flight_max) {
  if (pool_limit_ == in_flight_max) return;
  pool_limit_ = in_flight_max;
  tell({.kind = PoolEvent::Kind::set_pool_limit, .limit = in_flight_max});
}

void Pool::set_elsewhere(Slot slot, std::uint32_t in_flight) {
  if ((slot == kNoSlot ? elsewhere_on_others_ : elsewhere_[slot]) == in_flight) return;
  count_elsewhere(slot, in_flight);
  tell({.kind = PoolEvent::Kind::set_elsewhere, .worker = slot, .limit = in_flight});
}

void Pool::count_elsewhere(Slot slot, std::uint32_t in_flight) {
  std::uint32_t& counted = slot == kNoSlot ? elsewhere_on_others_ : elsewhere_[slot];
  if (slot != kNoSlot) in_flight_[slot] += in_flight - counted;
  total_in_flight_ += in_flight - counted;
  counted = in_flight;
}

void Pool::put_limit(Slot slot, std::uint32_t in_flight_max) {
  limits_ += (in_flight_max != 0) - (limit_[slot] != 0);
  limit_[slot] = in_flight_max;
}

Pool::Room Pool::room(Slot avoid) const {
  const auto others = [&](Slot slot) { return slot != avoid; };
  if (std::ranges::none_of(eligible_, others)) return Room::none;
  const auto open = [&](Slot slot) { return slot != avoid && has_room(slot); };
  return std::ranges::any_of(eligible_, open) ? Room::free : Room::full;
}

bool Pool::is_deserted() const {
  for (Slot slot = 0; slot < state_.size(); ++slot) {
    if (is_member(slot) && !is_drained(slot)) return false;
  }
  return true;
}

void Pool::rebuild() {
  eligible_.clear();
  for (Slot slot = 0; slot < state_.size(); ++slot) {
    if (may_serve(slot)) eligible_.push_back(slot);
  }
  candidates_.reserve(eligible_.size());
  ++generation_;
}

PoolView Pool::view() const {
  return {eligible_, in_flight_, weight_, capacity_, identity_, reported_, generation_};
}

std::optional<Slot> Pool::reserve(const RequestView& request, Instant now, Slot avoid) {
  const bool all = avoid == kNoSlot && !limited();
  const std::optional<Slot> slot =
      all ? policy_->choose(request, view(), now, rng_) : choose_among_some(request, now, avoid);
  HENG_ASSERT(!slot || (may_serve(*slot) && *slot != avoid));
  if (slot) commit(*slot, request, now);
  if (observer_ != nullptr) {
    observer_->on_event({.kind = PoolEvent::Kind::reserve,
                         .at = now,
                         .worker = slot.value_or(kNoSlot),
                         .asked = avoid,
                         .request = request});
  }
  return slot;
}

std::optional<Slot> Pool::choose_among_some(const RequestView& request, Instant now, Slot avoid) {
  candidates_.clear();
  for (const Slot slot : eligible_) {
    if (slot != avoid && has_room(slot)) candidates_.push_back(slot);
  }
  if (candidates_.size() == eligible_.size()) return policy_->choose(request, view(), now, rng_);
  // Under load mostly one worker has just become free: there is nothing to choose.
  if (candidates_.size() < 2) return candidates_.empty() ? std::nullopt : std::optional(candidates_.front());
  PoolView pool = view();
  pool.eligible = candidates_;
  // Another set of workers: what a policy keeps by generation does not hold for it.
  pool.generation = ++generation_;
  const std::optional<Slot> slot = policy_->choose(request, pool, now, rng_);
  ++generation_;
  return slot;
}

bool Pool::reserve_on(Slot slot, const RequestView& request, Instant now, bool bound) {
  const bool taken = (bound ? is_usable(slot) : may_serve(slot)) && has_room(slot);
  if (taken) commit(slot, request, now);
  if (observer_ != nullptr) {
    observer_->on_event({.kind = PoolEvent::Kind::reserve_on,
                         .at = now,
                         .worker = taken ? slot : kNoSlot,
                         .asked = slot,
                         .yes = bound,
                         .request = request});
  }
  return taken;
}

void Pool::commit(Slot slot, const RequestView& request, Instant now) {
  ++in_flight_[slot];
  ++total_in_flight_;
  AttemptEvent event;
  event.kind = AttemptEvent::Kind::started;
  event.worker = slot;
  event.request = request.id;
  event.prompt_tokens = request.prompt_tokens;
  event.prefix = request.prefix;
  event.block_tokens = request.block_tokens;
  event.stream = request.stream;
  policy_->on(event, view(), now);
}

void Pool::first_byte(Slot slot, const RequestView& request, Duration elapsed, Instant now) {
  AttemptEvent event;
  event.kind = AttemptEvent::Kind::first_byte;
  event.worker = slot;
  event.request = request.id;
  event.elapsed = elapsed;
  event.time_to_first_byte = elapsed;
  event.prompt_tokens = request.prompt_tokens;
  first_byte(event, now);
}

void Pool::first_byte(const AttemptEvent& event, Instant now) {
  policy_->on(event, view(), now);
  if (observer_ != nullptr) {
    observer_->on_event(
        {.kind = PoolEvent::Kind::first_byte, .at = now, .worker = event.worker, .attempt = event});
  }
}

void Pool::end(const AttemptEvent& event, Instant now) {
  const Slot slot = event.worker;
  HENG_ASSERT(slot < state_.size() && in_flight_[slot] > elsewhere_[slot]);
  --in_flight_[slot];
  --total_in_flight_;
  policy_->on(event, view(), now);
  if (state_[slot] == State::leaving && in_flight_[slot] == 0) {
    state_[slot] = State::free;
    rebuild();
  }
  if (observer_ != nullptr)
    observer_->on_event({.kind = PoolEvent::Kind::end, .at = now, .worker = slot, .attempt = event});
}

void Pool::tick(Instant now) {
  policy_->tick(view(), now);
  tell({.kind = PoolEvent::Kind::tick, .at = now});
}

bool Pool::report_load(Slot slot, double load, Instant now) {
  const bool taken = policy_->report_load(slot, load, view(), now);
  tell({.kind = PoolEvent::Kind::report_load,
        .at = now,
        .worker = taken ? slot : kNoSlot,
        .asked = slot,
        .weight = load});
  return taken;
}

std::vector<Candidate> Pool::explain(const RequestView& request, Instant now) {
  return explain_choice(*policy_, request, view(), now);
}

}  // namespace heng
