// Decides from probes, attempts and silence whether a worker may be given requests, and how many after a
// return.
#include "control/worker_health.h"

#include <algorithm>
#include <utility>

#include "base/result.h"

namespace heng {

namespace {

bool is_kept(Outcome outcome) { return !is_worker_fault(outcome) && outcome != Outcome::canceled; }

}  // namespace

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

std::string_view to_string(Fault fault) {
  static constexpr std::array<std::string_view, kFaults> kNames{
      "refused", "reset", "first_byte_timeout", "stall", "server_error", "protocol", "probe"};
  return kNames[static_cast<std::size_t>(fault)];
}

WorkerHealth::WorkerHealth(const HealthOptions& options, Instant now, bool joins_late)
    : joins_late_(joins_late), since_(now), next_probe_(now), probe_sent_(now) {
  set_options(options);
}

void WorkerHealth::set_options(const HealthOptions& options) {
  HENG_ASSERT(options.fall > 0 && options.rise > 0 && options.passive_faults > 0);
  HENG_ASSERT(options.slow_start_min_share > 0 && options.slow_start_min_share <= 1);
  options_ = options;
  early_gap_ = quiet();
  if (options.active) return;
  probe_pending_ = silent_ = false;
  probe_failures_ = 0;
  if (state_ == HealthState::suspect) state_ = HealthState::healthy;
}

Standing WorkerHealth::standing() const {
  switch (state_) {
    case HealthState::unknown:
      return joins_late_ && options_.active ? Standing::doubted : Standing::fine;
    case HealthState::healthy:
      return Standing::fine;
    case HealthState::suspect:
      return Standing::doubted;
    case HealthState::ejected:
      return trial_ == Trial::offered ? Standing::fine : dead_ ? Standing::dead : Standing::outlier;
  }
  HENG_ASSERT(false);
}

// --- probes ---

bool WorkerHealth::probe_due(Instant now) const {
  if (!options_.active) return false;
  // A lost report must not end probing for good; it is no verdict either, so it simply is asked again.
  if (probe_pending_ && now < probe_sent_ + 2 * options_.timeout) return false;
  if (now >= next_probe_) return true;
  return state_ != HealthState::ejected && under_way_ > 0 && now >= silence_began() + early_gap_ &&
         now >= probe_sent_ + quiet();
}

void WorkerHealth::on_probe_sent(Instant now) {
  probe_pending_ = true;
  probe_sent_ = now;
  next_probe_ = now + (state_ == HealthState::ejected ? options_.probe_back : options_.interval);
}

void WorkerHealth::on_probe(bool alive, Outcome cause, Instant now) {
  if (!std::exchange(probe_pending_, false)) return;
  if (!alive && cause == Outcome::canceled) return;
  if (alive) {
    probe_failures_ = 0;
    if (state_ != HealthState::ejected) {
      if (!silent_ && under_way_ > 0 && probe_sent_ >= last_byte_ + quiet()) {
        excuse_.on_probe_answered_in_silence();
        early_gap_ = std::min(2 * early_gap_, options_.interval);
      }
      last_answer_ = now;
      end_silence(now);
      if (state_ == HealthState::unknown) become(HealthState::healthy, now);
      return;
    }
    // An answer to a question asked before the ejection knows nothing of what led to it.
    if (probe_sent_ < since_) return;
    ++probe_successes_;
    if (!returns_by_trial() && probe_successes_ >= options_.rise && now >= back_at_) come_back(now);
    return;
  }
  count(Fault::probe, cause);
  probe_fault_ = cause;
  probe_successes_ = 0;
  ++probe_failures_;
  failed_sent_ = probe_sent_;
  if (cause == Outcome::refused) return eject(true, now);  // nobody listens: no prefill explains that
  if (state_ == HealthState::ejected) {
    if (probe_failures_ >= options_.fall) eject(true, now);
    return;
  }
  become(HealthState::suspect, now);
  if (cause == Outcome::timeout && last_heard() < probe_sent_) begin_silence(now);
  eject_if_silent(now);
}

/// After a fault: whether the worker is still there should be known now.
void WorkerHealth::probe_soon(Instant now) {
  if (state_ != HealthState::ejected && now >= probe_sent_ + quiet())
    next_probe_ = std::min(next_probe_, now);
}

// --- silence ---

void WorkerHealth::begin_silence(Instant now) {
  if (silent_) return;
  silent_ = true;
  overdue_ = false;
  // Fixed now: what comes later cannot have caused it.
  explained_until_ = std::max(silence_began() + options_.silence, excuse_.explained_until());
  if (state_ != HealthState::ejected) become(HealthState::suspect, now);
}

/// A byte or an answered probe.
void WorkerHealth::end_silence(Instant now) {
  if (std::exchange(silent_, false)) excuse_.on_probe_blocked();
  // Failed probes are not undone by bytes: a worker that answers none is doubted while its streams flow.
  if (state_ == HealthState::suspect && probe_failures_ == 0) become(HealthState::healthy, now);
}

void WorkerHealth::eject_if_silent(Instant now) {
  if (state_ != HealthState::suspect || probe_failures_ == 0) return;
  if (last_heard() >= failed_sent_ || now < silence_began() + quiet()) return;
  const bool busy = under_way_ > 0;
  const bool timed_out = probe_fault_ == Outcome::timeout;
  if (probe_failures_ < (busy && timed_out ? 1 : options_.fall)) return;
  if (busy && timed_out) {
    if (now < silence_began() + options_.silence) return;
    if (!std::exchange(overdue_, true)) ++silences_;
    if (now < explained_until_) return;
    ++silences_;
  }
  ejected_for_silence_ = timed_out;
  eject(true, now);
}

bool WorkerHealth::waits_in_vain(const RequestView& request, Instant since, Instant now) const {
  if (state_ == HealthState::ejected) return ejected_for_silence_;
  return silent_ && overdue_ && now >= excuse_.explained_until(request, since);
}

// --- attempts ---

void WorkerHealth::on_attempt_started(const RequestView& request, Instant now) {
  if (under_way_++ == 0) busy_since_ = now;
  excuse_.on_started(request, now);
  if (trial_ != Trial::offered) return;
  trial_ = Trial::in_flight;
  trial_request_ = request.id;
  // Should this request stay silent very long, another may try.
  back_at_ = now + options_.hold_max;
}

void WorkerHealth::on_flowing(std::uint64_t request, Outcome outcome, Instant now) {
  if (!excuse_.on_done(request, outcome == Outcome::ok, now)) return;
  on_progress(now);
  if (!is_kept(outcome) || state_ != HealthState::ejected) return;
  if (trial_ == Trial::in_flight && trial_request_ == request) come_back(now);
}

void WorkerHealth::on_attempt(std::uint64_t request, Outcome outcome, Instant now) {
  HENG_ASSERT(under_way_ > 0);
  --under_way_;
  const bool waited = excuse_.on_done(request, outcome == Outcome::ok, now);
  const bool fault = is_worker_fault(outcome);
  if (fault) {
    count(outcome == Outcome::refused        ? Fault::refused
          : outcome == Outcome::reset        ? Fault::reset
          : outcome == Outcome::server_error ? Fault::server_error
          : outcome == Outcome::protocol     ? Fault::protocol
          : waited                           ? Fault::first_byte_timeout
                                             : Fault::stall,
          outcome);
    probe_soon(now);
  }
  if (outcome == Outcome::refused && !dead_) return eject(true, now);
  if (state_ == HealthState::ejected) {
    if (trial_ != Trial::in_flight || trial_request_ != request) return;  // says nothing about now
    if (outcome == Outcome::canceled) {
      trial_ = Trial::offered;
    } else if (fault) {
      hold(now);
    } else {
      come_back(now);
    }
    return;
  }
  if (outcome == Outcome::canceled) return;
  if (fault) {
    if (++faults_in_a_row_ >= options_.passive_faults) eject(false, now);
    return;
  }
  faults_in_a_row_ = 0;
  if (state_ == HealthState::unknown) become(HealthState::healthy, now);
}

// --- time ---

void WorkerHealth::tick(Instant now) {
  if (state_ == HealthState::ejected) {
    if (returns_by_trial() && trial_ != Trial::offered && now >= back_at_) trial_ = Trial::offered;
    return;
  }
  if (probe_pending_ && last_heard() < probe_sent_ && now >= probe_sent_ + doubt_after()) begin_silence(now);
  eject_if_silent(now);
}

double WorkerHealth::ramp(Instant now) const {
  if (joins_late_ && !returned_) return options_.slow_start > Duration(0) ? options_.slow_start_min_share : 1;
  if (!returned_ || now >= *returned_ + options_.slow_start) return 1;
  const double passed = to_seconds(std::max(now - *returned_, Duration{})) / to_seconds(options_.slow_start);
  return options_.slow_start_min_share + (1 - options_.slow_start_min_share) * passed;
}

// --- states ---

void WorkerHealth::count(Fault fault, Outcome cause) {
  ++fault_counts_[static_cast<std::size_t>(fault)];
  last_fault_ = cause;
}

void WorkerHealth::become(HealthState state, Instant now) {
  if (state_ == state) return;
  if (state == HealthState::healthy && joins_late_ && !returned_) returned_ = now;
  state_ = state;
  since_ = now;
}

/// `dead` also turns an ejected outlier into a dead one.
void WorkerHealth::eject(bool dead, Instant now) {
  dead_ = dead_ || dead;
  if (state_ == HealthState::ejected) {
    if (trial_ == Trial::in_flight) hold(now);
    if (options_.active) trial_ = Trial::none;  // probes tell when the dead are back
    return;
  }
  become(HealthState::ejected, now);
  ++ejections_;
  if (returned_ && now >= *returned_ + options_.good_period) ejections_in_a_row_ = 0;
  probe_successes_ = 0;
  next_probe_ = now + options_.probe_back;
  hold(now);
}

/// No return before a time that doubles from one ejection or failed trial to the next.
void WorkerHealth::hold(Instant now) {
  trial_ = Trial::none;
  const std::uint32_t doublings = std::min(ejections_in_a_row_++, 20u);
  back_at_ = now + std::min(options_.probe_back * (1 << doublings),
                            std::max(options_.hold_max, options_.probe_back));
}

void WorkerHealth::come_back(Instant now) {
  probe_failures_ = probe_successes_ = faults_in_a_row_ = 0;
  trial_ = Trial::none;
  dead_ = ejected_for_silence_ = silent_ = false;
  returned_ = now;
  last_answer_ = now;
  become(HealthState::healthy, now);
}

}  // namespace heng
