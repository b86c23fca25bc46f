// One model: its pool of workers with their metrics, sessions and the history of their weights.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "control/adaptive_limit.h"
#include "flow/pool.h"
#include "flow/sticky_table.h"
#include "gateway/recorder.h"
#include "gateway/waiting_line.h"
#include "gateway/worker.h"
#include "host/metrics.h"

namespace heng {

/// Shares of the workers at one moment, [slots]; NaN where the slot had another worker then.
struct WeightSample {
  double time_s = 0;             // since the gateway's start
  std::vector<double> weights;   // what the policy wants; empty if it keeps no weights
  std::vector<double> assigned;  // share of the requests since the sample before
};

/// What is counted for one worker of one model. References live as long as the registry keeps the series.
class MemberMetrics {
 public:
  MemberMetrics(MetricRegistry& registry, std::string model, std::string worker);

  void count_answer(int status);
  void show(const WorkerHealth& from);

  Histogram& ttft;
  Histogram& inter_token;
  Counter& prompt_tokens;
  Counter& output_tokens;
  Counter& cached_tokens;
  Gauge& weight;
  Gauge& in_flight;
  Gauge& in_flight_limit;
  Gauge& health;
  Gauge& drained;
  Counter& unasked;
  std::array<Gauge*, 4> states{};          // [HealthState] 1 for the one it is in
  std::array<Counter*, kFaults> faults{};  // [Fault]

 private:
  MetricRegistry& registry_;
  std::string model_;
  std::string worker_;
  std::vector<std::pair<int, Counter*>> answers_;  // by status; a handful
};

/// Shared by the gateway's table and the requests under way; lives on the gateway's loop.
class ModelPool final : public WorkerWatcher, public std::enable_shared_from_this<ModelPool> {
 public:
  /// `recorder`: null if nothing is recorded; must outlive the pool.
  ModelPool(Loop& loop, std::string model, const PoolConfig& config, std::uint64_t seed,
            MetricRegistry& registry, Recorder* recorder);
  ~ModelPool();

  /// The same workers as before keep their slots and all that is learned about them.
  void set_members(const PoolConfig& config, std::vector<std::shared_ptr<Worker>> workers);
  /// Of a pool that only ends its requests, beside the one that took its place: both count in the same
  /// series, so workers that leave must leave here first.
  void drop_others(const PoolConfig& config, std::span<const std::shared_ptr<Worker>> workers);
  /// What the pools of this model among `replaced` still have under way counts against the limits here.
  void count_elsewhere(std::span<const std::shared_ptr<ModelPool>> replaced);
  /// How many requests the workers may have, and how many may wait. After set_members.
  void set_limits(const Config& config);
  /// See worst_in_use.
  void set_max_ejected_share(double share) { max_ejected_share_ = share; }
  /// The health of all members into eligibility. Also called by the workers, when theirs changes.
  void on_standing_changed() override;
  void on_engine_load(const Worker& worker) override;
  /// Slow start, then the policy's controllers, then the weight history, then those who wait.
  void tick(Instant now, double time_s);
  void expose_gauges();

  Worker& worker(Slot slot) { return *members_[slot].worker; }
  const Worker& worker(Slot slot) const { return *members_[slot].worker; }
  const std::shared_ptr<Worker>& shared_worker(Slot slot) { return members_[slot].worker; }
  const std::string& worker_name(Slot slot) const { return members_[slot].name; }
  const std::string& worker_model(Slot slot) const { return members_[slot].model; }
  WorkerOrigin worker_origin(Slot slot) const { return members_[slot].origin; }
  /// nullptr once the worker has left the pool.
  MemberMetrics* metrics(Slot slot) { return members_[slot].metrics.get(); }
  const MemberMetrics* metrics(Slot slot) const { return members_[slot].metrics.get(); }
  /// kNoSlot if no member has this identity.
  Slot slot_of(std::uint64_t worker_identity) const;
  void count_assignment(Slot slot) { ++members_[slot].assigned; }

  /// Tokens in a prompt of so many bytes; the ratio follows the usage that workers report.
  double estimate_tokens(std::uint64_t bytes) const { return static_cast<double>(bytes) * tokens_per_byte_; }
  void learn_tokens(std::uint64_t bytes, std::uint32_t tokens);
  /// How long an answer will be, as the last ones were; at most `max`, if that is not 0.
  double expected_output(std::uint32_t max) const;
  void learn_output(double tokens) { output_tokens_ += kAnswerStep * (tokens - output_tokens_); }

  WaitingLine& line() { return line_; }
  const WaitingLine& line() const { return line_; }
  /// There may be room for those who wait: looks at the end of the turn.
  void serve_line_later();
  /// The worker's limit, if it learns one, learns from how long the first byte took, or an answer that came
  /// as a whole.
  void learn_first_byte(Slot slot, double prompt_tokens, Duration elapsed);
  void learn_whole_answer(Slot slot, double output_tokens, Duration elapsed);
  /// ... and from the worker's own 429 or 503.
  void learn_refusal(Slot slot);

  const std::string& model() const { return model_; }
  const PoolConfig& config() const { return config_; }
  Pool& pool() { return pool_; }
  const Pool& pool() const { return pool_; }
  StickyTable& sessions() { return sessions_; }
  const StickyTable& sessions() const { return sessions_; }
  const std::deque<WeightSample>& history() const { return history_; }
  Histogram& duration() { return duration_; }
  Counter& retries() { return retries_; }
  Counter& hedges() { return hedges_; }

 private:
  struct Member {
    std::shared_ptr<Worker> worker;  // kept while a request that left the pool is still under way
    std::string name;
    std::string model;  // the name the worker knows the model by
    WorkerOrigin origin = WorkerOrigin::file;
    std::unique_ptr<MemberMetrics> metrics;
    std::uint64_t assigned = 0;  // since the last sample
    std::uint32_t max_in_flight = 0;
    std::unique_ptr<AdaptiveLimit> limit;  // if max_in_flight is kAdaptive
  };
  static constexpr double kAnswerStep = 0.05;  // how far one answer moves the expected length
  Slot join(const std::shared_ptr<Worker>& worker, const WorkerConfig& wanted);
  void drop_series(Slot slot);
  void sample_weights(double time_s);

  Loop& loop_;
  std::string model_;
  PoolConfig config_;
  MetricRegistry& registry_;
  std::unique_ptr<PoolRecording> recording_;  // null: nothing is recorded
  Pool pool_;
  WaitingLine line_;
  bool line_due_ = false;        // will be looked at, at the end of the turn
  std::vector<Member> members_;  // [slots]
  StickyTable sessions_;
  std::deque<WeightSample> history_;
  Histogram& duration_;
  Counter& retries_;
  Counter& hedges_;
  Gauge& in_flight_limit_;
  double max_ejected_share_ = 0.5;
  std::vector<Standing> standings_;  // scratch, like the next
  std::vector<std::uint32_t> elsewhere_;
  double output_tokens_ = 128;     // of an answer, until the first ones say better
  double tokens_per_byte_ = 0.25;  // about four bytes of English a token, until usage says better
};

}  // namespace heng
