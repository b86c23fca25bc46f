// The health of one worker: active probes, passive faults, silence, ejection, return and slow start.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/time.h"
#include "control/silence_excuse.h"
#include "model/attempt.h"
#include "model/request.h"

namespace heng {

/// `unknown` (not probed yet) is used like `healthy`: not having asked is not being dead. `suspect`: it does
/// not answer probes; it keeps its requests and gets new ones only where no better worker is. `ejected`: out.
enum class HealthState : std::uint8_t { unknown, healthy, suspect, ejected };
std::string_view to_string(HealthState state);

/// What a worker's health means to its pools, best first. `outlier`: it lives but its answers were faults.
/// `dead`: it refuses connections, or fell silent and does not answer probes.
enum class Standing : std::uint8_t { fine, doubted, outlier, dead };

/// What is counted against a worker. Statuses below 500, 503 and cancellations never are.
enum class Fault : std::uint8_t {
  refused,
  reset,               // connection broke
  first_byte_timeout,  // no byte of an answer came
  stall,               // silence in the middle of an answer
  server_error,        // 5xx but 503
  protocol,            // not valid HTTP
  probe,               // a probe failed, however
};
inline constexpr std::size_t kFaults = 7;
std::string_view to_string(Fault fault);

struct HealthOptions {
  bool active = true;
  Duration interval = std::chrono::seconds(1);
  Duration timeout = std::chrono::seconds(1);  // of a probe; unreported for twice this, it is forgotten
  Duration probe_back = std::chrono::seconds(1);
  Duration silence = std::chrono::milliseconds(1500);
  std::uint32_t fall = 2;
  std::uint32_t rise = 1;
  std::uint32_t passive_faults = 3;
  Duration slow_start = std::chrono::seconds(10);
  double slow_start_min_share = 0.1;
  Duration hold_max = std::chrono::seconds(30);
  Duration good_period = std::chrono::seconds(60);  // in use so long, its former ejections are forgotten
};

/// Pure state machine, owned by the gateway's loop. Whoever owns it sends the probes it asks for, calls
/// `tick` about every 100 ms, and tells its pools when `standing()` has changed after any call.
///
/// Silence. A stopped process and an engine deep in a prefill look alike: neither sends a byte, and some
/// engines answer no probe meanwhile. So the answer comes in steps, each as mild as the evidence is weak:
/// 1. No byte for silence/6 while requests are under way: an early probe. Answered ones are asked again at
///    growing distance, up to `interval`.
/// 2. That or any other probe without an answer, nor any other byte, for silence/3 (at most timeout/2):
///    suspect. New requests go elsewhere, which costs nothing if the doubt was wrong; any byte clears it.
/// 3. The probe has timed out, no byte has come since it was sent, and the silence is longer than `silence`
///    and than what the requests under way explain (SilenceExcuse): ejected. Before that, after `silence`,
///    those may leave that do not explain it themselves: short prompts behind a very long one.
///    A worker without requests has nothing to lose: `fall` failed probes in a row eject it.
/// With the defaults and a tick of 100 ms, step 2 comes within 1 s and step 3 within 1.7 s of a stop.
///
/// Return. The dead come back by `rise` good probes; outliers, and all where no probes are sent, by a single
/// trial request at a time, which ends the ejection once a good answer flows. The least time out doubles with
/// each ejection and failed trial, from `probe_back` up to `hold_max`, until the worker has done well for
/// `good_period`. Then its share grows over `slow_start`.
class WorkerHealth {
 public:
  /// `joins_late`: others serve already, so it begins in slow start and gets nothing before it has answered
  /// a probe.
  WorkerHealth(const HealthOptions& options, Instant now, bool joins_late = false);
  /// For a changed configuration; the state stays.
  void set_options(const HealthOptions& options);

  /// True when a probe should be sent now; the caller sends one and reports it through on_probe.
  bool probe_due(Instant now) const;
  void on_probe_sent(Instant now);
  /// End of the probe sent last. `canceled` says nothing.
  void on_probe(bool alive, Outcome cause, Instant now);

  /// A request was reserved on this worker; every one is ended by on_attempt. Takes an offered trial.
  void on_attempt_started(const RequestView& request, Instant now);
  /// Its answer flows: bytes came once more after the first of the body. (The head and an opening event may
  /// come before the prompt is even read.)
  void on_flowing(std::uint64_t request, Outcome outcome, Instant now);
  /// End of an attempt. Connection refused ejects at once; other faults after `passive_faults` in a row.
  void on_attempt(std::uint64_t request, Outcome outcome, Instant now);
  /// The worker sent bytes of some answer.
  void on_progress(Instant now) {
    last_byte_ = now;
    early_gap_ = quiet();
    if (silent_) end_silence(now);
  }
  /// Doubts, ejects and offers trials when their time has come.
  void tick(Instant now);

  HealthState state() const { return state_; }
  Standing standing() const;
  /// Share of its weight the worker gets now, in (0, 1]: linear ramp from slow_start_min_share over
  /// slow_start after a return or a late arrival; 1 otherwise.
  double ramp(Instant now) const;
  /// Requests without a byte from it should look whether they wait in vain, each time this has changed.
  std::uint32_t silences() const { return silences_; }
  /// The worker is silent, and this request, begun at `since`, does not explain it.
  bool waits_in_vain(const RequestView& request, Instant since, Instant now) const;
  std::uint32_t ejections() const { return ejections_; }
  std::uint64_t faults(Fault fault) const { return fault_counts_[static_cast<std::size_t>(fault)]; }
  /// Why it is not healthy, for people: the last fault.
  Outcome last_fault() const { return last_fault_; }
  Instant since() const { return since_; }

 private:
  enum class Trial : std::uint8_t { none, offered, in_flight };

  Duration quiet() const { return options_.silence / 6; }
  Duration doubt_after() const { return std::min(options_.silence / 3, options_.timeout / 2); }
  Instant last_heard() const { return std::max(last_byte_, last_answer_); }
  Instant silence_began() const { return std::max(last_heard(), busy_since_); }
  bool returns_by_trial() const { return !options_.active || !dead_; }
  void count(Fault fault, Outcome cause);
  void become(HealthState state, Instant now);
  void probe_soon(Instant now);
  void begin_silence(Instant now);
  void end_silence(Instant now);
  void eject_if_silent(Instant now);
  void eject(bool dead, Instant now);
  void hold(Instant now);
  void come_back(Instant now);

  HealthOptions options_;
  HealthState state_ = HealthState::unknown;
  Trial trial_ = Trial::none;
  bool joins_late_;
  bool dead_ = false;  // while ejected: else an outlier
  bool ejected_for_silence_ = false;
  bool overdue_ = false;  // silent for longer than `silence`
  bool probe_pending_ = false;
  bool silent_ = false;  // nothing has come since a probe that waits too long was sent
  Outcome last_fault_ = Outcome::ok;
  Outcome probe_fault_ = Outcome::ok;  // of the last failed probe
  Instant since_;
  Instant next_probe_;
  Instant probe_sent_;
  Instant failed_sent_{};  // when the last failed probe was sent
  Instant last_byte_{};    // of an answer
  Instant last_answer_{};  // to a probe
  Instant busy_since_{};   // when the first of the requests under way came
  Instant explained_until_{};
  Instant back_at_{};      // not before: the next trial, or the return by probes
  Duration early_gap_{0};  // from the last sign of life to the next early probe
  SilenceExcuse excuse_;
  std::optional<Instant> returned_;
  std::uint64_t trial_request_ = 0;
  std::uint32_t under_way_ = 0;
  std::uint32_t probe_failures_ = 0;      // in a row
  std::uint32_t probe_successes_ = 0;     // in a row, while ejected
  std::uint32_t faults_in_a_row_ = 0;     // of attempts
  std::uint32_t ejections_in_a_row_ = 0;  // without a good period between them; failed trials count
  std::uint32_t ejections_ = 0;
  std::uint32_t silences_ = 0;
  std::array<std::uint64_t, kFaults> fault_counts_{};
};

}  // namespace heng
