// Policy `least_time`: the worker on which the request costs everybody the fewest seconds.
#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/hash.h"
#include "base/stats.h"
#include "policy/route/attempt_table.h"
#include "policy/route/fading_line.h"
#include "policy/route/least.h"
#include "policy/route/prefix_index.h"
#include "policy/route/registry.h"
#include "policy/route/slot_table.h"

namespace heng::least_time {
namespace {

constexpr std::array kFields{
    OptionField{"index_mib", 64, 1, 65536, "memory for the index of cached prompt prefixes, in MiB"},
};

// Before anything is known: an 8B model on one modern GPU (docs/engine-model.md). Only the first requests see
// it.
constexpr LineEstimate kPrefillPrior{.base = 0.02,
                                     .slope = 1e-4};  // seconds by tokens ahead, its own included
constexpr LineEstimate kDecodePrior{.base = 0.012, .slope = 1e-4};  // seconds per token by requests in flight
constexpr double kGuessPoints = 0.3;  // what the guesses above count beside what is seen
constexpr double kPoolPoints = 5;     // what the other workers count beside what is seen of one
constexpr double kKeepWorker = 0.98;  // of older observations with each new one
constexpr double kKeepPool = 0.995;
constexpr double kOutputPrior = 200;  // tokens of an answer
constexpr double kTokensUntilDecodeCounts = 8;
constexpr double kTie = 0.1;                // of its own prefill: what a difference must be to count
constexpr double kTieWithoutPrefix = 0.02;  // of the cost

struct Worker {
  double waiting_tokens = 0;  // to be prefilled for requests without a first byte
  std::uint32_t waiting = 0;  // those requests
  Instant since{};            // the last first byte, or when there began to be somebody waiting
  bool tells_cached = false;  // it reports cached tokens
  FadingLine prefill, decode;
  LineEstimate prefill_line = kPrefillPrior, decode_line = kDecodePrior;
};

struct Attempt {
  double ahead = 0;  // tokens to prefill until its first byte, its own included
  double own = 0;    // of these, its own
  double batch = 0;  // requests on the worker when it started, itself included
  double block_tokens = 0;
  PrefixMatch match;
  bool answered = false;
};

class LeastTime final : public RoutePolicy {
 public:
  explicit LeastTime(double index_mib)
      : index_(static_cast<std::size_t>(index_mib * 1048576)), output_(std::chrono::minutes(5)) {}

  std::optional<Slot> choose(const RequestView& request, const PoolView& pool, Instant now,
                             Rng& rng) override {
    if (pool.eligible.empty()) return std::nullopt;
    sync(pool);
    index_.match(request.prefix, matches_);
    matched_ = request.id;
    double least = HUGE_VAL, own_prefill = 0;
    for (const Slot slot : pool.eligible) {
      costs_[slot] = cost(request, pool, slot, now);
      if (costs_[slot] >= least) continue;
      least = costs_[slot];
      own_prefill = workers_[slot].prefill_line.slope * uncached(request, matches_[slot]);
    }
    // Smaller differences are errors of the estimates. A prompt that nobody is better at than others falls to
    // the same worker on every gateway, so that it is cached once (rendezvous hashing: Thaler, Ravishankar
    // 1998); where there is nothing to cache, to the one with the fewest requests.
    const bool cacheable = !request.prefix.empty();
    const double limit = least + (cacheable ? kTie * own_prefill : kTieWithoutPrefix * least);
    const std::uint64_t key = cacheable ? request.prefix.front() : rng.next();
    Slot best = kNoSlot;
    std::pair<double, std::uint64_t> best_rank;
    for (const Slot slot : pool.eligible) {
      if (costs_[slot] > limit) continue;
      const std::pair rank(cacheable ? 0 : -relative_load(pool, slot), combine(key, pool.identity[slot]));
      if (best != kNoSlot && rank <= best_rank) continue;
      best = slot;
      best_rank = rank;
    }
    return best;
  }

  void on(const AttemptEvent& event, const PoolView& pool, Instant now) override {
    sync(pool);
    if (event.worker >= workers_.size()) return;
    switch (event.kind) {
      case AttemptEvent::Kind::started:
        return on_started(event, pool, now);
      case AttemptEvent::Kind::first_byte:
        return on_first_byte(event, now);
      case AttemptEvent::Kind::ended:
        return on_ended(event, pool, now);
    }
  }

 private:
  void sync(const PoolView& pool) {
    if (!workers_.sync(pool)) return;
    index_.sync(pool);
    matches_.resize(workers_.size());
    costs_.resize(workers_.size());
    matched_ = 0;
    for (Slot slot = 0; slot < workers_.size(); ++slot) refit(slot);
  }

  static double uncached(const RequestView& request, const PrefixMatch& match) {
    return std::max(request.prompt_tokens - match.blocks * request.block_tokens, 1.0);
  }

  /// Tokens still to be prefilled before a request that comes now.
  static double queue(const Worker& worker, Instant now) {
    if (worker.waiting == 0) return 0;
    // At most the request in front is done but for its first byte.
    const double front = worker.waiting_tokens / worker.waiting;
    const double since = to_seconds(now - worker.since) / worker.prefill_line.slope;
    return worker.waiting_tokens - std::min(std::max(since, 0.0), front);
  }

  /// Seconds: until its first token, for its decoding, and what it adds to all others there.
  double cost(const RequestView& request, const PoolView& pool, Slot slot, Instant now) const {
    const Worker& worker = workers_[slot];
    const double own = uncached(request, matches_[slot]);
    const double others = pool.in_flight[slot];
    const double decoding = std::max(others - worker.waiting, 0.0);
    double answer = output_.mean() > 0 ? output_.mean() : kOutputPrior;
    if (request.output_tokens_max != 0) answer = std::min<double>(answer, request.output_tokens_max);
    const double first = worker.prefill_line.at(queue(worker, now) + own);
    const double decode = answer * worker.decode_line.at(others + 1);
    const double burden =
        decoding * worker.prefill_line.slope * own + others * answer * worker.decode_line.slope;
    return (first + decode + burden) / pool.weight[slot];
  }

  void on_started(const AttemptEvent& event, const PoolView& pool, Instant now) {
    if (matched_ != event.request) index_.match(event.prefix, matches_);
    matched_ = 0;
    Worker& worker = workers_[event.worker];
    const PrefixMatch match = matches_[event.worker];
    const double own = std::max(event.prompt_tokens - match.blocks * event.block_tokens, 1.0);
    const double batch = pool.in_flight[event.worker];
    attempts_.put(event.request, event.worker,
                  {queue(worker, now) + own, own, batch, event.block_tokens, match, false});
    if (worker.waiting == 0) worker.since = now;
    ++worker.waiting;
    worker.waiting_tokens += own;
    index_.insert(event.prefix, event.worker, match.blocks);
  }

  void on_first_byte(const AttemptEvent& event, Instant now) {
    const std::optional<Attempt> attempt = attempts_.take(event.request, event.worker);
    if (!attempt) return;
    Attempt answered = *attempt;
    answered.answered = true;
    attempts_.put(event.request, event.worker, answered);
    stop_waiting(workers_[event.worker], answered.own, now);
    if (!workers_[event.worker].tells_cached)
      learn_prefill(event.worker, answered.ahead, to_seconds(event.time_to_first_byte));
  }

  void on_ended(const AttemptEvent& event, const PoolView& pool, Instant now) {
    const std::optional<Attempt> attempt = attempts_.take(event.request, event.worker);
    if (!attempt) return;
    Worker& worker = workers_[event.worker];
    if (!attempt->answered) stop_waiting(worker, attempt->own, now);
    if (event.outcome != Outcome::ok) return;
    const double first = to_seconds(event.time_to_first_byte);
    worker.tells_cached = worker.tells_cached || event.cached_tokens > 0;
    if (worker.tells_cached && event.prompt_tokens > 0) {
      const double own = std::max(event.prompt_tokens - event.cached_tokens, 1.0);
      learn_prefill(event.worker, attempt->ahead - attempt->own + own, first);
      if (attempt->block_tokens > 0) {
        index_.learn(event.worker, attempt->match,
                     static_cast<std::uint32_t>(event.cached_tokens / attempt->block_tokens + 0.5));
      }
    }
    if (event.output_tokens <= 0) return;
    output_.add(event.output_tokens, now);
    if (event.output_tokens < kTokensUntilDecodeCounts) return;
    const double per_token = (to_seconds(event.elapsed) - first) / (event.output_tokens - 1);
    const double batch = (attempt->batch + pool.in_flight[event.worker] + 1) / 2;
    pool_decode_.add(batch, per_token, kKeepPool, kDecodePrior);
    pool_decode_line_ = pool_decode_.estimate(kDecodePrior, kGuessPoints);
    worker.decode.add(batch, per_token, kKeepWorker, pool_decode_line_);
    refit(event.worker);
  }

  static void stop_waiting(Worker& worker, double tokens, Instant now) {
    if (worker.waiting == 0) return;  // the slot has changed hands meanwhile
    --worker.waiting;
    worker.waiting_tokens =
        worker.waiting == 0 ? 0 : std::max(worker.waiting_tokens - tokens, 1.0 * worker.waiting);
    worker.since = now;
  }

  void learn_prefill(Slot slot, double ahead, double seconds) {
    pool_prefill_.add(ahead, seconds, kKeepPool, kPrefillPrior);
    pool_prefill_line_ = pool_prefill_.estimate(kPrefillPrior, kGuessPoints);
    workers_[slot].prefill.add(ahead, seconds, kKeepWorker, pool_prefill_line_);
    refit(slot);
  }

  /// What a worker has not shown yet it is assumed to do like the others.
  void refit(Slot slot) {
    Worker& worker = workers_[slot];
    worker.prefill_line = worker.prefill.estimate(pool_prefill_line_, kPoolPoints);
    worker.decode_line = worker.decode.estimate(pool_decode_line_, kPoolPoints);
  }

  SlotTable<Worker> workers_;
  AttemptTable<Attempt> attempts_;
  PrefixIndex index_;
  Ewma output_;  // tokens of an answer, whole pool
  FadingLine pool_prefill_, pool_decode_;
  LineEstimate pool_prefill_line_ = kPrefillPrior, pool_decode_line_ = kDecodePrior;
  std::vector<PrefixMatch> matches_;  // [slots] of the request `matched_`
  std::uint64_t matched_ = 0;
  std::vector<double> costs_;  // [slots] scratch
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "least_time",
      .summary = "fewest expected seconds, from learned speeds, work in flight and cached prompts",
      .details =
          "For each worker: the seconds until this request's first token (prompts waiting there and the part "
          "of "
          "its own that is not cached, at the worker's learned prefill speed), for its decoding (a typical "
          "answer, at the worker's learned step time), and what it adds to the requests already there; the "
          "least "
          "sum gets it. No thresholds to tune. Speeds are learned for each worker from what the gateway "
          "sees; a "
          "new worker is assumed to be like the others. An index of prompt prefixes by chained hash says "
          "what is "
          "cached where; it is corrected by the `cached_tokens` that engines report. Popular prompts spread "
          "by "
          "themselves, since load enters the cost. Equal choices fall to the same worker on every gateway.",
      .fields = kFields,
      .validate = nullptr,
      .make = [](const OptionValues& values) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<LeastTime>(values[0]);
      },
      .uses_prefix = true,
  };
}

}  // namespace heng::least_time
