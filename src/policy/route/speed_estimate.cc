// Implementation of the speed estimate; the model stands beside the declaration.
#include "policy/route/speed_estimate.h"

#include <algorithm>
#include <cmath>

namespace heng {
namespace {

constexpr double kHalfBatchPrior = 8;
constexpr double kPriorOctaves = 1.5;    // how sure: standard deviation of log2 h
constexpr double kLean = 1.5;            // factor by which the estimate of h leans to the harmless side
constexpr double kSpreadHalfLives = 10;  // batching belongs to the engine and is remembered longer than speed
constexpr double kRequestsNeeded = 5;

}  // namespace

SpeedEstimate::SpeedEstimate(const SpeedOptions& options)
    : options_(options), output_(std::chrono::minutes(1)), half_batch_(kHalfBatchPrior * kLean) {}

void SpeedEstimate::Worker::advance(Instant now, double half_batch) {
  const double seconds = to_seconds(now - at);
  at = now;
  if (in_flight == 0) return;
  area += in_flight * seconds;
  effort += in_flight / (half_batch + in_flight) * seconds;
}

void SpeedEstimate::on_started(const AttemptEvent& event, Instant now) {
  if (event.worker >= workers_.size()) return;
  Worker& worker = workers_[event.worker];
  worker.advance(now, half_batch_);
  worker.in_flight += 1;
  areas_.put(event.request, event.worker, worker.area);
}

void SpeedEstimate::on_ended(const AttemptEvent& event, Instant now) {
  const std::optional<double> area_at_start = areas_.take(event.request, event.worker);
  if (!area_at_start || event.worker >= workers_.size()) return;
  Worker& worker = workers_[event.worker];
  worker.advance(now, half_batch_);
  // A slot that changed hands has started again from nothing; attempts of the former worker may still end on
  // it.
  if (worker.in_flight < 1) return;
  worker.in_flight -= 1;
  const double seconds = to_seconds(event.elapsed), area = worker.area - *area_at_start;
  if (event.outcome == Outcome::canceled) worker.work += event.output_tokens;  // done, though for nobody
  if (event.outcome != Outcome::ok || seconds <= 0 || area <= 0) return;
  const double work = work_of(event);
  if (event.output_tokens > 0) output_.add(event.output_tokens, now);
  worker.requests += 1;
  worker.work += work;
  learn_batching(worker, seconds, work, area / seconds);
}

void SpeedEstimate::learn_batching(Worker& worker, double seconds, double work, double batch) {
  // Short answers are mostly prefill and rounding: they count less.
  const double weight = std::min(1.0, work / expected_work(0));
  worker.fresh += 1;
  worker.weight += weight;
  for (std::size_t i = 0; i < kHalfBatches.size(); ++i) {
    const double r = std::log(seconds / (work * (kHalfBatches[i] + batch)));
    worker.r[i] += weight * r;
    worker.rr[i] += weight * r * r;
  }
}

double SpeedEstimate::work_of(const AttemptEvent& event) const {
  const double tokens =
      event.output_tokens +
      options_.prompt_cost * std::max(0.0, event.prompt_tokens - std::max(0.0, event.cached_tokens));
  return tokens > 0 ? tokens : 1;  // nobody counts tokens here: a request is a request
}

double SpeedEstimate::expected_work(double prompt_tokens) const {
  const double tokens = output_.mean() + options_.prompt_cost * prompt_tokens;
  return tokens > 0 ? tokens : 1;
}

void SpeedEstimate::end_interval(Instant now) {
  const double by_time = 1 / options_.half_intervals;
  const double spread_keep = std::exp2(-by_time / kSpreadHalfLives);
  spread_weight_ *= spread_keep;
  for (double& spread : spread_) spread *= spread_keep;
  for (Slot slot = 0; slot < workers_.size(); ++slot) {
    Worker& worker = workers_[slot];
    worker.advance(now, half_batch_);
    if (worker.fresh == 0) continue;
    const double keep = std::exp2(-std::min(by_time, worker.fresh / options_.half_requests));
    worker.requests *= keep;
    worker.work *= keep;
    worker.effort *= keep;
    spread_weight_ += worker.weight * (1 - 1 / worker.fresh);
    for (std::size_t i = 0; i < kHalfBatches.size(); ++i) {
      spread_[i] += worker.rr[i] - worker.r[i] * worker.r[i] / worker.weight;
    }
    worker.fresh = worker.weight = 0;
    worker.r.fill(0);
    worker.rr.fill(0);
  }
  fit_half_batch();
}

/// Posterior mean of log2 h on the grid: a normal likelihood of the differences and a normal prior.
void SpeedEstimate::fit_half_batch() {
  const double least = *std::ranges::min_element(spread_);
  double sum = 0, weighted = 0;
  for (std::size_t i = 0; i < kHalfBatches.size(); ++i) {
    const double octaves = std::log2(kHalfBatches[i] / kHalfBatchPrior) / kPriorOctaves;
    const double misfit = least > 0 ? spread_weight_ * (spread_[i] / least - 1) : 0;
    const double likelihood = std::exp(-(misfit + octaves * octaves) / 2);
    sum += likelihood;
    weighted += likelihood * std::log2(kHalfBatches[i]);
  }
  half_batch_ = kLean * std::exp2(weighted / sum);
}

void SpeedEstimate::capacities(const PoolView& pool, std::span<double> out) const {
  HENG_ASSERT(out.size() == pool.eligible.size());
  const auto known = [&](Slot slot) {
    const Worker& worker = workers_[slot];
    return worker.requests >= kRequestsNeeded && worker.effort > 0;
  };
  double logs = 0, count = 0;
  for (const Slot slot : pool.eligible) {
    if (!known(slot)) continue;
    logs += std::log(workers_[slot].work / workers_[slot].effort);
    count += 1;
  }
  const double mean = std::exp(count > 0 ? logs / count : 0);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const Slot slot = pool.eligible[i];
    out[i] = known(slot) ? workers_[slot].work / workers_[slot].effort : mean;
  }
}

}  // namespace heng
