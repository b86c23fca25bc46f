// Policy `least_time`: the worker on which the request costs the fewest seconds, its own and the others'.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include "base/hash.h"
#include "base/stats.h"
#include "policy/route/attempt_table.h"
#include "policy/route/explain.h"
#include "policy/route/fading_line.h"
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
constexpr LineEstimate kPrefillPrior{.base = 0.02, .slope = 1e-4};  // seconds by work ahead, its own included
constexpr LineEstimate kDecodePrior{.base = 0.012, .slope = 1e-4};  // seconds per token by requests in flight
constexpr double kGuessPoints = 0.3;  // what the guesses above count beside what is seen
constexpr double kPoolPoints = 10;    // what the other workers count beside what is seen of one
constexpr double kKeepWorker = 0.98;  // of older observations with each new one
constexpr double kKeepPool = 0.995;
constexpr double kOutputPrior = 200;  // tokens of an answer
constexpr double kTokensUntilDecodeCounts = 8;
/// Of context at which attention costs a token as much as all else: 30,000 for Llama 3 8B, 53,000 for 70B.
constexpr double kAttentionTokens = 40'000;
// What somebody waits for the first token is what hurts; an answer is read more slowly than it is made. With
// full seconds of decoding, prompts pile up on few workers, which is worse for all that come later.
constexpr double kDecodeShare = 0.02;   // of a second of its own decoding
constexpr double kBurdenShare = 0.002;  // of a second by which it holds up the others
/// Turns that will still repeat a prompt which others have begun; each loses what it does not find.
constexpr double kLaterTurns = 3;
constexpr double kUnseenPoints = 20, kUnseenMemory = 200;

/// Where a worker stands to a prompt.
enum Standing : std::uint8_t { stranger, holder, home, home_and_holder };
constexpr std::size_t kStandings = 4, kLengths = 8;

struct Worker {
  double waiting_work = 0;    // to be prefilled for requests without a first byte
  std::uint32_t waiting = 0;  // those requests
  Instant since{};            // the last first byte, or when there began to be somebody waiting
  bool tells_cached = false;  // it reports cached tokens, be it none
  LineEstimate prefill_line = kPrefillPrior, decode_line = kDecodePrior;
  FadingLine prefill, decode;
  double slowness = 1;  // beside the pool, in steps that gateways agree on though their measurements differ
};

/// What of a prompt is to be done on a worker.
struct Share {
  double work = 0;  // to prefill
  double lost = 0;  // share of it that later turns will not find
};

/// In seconds of this request's user.
struct Cost {
  double wait = 0;     // until the worker begins with its prompt
  double prefill = 0;  // of what is not cached of it
  double decode = 0;   // its share of decoding
  double burden = 0;   // what it adds to those who are there
  double later = 0;    // what its continuations lose when they come by way of other gateways
  double sum() const { return wait + prefill + decode + burden + later; }
};

struct Attempt {
  double ahead = 0;  // work to prefill until its first byte, its own included
  double own = 0;    // of these, its own
  double batch = 0;  // requests on the worker when it started, itself included
  double block_tokens = 0;
  double unseen = 0;  // tokens that no index knew to be cached
  PrefixMatch match;
  Standing standing = stranger;
  bool known_text = false;  // somebody has had more of it than what begins other texts, too
  bool answered = false;
};

/// The share of what this gateway did not know to be cached that was cached after all: answers that a next
/// turn repeats, and what other gateways sent there.
class Unseen {
 public:
  double found() const { return found_; }
  void learn(double share) {
    points_ = std::min(points_ + 1, kUnseenMemory);
    found_ += (std::clamp(share, 0.0, 1.0) - found_) / points_;
  }

 private:
  double found_ = 0.5;
  double points_ = kUnseenPoints;
};

class LeastTime final : public RoutePolicy, public ExplainsChoice {
 public:
  explicit LeastTime(double index_mib)
      : index_(static_cast<std::size_t>(index_mib * 1048576)), output_(std::chrono::minutes(5)) {}

  std::optional<Slot> choose(const RequestView& request, const PoolView& pool, Instant now,
                             Rng& rng) override {
    if (pool.eligible.empty()) return std::nullopt;
    sync(pool);
    look_up(request.id, request.prefix, pool);
    Slot best = kNoSlot;
    double least = HUGE_VAL;
    const std::uint64_t draw = rng.next();
    for (const Slot slot : pool.eligible) {
      const double seconds = cost(request, pool, slot, now).sum() / pool.weight[slot];
      if (seconds > least) continue;
      if (seconds == least && combine(draw, slot) < combine(draw, best)) continue;
      best = slot;
      least = seconds;
    }
    return best;
  }

  std::vector<Candidate> explain(const RequestView& request, const PoolView& pool, Instant now) override {
    sync(pool);
    look_up(request.id, request.prefix, pool);
    std::vector<Candidate> candidates;
    for (const Slot slot : pool.eligible) {
      const Cost parts = cost(request, pool, slot, now);
      candidates.push_back({.worker = slot,
                            .cost = parts.sum() / pool.weight[slot],
                            .terms = {{"wait_s", parts.wait},
                                      {"prefill_s", parts.prefill},
                                      {"decode_s", parts.decode},
                                      {"burden_s", parts.burden},
                                      {"later_s", parts.later},
                                      {"weight", pool.weight[slot]},
                                      {"known_cached_tokens", matches_[slot].blocks * request.block_tokens},
                                      {"home", slot == home_ ? 1.0 : 0.0}}});
    }
    return candidates;
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
    matched_ = 0;
    for (Slot slot = 0; slot < workers_.size(); ++slot) refit(slot);
  }

  /// Weighted rendezvous hashing (Schindelhauer, Schomaker 2005): the first of exponential arrivals, one for
  /// each worker at its speed, is a text's home, on which gateways agree without talking. -log2(u) of the
  /// hash as a fraction u, the mantissa's part taken as straight.
  static double arrival(std::uint64_t hash) {
    const int zeros = std::countl_zero(hash | 1);
    return zeros + 2 - static_cast<double>((hash | 1) << zeros) * 0x1p-63;
  }

  void look_up(std::uint64_t request, std::span<const std::uint64_t> prefix, const PoolView& pool) {
    matched_ = request;
    stranger_.reset();
    deepest_ = 0;
    home_ = kNoSlot;
    const KnownText text = index_.match(prefix, matches_);
    shared_ = text.shared_blocks;
    if (prefix.empty()) return;
    double first = HUGE_VAL;
    for (const Slot slot : pool.eligible) {
      deepest_ = std::max(deepest_, matches_[slot].blocks);
      const double comes =
          arrival(combine(text.name, pool.identity[slot])) * workers_[slot].slowness / pool.weight[slot];
      if (comes >= first) continue;
      home_ = slot;
      first = comes;
    }
  }

  Standing standing(Slot slot) const {
    const bool holds = deepest_ > shared_ && matches_[slot].blocks == deepest_;
    return static_cast<Standing>((holds ? holder : stranger) + (slot == home_ ? home : stranger));
  }

  /// The longer, the less likely it is new.
  Unseen& unseen(Standing standing, double tokens) {
    return unseen_[standing][static_cast<std::size_t>(
        std::clamp(std::log2(std::max(tokens, 1.0) / 128), 0.0, kLengths - 1.0))];
  }

  /// Prefilling the tokens of a prompt that are not cached, in tokens without attention.
  static double work(double prompt, double uncached) {
    return uncached * (1 + (prompt - uncached / 2) / kAttentionTokens);
  }

  Share share_of(double prompt, double block_tokens, Slot slot) {
    const double tokens = prompt - matches_[slot].blocks * block_tokens;
    const double found = unseen(standing(slot), tokens).found();
    const bool astray = home_ != kNoSlot && slot != home_;
    return {.work = work(prompt, std::max(tokens * (1 - found), 1.0)),
            .lost = astray ? unseen(home, tokens).found() : 0};
  }

  /// Most workers have nothing of a prompt, so this is worked out once.
  Share share(double prompt, double block_tokens, Slot slot) {
    const bool nothing = matches_[slot].blocks == 0 && slot != home_;
    if (!nothing) return share_of(prompt, block_tokens, slot);
    if (!stranger_) stranger_ = share_of(prompt, block_tokens, slot);
    return *stranger_;
  }

  /// Of a worker not heard of yet: what the others do by now.
  const LineEstimate& prefill_line(const Worker& worker) const {
    return worker.prefill.count() > 0 ? worker.prefill_line : pool_prefill_line_;
  }
  const LineEstimate& decode_line(const Worker& worker) const {
    return worker.decode.count() > 0 ? worker.decode_line : pool_decode_line_;
  }

  /// Work still to be done before a request that comes now.
  double queue(const Worker& worker, Instant now) const {
    if (worker.waiting == 0) return 0;
    // At most the request in front is done but for its first byte. Half of what that should have come to is
    // believed: who thinks a prompt nearly done sends the next one behind it and not to an idle worker.
    const double front = worker.waiting_work / worker.waiting;
    const double since = to_seconds(now - worker.since) / prefill_line(worker).slope;
    return worker.waiting_work - 0.5 * std::clamp(since, 0.0, front);
  }

  Cost cost(const RequestView& request, const PoolView& pool, Slot slot, Instant now) {
    const Worker& worker = workers_[slot];
    const Share own = share(request.prompt_tokens, request.block_tokens, slot);
    const double others = pool.in_flight[slot];
    const double decoding = std::max(others - worker.waiting, 0.0);
    double answer = output_.mean() > 0 ? output_.mean() : kOutputPrior;
    if (request.output_tokens_max != 0) answer = std::min<double>(answer, request.output_tokens_max);
    const double prefill = prefill_line(worker).slope * own.work;
    return {
        .wait = prefill_line(worker).at(queue(worker, now)),
        .prefill = prefill,
        .decode = kDecodeShare * answer * decode_line(worker).at(others + 1),
        .burden = kBurdenShare * (decoding * prefill + others * answer * decode_line(worker).slope),
        .later = kLaterTurns * own.lost * prefill,
    };
  }

  void on_started(const AttemptEvent& event, const PoolView& pool, Instant now) {
    if (matched_ != event.request) look_up(event.request, event.prefix, pool);
    matched_ = 0;
    Worker& worker = workers_[event.worker];
    const PrefixMatch match = matches_[event.worker];
    const double own = share_of(event.prompt_tokens, event.block_tokens, event.worker).work;
    attempts_.put(event.request, event.worker,
                  {.ahead = queue(worker, now) + own,
                   .own = own,
                   .batch = static_cast<double>(pool.in_flight[event.worker]),
                   .block_tokens = event.block_tokens,
                   .unseen = event.prompt_tokens - match.blocks * event.block_tokens,
                   .match = match,
                   .standing = standing(event.worker),
                   .known_text = deepest_ > shared_});
    if (worker.waiting == 0) worker.since = now;
    ++worker.waiting;
    worker.waiting_work += own;
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
    worker.tells_cached = event.cached_tokens >= 0;
    if (worker.tells_cached && event.prompt_tokens > 0) {
      learn_cached(event, *attempt, first);
    } else if (attempt->block_tokens > 0) {
      unseen(home, attempt->unseen).learn(attempt->known_text ? 1 : 0);
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

  void learn_cached(const AttemptEvent& event, const Attempt& attempt, double first) {
    const double own = work(event.prompt_tokens, std::max(event.prompt_tokens - event.cached_tokens, 1.0));
    learn_prefill(event.worker, attempt.ahead - attempt.own + own, first);
    if (attempt.block_tokens <= 0) return;
    index_.learn(event.worker, attempt.match,
                 static_cast<std::uint32_t>(event.cached_tokens / attempt.block_tokens + 0.5));
    const double seen = attempt.match.blocks * attempt.block_tokens;
    if (attempt.unseen >= attempt.block_tokens)
      unseen(attempt.standing, attempt.unseen).learn((event.cached_tokens - seen) / attempt.unseen);
  }

  static void stop_waiting(Worker& worker, double work, Instant now) {
    if (worker.waiting == 0) return;  // the slot has changed hands meanwhile
    --worker.waiting;
    worker.waiting_work =
        worker.waiting == 0 ? 0 : std::max(worker.waiting_work - work, 1.0 * worker.waiting);
    worker.since = now;
  }

  void learn_prefill(Slot slot, double ahead, double seconds) {
    pool_prefill_.add(ahead, seconds, kKeepPool, kPrefillPrior);
    pool_prefill_line_ = pool_prefill_.estimate(kPrefillPrior, kGuessPoints);
    workers_[slot].prefill.add(ahead, seconds, kKeepWorker, pool_prefill_line_);
    refit(slot);
  }

  /// Where a worker has shown little it is assumed to do like the others.
  void refit(Slot slot) {
    Worker& worker = workers_[slot];
    worker.prefill_line = worker.prefill.estimate(pool_prefill_line_, kPoolPoints);
    worker.decode_line = worker.decode.estimate(pool_decode_line_, kPoolPoints);
    const double octaves = std::log2(worker.prefill_line.slope / pool_prefill_line_.slope);
    worker.slowness = std::exp2(std::round(2 * octaves) / 2);
  }

  SlotTable<Worker> workers_;
  AttemptTable<Attempt> attempts_;
  PrefixIndex index_;
  Ewma output_;  // tokens of an answer, whole pool
  FadingLine pool_prefill_, pool_decode_;
  LineEstimate pool_prefill_line_ = kPrefillPrior, pool_decode_line_ = kDecodePrior;
  std::array<std::array<Unseen, kLengths>, kStandings> unseen_{};  // by Standing and length
  // Of the request `matched_`:
  std::uint64_t matched_ = 0;
  std::vector<PrefixMatch> matches_;  // [slots]
  std::uint32_t deepest_ = 0;         // blocks of the longest match
  std::uint32_t shared_ = 0;          // blocks that begin other texts, too
  Slot home_ = kNoSlot;
  std::optional<Share> stranger_;  // of workers that have nothing
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "least_time",
      .summary = "fewest expected seconds, from learned speeds, work in flight and cached prompts",
      .details =
          "For each worker, in seconds: the wait until it begins with the prompt (prompts accepted there, at "
          "its learned speed), the prefill of what it has not cached, a small share of its decoding and "
          "of what the request adds to those who decode there, and what later turns lose if it is not the "
          "worker where other gateways would look for them; the least sum gets it. No thresholds to tune. "
          "Speeds are learned for each worker from what the gateway itself sees; a new worker is assumed to "
          "be like the others. An index of prompt prefixes by chained hash says what is cached where; the "
          "`cached_tokens` that engines report correct it, and teach how much is cached that this gateway "
          "has not sent. Popular prompts spread by themselves, since waiting costs. `heng replay --explain` "
          "shows the terms for a recorded request.",
      .fields = kFields,
      .validate = nullptr,
      .make = [](const OptionValues& values) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<LeastTime>(values[0]);
      },
      .uses_prefix = true,
  };
}

}  // namespace heng::least_time
