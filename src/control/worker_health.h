// The health of one worker: active probes, passive faults, ejection, return and slow start.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/time.h"
#include "model/attempt.h"

namespace heng {

/// `unknown` (not probed yet) is used like `healthy`: not having asked is not being dead.
/// `suspect`: a probe or an attempt failed; still eligible unless nothing else explains the silence, see
/// on_probe.
enum class HealthState : std::uint8_t { unknown, healthy, suspect, ejected };
std::string_view to_string(HealthState state);

struct HealthOptions {
  bool active = true;
  Duration interval = std::chrono::seconds(2);
  Duration timeout =
      std::chrono::seconds(2);  // of one probe; a probe unreported for twice this long is forgotten
  Duration probe_back = std::chrono::seconds(1);
  std::uint32_t fall = 2;
  std::uint32_t rise = 1;
  std::uint32_t passive_faults = 3;
  Duration slow_start = std::chrono::seconds(10);
  double slow_start_min_share = 0.1;
  Duration trial_pause_min =
      std::chrono::seconds(1);  // without active probes: from ejection to the first trial,
  Duration trial_pause_max = std::chrono::seconds(30);  // doubling with every failed trial up to this
};

/// Pure state machine, owned by the gateway's loop. Whoever owns it sends the probes it asks for, calls
/// `tick` about every 100 ms, and rebuilds its list of eligible workers when `eligible()` has changed after
/// any call.
class WorkerHealth {
 public:
  WorkerHealth(const HealthOptions& options, Instant now);

  /// True when a probe should be sent now; the caller sends one and reports it through on_probe.
  bool probe_due(Instant now) const;
  void on_probe_sent(Instant now);
  /// End of the probe sent last. Refused ejects at once. Other failures make the worker suspect; `fall` in a
  /// row eject it if it also has been silent (no on_progress) for `fall` intervals. `canceled` says nothing.
  void on_probe(bool alive, Outcome cause, Instant now);

  /// A request was reserved on this worker. Without active probes this uses up an ejected worker's trial.
  void on_attempt_started(Instant now);
  /// End of an attempt on this worker. Connection refused ejects at once; other faults after `passive_faults`
  /// in a row.
  void on_attempt(Outcome outcome, Instant now);
  /// The worker sent bytes of some answer: an engine in a long prefill may miss probes while its streams
  /// flow.
  void on_progress(Instant now);
  /// Without active probes: offers an ejected worker for one trial request when its pause has passed.
  void tick(Instant now);

  HealthState state() const { return state_; }
  /// May be given requests: not ejected, or ejected with an untaken trial (one request finds out).
  bool eligible() const { return state_ != HealthState::ejected || trial_ == Trial::offered; }
  /// Share of its weight the worker gets now, in (0, 1]: linear ramp from slow_start_min_share over
  /// slow_start after a return; 1 otherwise.
  double ramp(Instant now) const;
  /// Why it is not healthy, for people: the last fault.
  Outcome last_fault() const { return last_fault_; }
  Instant since() const { return since_; }

 private:
  enum class Trial : std::uint8_t { none, offered, in_flight };

  void become(HealthState state, Instant now);
  void settle(Instant now);
  void eject(Instant now);
  void come_back(Instant now);
  bool is_silent(Instant now) const;

  HealthOptions options_;
  HealthState state_ = HealthState::unknown;
  Trial trial_ = Trial::none;
  Outcome last_fault_ = Outcome::ok;
  bool probe_pending_ = false;
  Instant since_;
  Instant next_probe_;
  Instant probe_sent_;
  Instant next_trial_;
  Duration trial_pause_;
  std::optional<Instant> last_progress_;
  std::optional<Instant> returned_;
  std::uint32_t probe_failures_ = 0;   // in a row
  std::uint32_t probe_successes_ = 0;  // in a row, while ejected
  std::uint32_t faults_ = 0;           // of attempts, in a row
};

}  // namespace heng
