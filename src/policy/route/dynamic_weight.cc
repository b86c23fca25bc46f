// Policy `dynamic_weight`: weights moved by feedback of offered load against capacity, feeding a smooth turn.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "model/feedback_weights.h"
#include "policy/route/registry.h"
#include "policy/route/smooth_turn.h"
#include "policy/route/speed_estimate.h"

namespace heng::dynamic_weight {
namespace {

struct Options {
  double alpha;
  double beta;
  bool normalise;
  double interval_s;
  double w_min;
  double w_max;
  double learn_steps;
  double learn_requests;
  double prompt_cost;
};

constexpr std::array kFields{
    OptionField{"alpha", 0.5, 1e-6, 1e6, "weights begin at alpha x capacity"},
    OptionField{"beta", 0.1, 1e-9, 1e6,
                "step: weight += beta x (capacity - offered load), at most sum / 2 load"},
    OptionField{"normalise", 1, 0, 1, "keep the sum of the weights; off: the plain form, for comparison",
                true},
    OptionField{"interval_s", 1, 0.01, 3600, "time between steps; a step waits for two requests per worker"},
    OptionField{"w_min", 0.05, 0.001, 1, "least weight, as a multiple of the mean weight"},
    OptionField{"w_max", 20, 1, 1e6, "greatest weight, as a multiple of the mean weight"},
    OptionField{"learn_steps", 2, 0.1, 1e6, "learned capacity: evidence halves in so many steps"},
    OptionField{"learn_requests", 40, 1, 1e6, "... but not before this many more requests of the worker"},
    OptionField{"prompt_cost", 0.02, 0, 10, "work of an uncached prompt token, where an output token is 1"},
};

struct Worker {
  double weight = 0;     // W_i; 0 = has none yet
  double offered = 0;    // work sent since the last step, as it would be without the multiplier pool.weight
  double reported = -1;  // load reported from outside since the last step; below 0: none
};

/// DESIGN.md section 5. W_i and the multiplier pool.weight (preference, slow start) are kept apart: the share
/// is W_i x pool.weight, the feedback sees loads with the multiplier divided out, so it does not work against
/// it.
class DynamicWeight final : public RoutePolicy {
 public:
  explicit DynamicWeight(const Options& options)
      : options_(options), speed_({options.prompt_cost, options.learn_steps, options.learn_requests}) {}

  std::optional<Slot> choose(const RequestView&, const PoolView& pool, Instant, Rng&) override {
    sync(pool);
    return turn_.pick(pool, [&](Slot slot) { return workers_[slot].weight * pool.weight[slot]; });
  }

  void on(const AttemptEvent& event, const PoolView& pool, Instant now) override {
    sync(pool);
    if (event.worker >= workers_.size()) return;
    if (event.kind == AttemptEvent::Kind::started) {
      speed_.on_started(event, now);
      workers_[event.worker].offered += speed_.expected_work(event.prompt_tokens) / pool.weight[event.worker];
      ++offered_requests_;
    } else if (event.kind == AttemptEvent::Kind::ended) {
      speed_.on_ended(event, now);
    }
  }

  void tick(const PoolView& pool, Instant now) override {
    sync(pool);
    if (!interval_began_) interval_began_ = now;
    const Duration elapsed = now - *interval_began_;
    if (elapsed >= from_seconds(options_.interval_s) && offered_requests_ >= 2 * pool.eligible.size()) {
      speed_.end_interval(now);
      // Reports take the place of measurements; whoever sends them regularly is not talked over in between.
      if (!reported_ || now - *reported_ > 10 * from_seconds(options_.interval_s)) {
        step(pool, [&](Slot slot) { return workers_[slot].offered / to_seconds(elapsed); });
      }
      for (Slot slot = 0; slot < workers_.size(); ++slot) workers_[slot].offered = 0;
      offered_requests_ = 0;
      interval_began_ = now;
    }
    show(pool);
  }

  std::span<const double> weights() const override { return shares_; }

  bool report_load(Slot worker, double load, const PoolView& pool, Instant now) override {
    sync(pool);
    if (worker >= workers_.size() || !std::isfinite(load) || load < 0) return false;
    workers_[worker].reported = load;
    reported_ = now;
    for (const Slot slot : pool.eligible) {
      if (workers_[slot].reported < 0) return true;
    }
    step(pool, [&](Slot slot) { return workers_[slot].reported; });
    for (Slot slot = 0; slot < workers_.size(); ++slot) workers_[slot].reported = -1;
    show(pool);
    return true;
  }

 private:
  void sync(const PoolView& pool) {
    if (!workers_.sync(pool)) return;
    speed_.sync(pool);
    turn_.reset(pool);
    declared_ = std::ranges::all_of(pool.eligible, [&](Slot slot) { return pool.capacity[slot] > 0; });
    double sum = 0, known = 0;
    for (const Slot slot : pool.eligible) {
      if (declared_ && workers_[slot].weight == 0)
        workers_[slot].weight = options_.alpha * pool.capacity[slot];
      sum += workers_[slot].weight;
      known += workers_[slot].weight > 0;
    }
    // Capacity unknown: all begin equal, and who comes later joins with the mean.
    for (const Slot slot : pool.eligible) {
      if (workers_[slot].weight == 0) workers_[slot].weight = known > 0 ? sum / known : 1;
    }
    show(pool);
  }

  /// One step over the eligible workers; the others keep their weights.
  template <class LoadOf>
  void step(const PoolView& pool, LoadOf load_of) {
    const std::size_t n = pool.eligible.size();
    if (n == 0) return;
    weight_.resize(n), capacity_.resize(n), load_.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      const Slot slot = pool.eligible[i];
      weight_[i] = workers_[slot].weight;
      capacity_[i] = pool.capacity[slot];
      load_[i] = load_of(slot);
    }
    const double sum = declared_ ? options_.alpha * total(capacity_) : total(weight_);
    if (!declared_) {
      // Learned capacities have no scale of their own. They get the one at which alpha sum R = S, and loads
      // the one at which T = sum R, so the sum of the weights stays what it is and a step shrinks distances
      // by 1 - beta / alpha whatever the unit of work.
      speed_.capacities(pool, capacity_);
      scale(capacity_, sum / options_.alpha);
      scale(load_, sum / options_.alpha);
    }
    const double mean = sum / static_cast<double>(n);
    const WeightBounds bounds{options_.w_min * mean, options_.w_max * mean};
    const double beta = effective_beta(options_.beta, sum, total(load_));
    if (options_.normalise) {
      const Result<void> done = normalised_step(weight_, capacity_, load_, beta, sum, bounds);
      HENG_ASSERT(done.has_value());  // w_min <= 1 <= w_max
    } else {
      // Without an end to the growth below capacity; in overload all weights run down to w_min and stay equal
      // there.
      plain_step(weight_, capacity_, load_, beta, {bounds.min, std::numeric_limits<double>::max()});
    }
    for (std::size_t i = 0; i < n; ++i) workers_[pool.eligible[i]].weight = weight_[i];
  }

  static double total(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0);
  }
  static void scale(std::vector<double>& values, double sum) {
    const double factor = total(values) > 0 ? sum / total(values) : 0;
    for (double& value : values) value *= factor;
  }
  void show(const PoolView& pool) {
    fill_shares(shares_, pool, [&](Slot slot) { return workers_[slot].weight * pool.weight[slot]; });
  }

  Options options_;
  SpeedEstimate speed_;
  SlotTable<Worker> workers_;
  SmoothTurn turn_;
  bool declared_ = false;
  std::size_t offered_requests_ = 0;  // since the last step
  std::optional<Instant> interval_began_;
  std::optional<Instant> reported_;               // when the last report came
  std::vector<double> shares_;                    // [slots]
  std::vector<double> weight_, capacity_, load_;  // [eligible], scratch of `step`
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "dynamic_weight",
      .summary = "weights follow measured speed by feedback, feeding a smooth weighted turn",
      .details =
          "Each step moves a worker's weight W by `beta` x (R - L): R is its capacity, L the load offered to "
          "it, both "
          "in work per second. Work is output tokens plus `prompt_cost` per uncached prompt token; requests, "
          "if "
          "nobody counts tokens. After the step all weights are scaled so that their sum stays what it was "
          "and each "
          "lies between `w_min` and `w_max` times the mean. Requests then take a smooth weighted turn. "
          "Shares tend "
          "to R / sum R: all workers equally busy. A step brings them nearer by the factor (S - beta T) / "
          "(S + beta (sum R - T)), with S the sum of weights and T the total load.\n\n"
          "**Capacity.** If every eligible worker declares a `capacity` (in work per second), that is R. "
          "Otherwise R "
          "is learned: work done per busy second, corrected for batch size, so that neither a worker with a "
          "full "
          "batch nor one with an empty one looks faster than it is. It starts equal, new workers join with "
          "the mean, "
          "workers that are away keep their weights, and without traffic nothing moves. Learned capacities "
          "are "
          "relative: they are scaled to the load, so a step closes `beta` / `alpha` of the gap whatever the "
          "unit, by "
          "default a fifth. Expect shares within 5% of the true speeds after 15 to 30 steps if a step sees "
          "about a "
          "hundred requests, and about twice that error with a quarter of them: then make `interval_s` or "
          "`learn_requests` greater.\n\n"
          "**Weight.** A worker's `weight` multiplies the share found here (slow start, or your preference); "
          "leave "
          "it at 1 to let speed alone decide.\n\n"
          "**Reports.** `POST /balance` hands in loads measured elsewhere. As soon as every eligible worker "
          "has a new "
          "one, one step is taken with them, and for ten intervals measured loads are not used. Reports "
          "should be the "
          "loads that followed from the last weights: with constant reports that ignore the weights the "
          "shares tend "
          "to (R - L) / sum (R - L) instead of R / sum R, and if the reports exceed the capacities in sum "
          "there is no "
          "stable limit at all: weights run to their bounds.\n\n"
          "**Plain form** (`normalise: false`, for comparison, with declared capacities): the sum of weights "
          "drifts "
          "by beta (sum R - T) a step. Below capacity it grows and the shares move ever more slowly; above "
          "capacity "
          "it runs down to `w_min` for all, and the weights then say nothing about the workers.\n\n"
          "When to use it: unequal workers, steady traffic of many requests, and a wish to see and plot why "
          "each "
          "worker gets what it gets. It balances averages; it does not look at who is idle just now, which "
          "with "
          "few requests `least_connections` does.",
      .fields = kFields,
      .validate = nullptr,
      .make = [](const OptionValues& v) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<DynamicWeight>(
            Options{v[0], v[1], v[2] != 0, v[3], v[4], v[5], v[6], v[7], v[8]});
      },
  };
}

}  // namespace heng::dynamic_weight
