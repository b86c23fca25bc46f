// The steps of an exchange that touch pool, health, budget and queue, in the order the live gateway takes
// them.
#include "sim/sim_gateway.h"

#include <algorithm>
#include <utility>

#include "base/result.h"
#include "config/config.h"
#include "host/eligibility.h"

namespace heng {

SimGateway::SimGateway(const SimGatewayOptions& options, Rng rng, std::function<void()> serve_later)
    : options_(options),
      pool_(options.policy->make(options.policy_options), rng),
      budget_(options.retry_budget_ratio, options.retry_budget_floor),
      phases_(rng.split("engine_load")),
      serve_later_(std::move(serve_later)),
      queue_(options.queue_length) {
  pool_.set_pool_limit(options.max_in_flight);
}

void SimGateway::add_worker(const SimMember& worker, Instant now) {
  const Slot slot = pool_.add(worker.identity, worker.weight, worker.capacity);
  HENG_ASSERT(slot == health_.size());
  health_.emplace_back(options_.health, now, now > Instant{});
  load_polls_.emplace_back().start(options_.engine_load_interval, phases_.uniform(), now);
  standings_.push_back(health_.back().standing());
  silences_.push_back(0);
  streams_.push_back(0);
  set_eligibility(pool_, standings_, options_.max_ejected_share);
  limits_.emplace_back();
  if (worker.max_in_flight == kAdaptive)
    limits_.back() = std::make_unique<AdaptiveLimit>(options_.adaptive_limit, now);
  pool_.set_limit(slot, limits_.back() ? limits_.back()->limit() : worker.max_in_flight);
  serve_line_later();
}

void SimGateway::refresh(Slot slot) {
  const Standing standing = health_[slot].standing();
  if (std::exchange(standings_[slot], standing) == standing) return;
  set_eligibility(pool_, standings_, options_.max_ejected_share);
  serve_line_later();
}

// --- attempts ---

std::optional<Slot> SimGateway::admit(const RequestView& request, Instant now) {
  return queue_.empty() ? begin(choose(request, now), request, now) : std::nullopt;
}

std::optional<Slot> SimGateway::choose(const RequestView& request, Instant now) {
  if (pool_.limited() && pool_.room() != Pool::Room::free) return std::nullopt;
  return pool_.reserve(request, now);
}

std::optional<Slot> SimGateway::reserve(const RequestView& request, Instant now, Slot avoid) {
  return begin(pool_.reserve(request, now, avoid), request, now);
}

/// The slot, if there is one: reserved for this request.
std::optional<Slot> SimGateway::begin(std::optional<Slot> slot, const RequestView& request, Instant now) {
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
  if (limits_[slot] == nullptr || !request.stream) return;
  limits_[slot]->on_first_byte(request.prompt_tokens, elapsed, pool_.in_flight(slot), now);
  pool_.set_limit(slot, limits_[slot]->limit());
}

void SimGateway::end(const AttemptEvent& event, const RequestView& request, bool answering, Instant now) {
  const Slot slot = event.worker;
  if (limits_[slot] != nullptr && !request.stream && event.outcome == Outcome::ok) {
    limits_[slot]->on_whole_answer(event.output_tokens, event.elapsed, pool_.in_flight(slot), now);
    pool_.set_limit(slot, limits_[slot]->limit());
  }
  if (answering) --streams_[slot];
  if (event.outcome == Outcome::ok) health_[slot].on_progress(now);
  pool_.end(event, now);
  health_[slot].on_attempt(event.request, event.outcome, now);
  refresh(slot);
  serve_line_later();
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

// --- those who wait ---

std::optional<std::uint32_t> SimGateway::wait(std::uint32_t request, Slot avoid, Instant now) {
  Waiting& waiting = waiting_[request];
  waiting.request = request;
  waiting.avoid = avoid;
  waiting.again = avoid != kNoSlot;
  waiting.deadline = now + options_.queue_timeout;
  const bool room = pool_.room() == Pool::Room::free;
  QueuedRequest* const shed = queue_.push(waiting, now);
  if (room) serve_line_later();
  return shed == nullptr ? std::nullopt : std::optional(forget(*shed));
}

std::optional<std::uint32_t> SimGateway::next_late(Instant now) {
  QueuedRequest* const late = queue_.pop_expired(now);
  return late == nullptr ? std::nullopt : std::optional(forget(*late));
}

std::optional<SimGateway::Turn> SimGateway::next_turn(const ViewOf& view_of, Instant now) {
  if (queue_.empty() || pool_.room() != Pool::Room::free) return std::nullopt;
  std::optional<Slot> slot;
  QueuedRequest* const next = queue_.pop(now, [&](QueuedRequest& queued) {
    auto& waiting = static_cast<Waiting&>(queued);
    const Slot avoid = waiting.avoid;
    if (avoid != kNoSlot && pool_.room(avoid) == Pool::Room::none) waiting.avoid = kNoSlot;
    const RequestView request = view_of(waiting.request);
    slot = waiting.avoid == kNoSlot ? begin(choose(request, now), request, now)
                                    : reserve(request, now, waiting.avoid);
    return slot.has_value();
  });
  return next == nullptr ? std::nullopt : std::optional(Turn{forget(*next), *slot});
}

/// It has left the queue.
std::uint32_t SimGateway::forget(QueuedRequest& waiting) {
  const std::uint32_t request = static_cast<Waiting&>(waiting).request;
  waiting_.erase(request);
  return request;
}

void SimGateway::serve_line_later() {
  if (queue_.empty() || std::exchange(line_due_, true)) return;
  serve_later_();
}

// --- time ---

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
