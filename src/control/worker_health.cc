// Decides from probes, attempts and progress whether a worker may be given requests, and how many after a
// return.
#include "control/worker_health.h"

#include <algorithm>

#include "base/result.h"

namespace heng {

std::string_view to_string(HealthState state) {
  switch (state) {
    case HealthState::unknown:
      return "unknown";
    case HealthState::healthy:
      return "healthy";
    case HealthState::suspect:
      return "suspect";
    case HealthState::ejected:
      return "ejected";
  }
  HENG_ASSERT(false);
}

WorkerHealth::WorkerHealth(const HealthOptions& options, Instant now)
    : options_(options),
      since_(now),
      next_probe_(now),
      probe_sent_(now),
      next_trial_(now),
      trial_pause_(options.trial_pause_min) {
  HENG_ASSERT(options.fall > 0 && options.rise > 0 && options.passive_faults > 0);
  HENG_ASSERT(options.slow_start_min_share > 0 && options.slow_start_min_share <= 1);
}

bool WorkerHealth::probe_due(Instant now) const {
  if (!options_.active) return false;
  // A lost report must not end probing for good; it is no verdict either, so it simply is asked again.
  const bool waiting = probe_pending_ && now < probe_sent_ + 2 * options_.timeout;
  return !waiting && now >= next_probe_;
}

void WorkerHealth::on_probe_sent(Instant now) {
  probe_pending_ = true;
  probe_sent_ = now;
  next_probe_ = now + (state_ == HealthState::ejected ? options_.probe_back : options_.interval);
}

void WorkerHealth::on_probe(bool alive, Outcome cause, Instant now) {
  probe_pending_ = false;
  if (!alive && cause == Outcome::canceled) return;
  if (alive) {
    probe_failures_ = 0;
    if (state_ != HealthState::ejected) return settle(now);
    // An answer to a question asked before the ejection knows nothing of what led to it.
    if (probe_sent_ < since_) return;
    if (++probe_successes_ >= options_.rise) come_back(now);
    return;
  }
  last_fault_ = cause;
  probe_successes_ = 0;
  ++probe_failures_;
  if (state_ == HealthState::ejected) return;
  const bool gone = cause == Outcome::refused;  // nobody listens: no prefill explains that
  if (gone || (probe_failures_ >= options_.fall && is_silent(now))) return eject(now);
  settle(now);
}

void WorkerHealth::on_attempt_started(Instant now) {
  if (state_ != HealthState::ejected || trial_ != Trial::offered) return;
  trial_ = Trial::in_flight;
  // Should this request stay silent very long, another may try after a full pause.
  next_trial_ = now + options_.trial_pause_max;
}

void WorkerHealth::on_attempt(Outcome outcome, Instant now) {
  const bool fault = is_worker_fault(outcome);
  if (fault) last_fault_ = outcome;
  if (state_ == HealthState::ejected) {
    if (trial_ != Trial::in_flight) return;  // began before the ejection: says nothing about now
    if (outcome == Outcome::canceled) {
      trial_ = Trial::offered;
    } else if (fault) {
      trial_pause_ = std::min(2 * trial_pause_, options_.trial_pause_max);
      trial_ = Trial::none;
      next_trial_ = now + trial_pause_;
    } else {
      come_back(now);
    }
    return;
  }
  if (outcome == Outcome::canceled) return;
  if (!fault) {
    faults_ = 0;
    return settle(now);
  }
  ++faults_;
  if (outcome == Outcome::refused || faults_ >= options_.passive_faults) return eject(now);
  settle(now);
}

void WorkerHealth::on_progress(Instant now) { last_progress_ = now; }

void WorkerHealth::tick(Instant now) {
  if (options_.active || state_ != HealthState::ejected || trial_ == Trial::offered) return;
  if (now >= next_trial_) trial_ = Trial::offered;
}

double WorkerHealth::ramp(Instant now) const {
  if (!returned_ || now >= *returned_ + options_.slow_start) return 1;
  const double passed = to_seconds(std::max(now - *returned_, Duration{})) / to_seconds(options_.slow_start);
  return options_.slow_start_min_share + (1 - options_.slow_start_min_share) * passed;
}

void WorkerHealth::become(HealthState state, Instant now) {
  if (state_ == state) return;
  state_ = state;
  since_ = now;
}

void WorkerHealth::settle(Instant now) {
  const bool doubted = probe_failures_ > 0 || faults_ > 0;
  become(doubted ? HealthState::suspect : HealthState::healthy, now);
}

void WorkerHealth::eject(Instant now) {
  become(HealthState::ejected, now);
  trial_ = Trial::none;
  probe_successes_ = 0;
  next_probe_ = now + options_.probe_back;
  next_trial_ = now + trial_pause_;
}

void WorkerHealth::come_back(Instant now) {
  probe_failures_ = probe_successes_ = faults_ = 0;
  trial_ = Trial::none;
  trial_pause_ = options_.trial_pause_min;
  returned_ = now;
  become(HealthState::healthy, now);
}

bool WorkerHealth::is_silent(Instant now) const {
  return !last_progress_ || now - *last_progress_ >= options_.interval * options_.fall;
}

}  // namespace heng
