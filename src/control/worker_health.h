// The health of one worker: active probes, passive faults, ejection, return and slow start.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/time.h"
#include "model/attempt.h"

namespace heng {

/// `unknown` (not probed yet) is used like `healthy`: not having asked is not being dead.
/// `suspect`: a probe or an attempt failed; still eligible unless nothing else explains the silence, see on_probe.
enum class HealthState : std::uint8_t { unknown, healthy, suspect, ejected };
std::string_view to_string(HealthState state);

struct HealthOptions {
  bool active = true;
  Duration interval = std::chrono::seconds(2);
  Duration probe_back = std::chrono::seconds(1);
  std::uint32_t fall = 2;
  std::uint32_t rise = 1;
  std::uint32_t passive_faults = 3;
  Duration slow_start = std::chrono::seconds(10);
  double slow_start_min_share = 0.1;
};

/// Pure state machine, owned by the gateway's loop. Whoever owns it sends the probes it asks for.
class WorkerHealth {
 public:
  WorkerHealth(const HealthOptions& options, Instant now);

  /// True when a probe should be sent now; the caller sends one and reports it through on_probe.
  bool probe_due(Instant now) const;
  void on_probe_sent(Instant now);
  void on_probe(bool alive, Outcome cause, Instant now);
  /// End of an attempt on this worker. Connection refused ejects at once; other faults after `passive_faults` in a row.
  void on_attempt(Outcome outcome, Instant now);
  /// The worker sent bytes of some answer: an engine in a long prefill may miss probes while its streams flow.
  void on_progress(Instant now);

  HealthState state() const { return state_; }
  bool eligible() const { return state_ != HealthState::ejected; }
  /// Share of its weight the worker gets now, in (0, 1]: linear ramp from slow_start_min_share over slow_start
  /// after a return; 1 otherwise.
  double ramp(Instant now) const;
  /// Why it is not healthy, for people: the last fault.
  Outcome last_fault() const { return last_fault_; }
  Instant since() const { return since_; }

 private:
  HealthOptions options_;
  HealthState state_ = HealthState::unknown;
  Outcome last_fault_ = Outcome::ok;
  Instant since_;
  Instant next_probe_;
  Instant last_progress_;
  Instant returned_;
  bool ramping_ = false;
  bool probe_pending_ = false;
  std::uint32_t probe_failures_ = 0;
  std::uint32_t probe_successes_ = 0;
  std::uint32_t faults_ = 0;
};

}  // namespace heng
