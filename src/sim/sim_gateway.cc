// The steps of an exchange that touch pool, health and budget, in the order the live gateway takes them.
#include "sim/sim_gateway.h"

#include <algorithm>
#include <utility>

#include "base/result.h"
#include "host/eligibility.h"

namespace heng {

SimGateway::SimGateway(const SimGatewayOptions& options, Rng rng)
    : options_(options),
      pool_(options.policy->make(options.policy_options), rng),
      budget_(options.retry_budget_ratio, options.retry_budget_floor),
      phases_(rng.split("engine_load")) {}

void SimGateway::add_worker(std::uint64_t identity, double weight, double capacity, Instant now) {
  const Slot slot = pool_.add(identity, weight, capacity);
  HENG_ASSERT(slot == health_.size());
  health_.emplace_back(options_.health, now, now > Instant{});
  load_polls_.emplace_back().start(options_.engine_load_interval, phases_.uniform(), now);
  standings_.push_back(health_.back().standing());
  silences_.push_back(0);
  streams_.push_back(0);
  set_eligibility(pool_, standings_, options_.max_ejected_share);
}

void SimGateway::refresh(Slot slot) {
  const Standing standing = health_[slot].standing();
  if (std::exchange(standings_[slot], standing) == standing) return;
  set_eligibility(pool_, standings_, options_.max_ejected_share);
}

std::optional<Slot> SimGateway::reserve(const RequestView& request, Instant now, Slot avoid) {
  const std::optional<Slot> slot = pool_.reserve(request, now, avoid);
  if (!slot) return slot;
  health_[*slot].on_attempt_started(request, now);
  refresh(*slot);
  return slot;
}

void SimGateway::first_byte(Slot slot, const RequestView& request, Duration elapsed, Instant now) {
  health_[slot].on_progress(now);
  if (request.stream) health_[slot].on_flowing(request.id, Outcome::ok, now);
  refresh(slot);
  pool_.first_byte(slot, request, elapsed, now);
  ++streams_[slot];
}

void SimGateway::end(const AttemptEvent& event, bool answering, Instant now) {
  const Slot slot = event.worker;
  if (answering) --streams_[slot];
  if (event.outcome == Outcome::ok) health_[slot].on_progress(now);
  pool_.end(event, now);
  health_[slot].on_attempt(event.request, event.outcome, now);
  refresh(slot);
}

bool SimGateway::has_alternative(Slot slot) const {
  return std::ranges::any_of(pool_.view().eligible, [&](Slot other) { return other != slot; });
}

std::optional<Outcome> SimGateway::reason_to_leave(Slot slot, const RequestView& request, Instant since,
                                                   Instant now) const {
  if (!health_[slot].waits_in_vain(request, since, now) || !has_alternative(slot)) return std::nullopt;
  // Of a worker that may just be busy it says nothing.
  return health_[slot].state() == HealthState::ejected ? Outcome::timeout : Outcome::canceled;
}

bool SimGateway::may_try_again(Slot slot, std::uint32_t attempts, Outcome outcome, Instant now) {
  if (!options_.retry || attempts > 1) return false;
  return has_alternative(slot) && (outcome == Outcome::refused || budget_.take(now));
}

void SimGateway::tick(Instant now, std::span<const char> flowing, SimGatewayDue& due) {
  due.probes.clear(), due.silent.clear(), due.loads.clear();
  for (Slot slot = 0; slot < health_.size(); ++slot) {
    WorkerHealth& health = health_[slot];
    if (streams_[slot] > 0 && flowing[slot] != 0) health.on_progress(now);
    health.tick(now);
    if (health.probe_due(now)) {
      health.on_probe_sent(now);
      due.probes.push_back(slot);
    }
    if (std::exchange(silences_[slot], health.silences()) != health.silences()) due.silent.push_back(slot);
    if (health.state() != HealthState::ejected && load_polls_[slot].due(now)) {
      load_polls_[slot].on_sent(now);
      due.loads.push_back(slot);
    }
    refresh(slot);
    pool_.set_ramp(slot, health.ramp(now));
  }
  pool_.tick(now);
}

void SimGateway::on_probe(Slot slot, Outcome outcome, Instant now) {
  health_[slot].on_probe(outcome == Outcome::ok, outcome, now);
  refresh(slot);
}

void SimGateway::on_load(Slot slot, const EngineLoad* load, Instant now) {
  load_polls_[slot].on_answer(load != nullptr ? LoadAnswer::load : LoadAnswer::failed, now);
  if (load == nullptr) return;
  EngineLoad read = *load;
  read.at = now;
  pool_.set_reported(slot, read);
}

}  // namespace heng
