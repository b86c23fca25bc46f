// Policy `least_time`: the worker on which the request costs the fewest seconds, its own and the others'.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <queue>
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
    OptionField{"index_mib", 64, 1, 65536,
                "memory for the index of cached prompt prefixes of each pool, at most, in MiB"},
};

// Before anything is known: an 8B model on one modern GPU (docs/engine-model.md). Only the first requests see
// it.
constexpr LineEstimate kPrefillPrior{.base = 0.02, .slope = 1e-4};  // seconds by work ahead, its own included
constexpr LineEstimate kDecodePrior{.base = 0.012, .slope = 1e-4};  // seconds per token by requests in flight
constexpr double kGuessPoints = 0.3;  // what the guesses above count beside what is seen
constexpr double kPoolPoints = 10;    // what the other workers count beside what is seen of one
constexpr double kKeepWorker = 0.98;  // of older observations with each new one
constexpr double kKeepPool = 0.995;
constexpr double kKeepUnheard = 0.999;  // of a worker's, with each turn in which it was not heard of
constexpr double kOutputPrior = 200;    // tokens of an answer
constexpr double kTokensUntilDecodeCounts = 8;
/// Of context at which attention costs a token as much as all else: 30,000 for Llama 3 8B, 53,000 for 70B.
constexpr double kAttentionTokens = 40'000;
// What somebody waits for the first token is what hurts; an answer is read more slowly than it is made. With
// full seconds of decoding, prompts pile up on few workers, which is worse for all that come later.
constexpr double kDecodeShare = 0.02;   // of a second of its own decoding
constexpr double kBurdenShare = 0.002;  // of a second by which it holds up the others
constexpr double kRoomShare = 0.02;     // of the seconds of a prefill as long as what the others hold there
/// Of the seconds in which an answer ends and leaves its room, when the KV cache is full.
constexpr double kFullShare = 0.1;
constexpr Duration kReportLives = 10s;  // an engine's, of its KV cache
constexpr double kLaterGrowth = 2.5;    // by which later turns of a conversation are longer than this one
constexpr double kUnseenPoints = 5, kUnseenMemory = 200;

/// Where a worker stands to a prompt.
enum Standing : std::uint8_t { stranger, holder, home, home_and_holder };
constexpr std::size_t kStandings = 4, kLengths = 8;
constexpr std::uint64_t kShortest = 256;  // tokens, and below

/// What every decision reads of a worker: one cache line.
struct alignas(64) Worker {
  double waiting_work = 0;  // to be prefilled for requests without a first byte
  double since = 0;         // seconds; the last first byte, or when there began to be somebody waiting
  LineEstimate prefill{}, decode{};  // slope 0: not heard of yet
  double resident = 0;               // tokens of prompts in flight
  float front = 0;                   // work of one of those who wait, on average
  std::uint32_t waiting = 0;         // requests without a first byte

  /// `now` in seconds.
  void wait_for(double work, double now) {
    if (waiting++ == 0) since = now;
    waiting_work += work;
    front = static_cast<float>(waiting_work / waiting);
  }
  void stop_waiting_for(double work, double now) {
    if (waiting == 0) return;  // the slot has changed hands meanwhile
    --waiting;
    waiting_work = waiting == 0 ? 0 : std::max(waiting_work - work, 1.0 * waiting);
    front = waiting == 0 ? 0 : static_cast<float>(waiting_work / waiting);
    since = now;
  }
};

/// Where a worker stands among those that may be a text's home.
struct Address {
  std::uint64_t identity = 0;
  std::uint64_t hash = 0;  // equal on all gateways
  double slowness = 1;  // beside the pool, in steps that gateways agree on though their measurements differ
};

struct Observed {
  FadingLine prefill, decode;
  bool tells_cached = false;  // it reports cached tokens, be it none
  bool heard = false;         // since its last turn
};

double seconds_at(Instant now) { return to_seconds(now.time_since_epoch()); }

/// What of a prompt is to be done on a worker.
struct Share {
  double work = 0;  // to prefill
  double lost = 0;  // how often later turns will have to do it again
};

/// In seconds of this request's user.
struct Cost {
  double wait = 0;     // until the worker begins with its prompt
  double room = 0;     // and until its KV cache has room, the longer the more others hold in it
  double prefill = 0;  // of what is not cached of it
  double decode = 0;   // its share of decoding
  double burden = 0;   // what it adds to those who are there
  double later = 0;    // what its continuations lose when they come by way of other gateways
  double sum() const { return wait + room + prefill + decode + burden + later; }
};

struct Attempt {
  double ahead = 0;   // work to prefill until its first byte, its own included
  double own = 0;     // of these, its own
  double batch = 0;   // requests on the worker when it started, itself included
  double prompt = 0;  // tokens, as estimated then
  double block_tokens = 0;
  double unseen = 0;  // tokens that no index knew to be cached
  PrefixMatch match;
  Standing standing = stranger;
  bool known_text = false;  // somebody has had more of it than what begins other texts, too
  bool stream = true;
  bool answered = false;  // or should be by now, of an answer that comes as a whole
};

/// When a prompt should be through whose answer comes as a whole.
struct Due {
  double at = 0;  // seconds
  std::uint64_t request = 0;
  Slot worker = kNoSlot;
  bool operator>(const Due& other) const { return at > other.at; }
};

/// The share of what this gateway did not know to be cached that was cached after all: answers that a next
/// turn repeats, and what other gateways sent there.
class Unseen {
 public:
  /// `prior`: what to assume while little has been seen.
  double found(double prior) const {
    return (points_ * found_ + kUnseenPoints * prior) / (points_ + kUnseenPoints);
  }
  void learn(double share) {
    points_ = std::min(points_ + 1, kUnseenMemory);
    found_ += (std::clamp(share, 0.0, 1.0) - found_) / points_;
  }

 private:
  double found_ = 0;
  double points_ = 0;
};

class LeastTime final : public RoutePolicy, public ExplainsChoice {
 public:
  explicit LeastTime(double index_mib)
      : index_(static_cast<std::size_t>(index_mib * 1048576)), output_(std::chrono::minutes(5)) {}

  std::optional<Slot> choose(const RequestView& request, const PoolView& pool, Instant now,
                             Rng& rng) override {
    if (pool.eligible.empty()) return std::nullopt;
    const Common common = prepare(request, pool, now);
    Slot best = kNoSlot;
    double least = HUGE_VAL;
    const std::uint64_t draw = rng.next();
    std::uint64_t lot_of_best = 0;
    for (const Slot slot : pool.eligible) {
      const double sum = cost(common, pool, slot).sum();
      if (sum > least * pool.weight[slot]) continue;
      const double seconds = sum / pool.weight[slot];
      if (seconds > least) continue;
      const std::uint64_t lot = mix(draw ^ slot);  // decides between equals
      if (seconds == least && lot < lot_of_best) continue;
      best = slot;
      least = seconds;
      lot_of_best = lot;
    }
    return best;
  }

  std::vector<Candidate> explain(const RequestView& request, const PoolView& pool, Instant now) override {
    const Common common = prepare(request, pool, now);
    std::vector<Candidate> candidates;
    for (const Slot slot : pool.eligible) {
      const Cost parts = cost(common, pool, slot);
      candidates.push_back({.worker = slot,
                            .cost = parts.sum() / pool.weight[slot],
                            .terms = {{"wait_s", parts.wait},
                                      {"room_s", parts.room},
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
    pass_due(seconds_at(now));
    take_turn();
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
    observed_.sync(pool);
    index_.sync(pool);
    matches_.resize(workers_.size());
    matched_ = 0;
    addresses_.resize(workers_.size());
    for (Slot slot = 0; slot < workers_.size(); ++slot) {
      Address& address = addresses_[slot];
      if (address.identity != pool.identity[slot])
        address = {.identity = pool.identity[slot], .hash = mix(pool.identity[slot])};
    }
  }

  /// Weighted rendezvous hashing (Schindelhauer, Schomaker 2005): the first of exponential arrivals, one for
  /// each worker at its speed, is a text's home, on which gateways agree without talking. -log2(u) of the
  /// hash as a fraction u, the mantissa's part taken as straight: then a double's bits are its logarithm.
  static double arrival(std::uint64_t hash) {
    const auto fraction = static_cast<double>(static_cast<std::int64_t>(hash >> 11 | 1));  // x 2^53
    return 53 + 1023 - static_cast<double>(std::bit_cast<std::int64_t>(fraction)) * 0x1p-52;
  }

  void look_up(std::uint64_t request, std::span<const std::uint64_t> prefix, const PoolView& pool) {
    matched_ = request;
    home_ = kNoSlot;
    deepest_ = 0;
    const KnownText text = index_.match(prefix, matches_);
    shared_ = text.shared_blocks;
    if (prefix.empty()) return;
    Slot best = kNoSlot;
    std::uint32_t deepest = 0;
    double first = HUGE_VAL;
    for (const Slot slot : pool.eligible) {
      deepest = std::max(deepest, matches_[slot].blocks);
      const Address& address = addresses_[slot];
      const double comes = arrival(mix(text.name ^ address.hash)) * address.slowness;
      if (comes >= first * pool.weight[slot]) continue;
      best = slot;
      first = comes / pool.weight[slot];
    }
    deepest_ = deepest;
    home_ = best;
  }

  Standing standing(Slot slot) const {
    const bool holds = deepest_ > shared_ && matches_[slot].blocks == deepest_;
    return static_cast<Standing>((holds ? holder : stranger) + (slot == home_ ? home : stranger));
  }

  /// By length, in doublings: the longer, the less likely it is new.
  static std::size_t length(double tokens) {
    const auto doublings = std::bit_width(static_cast<std::uint64_t>(std::max(tokens, 0.0)) / kShortest);
    return std::min(static_cast<std::size_t>(doublings), kLengths - 1);
  }
  double found(Standing standing, std::size_t length) const {
    return unseen_[standing].by_length[length].found(unseen_[standing].all.found(0.5));
  }
  void learn_found(Standing standing, double tokens, double share) {
    unseen_[standing].all.learn(share);
    unseen_[standing].by_length[length(tokens)].learn(share);
  }

  /// Expected turns that will still repeat a prompt with so many unseen tokens, and look for it at home: the
  /// chance of each is what is found there of prompts one step longer.
  double later_turns(double tokens) const {
    double turns = 0, chance = 1;
    for (std::size_t step = 1; step <= kLengths; ++step) {
      chance *= found(home, std::min(length(tokens) + step, kLengths - 1));
      turns += chance;
    }
    return turns;
  }

  /// Prefilling the tokens of a prompt that are not cached, in tokens without attention.
  static double work(double prompt, double uncached) {
    return uncached * (1 + (prompt - uncached / 2) / kAttentionTokens);
  }

  Share share_of(double prompt, double known, Standing standing) const {
    const double tokens = prompt - known;
    const double cached = found(standing, length(tokens));
    return {.work = work(prompt, std::max(tokens * (1 - cached), 1.0)),
            .lost = (standing & home) != 0 || home_ == kNoSlot ? 0 : kLaterGrowth * later_turns(tokens)};
  }
  Share share(double prompt, double block_tokens, Slot slot) const {
    return share_of(prompt, matches_[slot].blocks * block_tokens, standing(slot));
  }

  /// Of a request, whichever worker gets it.
  struct Common {
    double prompt = 0, block_tokens = 0, answer = 0;  // tokens
    /// Tokens that each of the others has answered so far. Long answers are in flight longer: on average
    /// one of (1 + cv^2) times the mean, half of it written, and answers' cv is about 1.
    double answered = 0;
    double now = 0;  // seconds
    Instant oldest_report{};
    Share stranger;  // on workers that have nothing
  };

  Common prepare(const RequestView& request, const PoolView& pool, Instant now) {
    sync(pool);
    pass_due(seconds_at(now));
    look_up(request.id, request.prefix, pool);
    const double mean = output_.mean() > 0 ? output_.mean() : kOutputPrior;
    const double most = request.output_tokens_max != 0 ? request.output_tokens_max : HUGE_VAL;
    return {.prompt = static_cast<double>(request.prompt_tokens),
            .block_tokens = request.block_tokens,
            .answer = std::min(mean, most),
            .answered = mean,
            .now = seconds_at(now),
            .oldest_report = now - kReportLives,
            .stranger = share_of(request.prompt_tokens, 0, stranger)};
  }

  /// Of a worker not heard of yet: what the others do by now.
  const LineEstimate& prefill_line(const Worker& worker) const {
    return worker.prefill.slope > 0 ? worker.prefill : pool_prefill_line_;
  }
  const LineEstimate& decode_line(const Worker& worker) const {
    return worker.decode.slope > 0 ? worker.decode : pool_decode_line_;
  }

  /// Seconds of the waiting work that should be done by now. At most the request in front is done but for
  /// its first byte, and half of that is believed: who thinks a prompt nearly done sends the next one behind
  /// it and not to an idle worker. Once that one is late it takes back what it is late by: something is in
  /// its way that is not seen here, another gateway's prompt or a full KV cache.
  static double progress(const Worker& worker, const LineEstimate& prefill, double now) {
    const double front = static_cast<double>(worker.front) * prefill.slope;
    const double passed = worker.waiting == 0 ? 0 : std::max(now - worker.since, 0.0);  // std::clamp branches
    return 0.5 * std::min(passed, 2 * front - passed);
  }

  /// How likely a prompt finds no room: hardly at half of the cache, as an engine tells it.
  static double full(const EngineLoad& reported, Instant oldest) {
    const double square = reported.at < oldest ? 0 : reported.kv_used * reported.kv_used;
    return square * square * square * square;
  }

  /// The inside of the loop over all workers: what a decision costs in a large pool.
  [[gnu::always_inline]] inline Cost cost(const Common& request, const PoolView& pool, Slot slot) const {
    const Worker& worker = workers_[slot];
    const LineEstimate &prefill = prefill_line(worker), &decode = decode_line(worker);
    const bool nothing = matches_[slot].blocks == 0 && slot != home_;
    const Share own = nothing ? request.stranger : share(request.prompt, request.block_tokens, slot);
    const double others = pool.in_flight[slot];
    const double decoding = std::max(others - worker.waiting, 0.0);
    const double seconds = prefill.slope * own.work;
    const double answering = request.answer * decode.at(others + 1);
    return {
        .wait = prefill.at(worker.waiting_work) - progress(worker, prefill, request.now),
        .room = kRoomShare * (worker.resident + others * request.answered) * prefill.slope +
                kFullShare * full(pool.reported[slot], request.oldest_report) * answering,
        .prefill = seconds,
        .decode = kDecodeShare * answering,
        .burden = kBurdenShare * (decoding * seconds + others * request.answer * decode.slope),
        .later = own.lost * seconds,
    };
  }

  void on_started(const AttemptEvent& event, const PoolView& pool, Instant now) {
    if (matched_ != event.request) look_up(event.request, event.prefix, pool);
    matched_ = 0;
    Worker& worker = workers_[event.worker];
    const PrefixMatch match = matches_[event.worker];
    const double own = share(event.prompt_tokens, event.block_tokens, event.worker).work;
    const double ahead = worker.waiting_work -
                         progress(worker, prefill_line(worker), seconds_at(now)) / prefill_line(worker).slope;
    attempts_.put(event.request, event.worker,
                  {.ahead = ahead + own,
                   .own = own,
                   .batch = static_cast<double>(pool.in_flight[event.worker]),
                   .prompt = event.prompt_tokens,
                   .block_tokens = event.block_tokens,
                   .unseen = event.prompt_tokens - match.blocks * event.block_tokens,
                   .match = match,
                   .standing = standing(event.worker),
                   .known_text = deepest_ > shared_,
                   .stream = event.stream});
    if (!event.stream)
      due_.push({seconds_at(now) + prefill_line(worker).at(ahead + own), event.request, event.worker});
    worker.wait_for(own, seconds_at(now));
    worker.resident += event.prompt_tokens;
    index_.insert(event.prefix, event.worker, match.blocks);
  }

  void on_first_byte(const AttemptEvent& event, Instant now) {
    Attempt* const attempt = attempts_.at(event.request, event.worker);
    if (attempt == nullptr) return;
    pass(*attempt, event.worker, seconds_at(now));
    if (attempt->stream && !observed_[event.worker].tells_cached)
      learn_prefill(event.worker, attempt->ahead, to_seconds(event.time_to_first_byte));
  }

  /// Its prompt is through.
  void pass(Attempt& attempt, Slot worker, double now) {
    if (!std::exchange(attempt.answered, true)) workers_[worker].stop_waiting_for(attempt.own, now);
  }
  void pass_due(double now) {
    for (; !due_.empty() && due_.top().at <= now; due_.pop()) {
      const Due& due = due_.top();
      if (Attempt* attempt = attempts_.at(due.request, due.worker)) pass(*attempt, due.worker, now);
    }
  }

  /// One worker after the other with every event: it follows what the pool does by now, and who is not heard
  /// of is assumed to do like the others again, little by little. Somebody must find out.
  void take_turn() {
    turn_ = (turn_ + 1) % static_cast<Slot>(workers_.size());
    Observed& seen = observed_[turn_];
    if (!std::exchange(seen.heard, false)) {
      seen.prefill.fade(kKeepUnheard);
      seen.decode.fade(kKeepUnheard);
    }
    refit(turn_);
  }

  void on_ended(const AttemptEvent& event, const PoolView& pool, Instant now) {
    const std::optional<Attempt> attempt = attempts_.take(event.request, event.worker);
    if (!attempt) return;
    Worker& hot = workers_[event.worker];
    hot.resident = std::max(hot.resident - attempt->prompt, 0.0);
    if (!attempt->answered) hot.stop_waiting_for(attempt->own, seconds_at(now));
    if (event.outcome != Outcome::ok) return;
    const double tokens = std::max(event.output_tokens, 1.0);
    const double batch = (attempt->batch + pool.in_flight[event.worker] + 1) / 2;
    const double elapsed = to_seconds(event.elapsed);
    double first = to_seconds(event.time_to_first_byte);
    if (!attempt->stream) {
      // Of a whole answer only the sum is known: prefill and decoding share it as they are expected to.
      const double prefill = prefill_line(hot).at(attempt->ahead);
      first = elapsed * prefill / (prefill + (tokens - 1) * decode_line(hot).at(batch));
    }
    Observed& worker = observed_[event.worker];
    worker.tells_cached = event.cached_tokens >= 0;
    if (worker.tells_cached && event.prompt_tokens > 0) {
      learn_cached(event, *attempt, first);
    } else {
      if (!attempt->stream) learn_prefill(event.worker, attempt->ahead, first);
      if (attempt->block_tokens > 0) learn_found(home, attempt->unseen, attempt->known_text ? 1 : 0);
    }
    if (event.output_tokens <= 0) return;
    output_.add(event.output_tokens, now);
    if (tokens < kTokensUntilDecodeCounts) return;
    const double per_token = (elapsed - first) / (tokens - 1);
    pool_decode_.add(batch, per_token, kKeepPool, kDecodePrior);
    pool_decode_line_ = pool_decode_.estimate(kDecodePrior, kGuessPoints);
    worker.decode.add(batch, per_token, kKeepWorker, pool_decode_line_);
    worker.heard = true;
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
      learn_found(attempt.standing, attempt.unseen, (event.cached_tokens - seen) / attempt.unseen);
  }

  void learn_prefill(Slot slot, double ahead, double seconds) {
    pool_prefill_.add(ahead, seconds, kKeepPool, kPrefillPrior);
    pool_prefill_line_ = pool_prefill_.estimate(kPrefillPrior, kGuessPoints);
    observed_[slot].prefill.add(ahead, seconds, kKeepWorker, pool_prefill_line_);
    observed_[slot].heard = true;
    refit(slot);
  }

  /// Where a worker has shown little it is assumed to do like the others.
  void refit(Slot slot) {
    Worker& worker = workers_[slot];
    const Observed& seen = observed_[slot];
    if (seen.decode.count() > 0) worker.decode = seen.decode.estimate(pool_decode_line_, kPoolPoints);
    if (seen.prefill.count() == 0) return;
    worker.prefill = seen.prefill.estimate(pool_prefill_line_, kPoolPoints);
    const double octaves = std::log2(worker.prefill.slope / pool_prefill_line_.slope);
    addresses_[slot].slowness = std::exp2(std::round(2 * octaves) / 2);
  }

  SlotTable<Worker> workers_;
  SlotTable<Observed> observed_;
  std::vector<Address> addresses_;  // [slots]
  AttemptTable<Attempt> attempts_;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  Slot turn_ = 0;
  PrefixIndex index_;
  Ewma output_;  // tokens of an answer, whole pool
  FadingLine pool_prefill_, pool_decode_;
  LineEstimate pool_prefill_line_ = kPrefillPrior, pool_decode_line_ = kDecodePrior;
  struct UnseenBy {
    Unseen all;
    std::array<Unseen, kLengths> by_length;
  };
  std::array<UnseenBy, kStandings> unseen_{};  // by Standing
  // Of the request `matched_`:
  std::uint64_t matched_ = 0;
  std::vector<PrefixMatch> matches_;  // [slots]
  std::uint32_t deepest_ = 0;         // blocks of the longest match
  std::uint32_t shared_ = 0;          // blocks that begin other texts, too
  Slot home_ = kNoSlot;
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "least_time",
      .summary = "fewest expected seconds, from learned speeds, work in flight and cached prompts",
      .details =
          "For each worker, in seconds: the wait until it begins with the prompt (prompts accepted there, at "
          "its learned speed, and a little for what it holds in its KV cache, more if the engine says that "
          "it "
          "is full), the prefill of what it has "
          "not cached, a small share of its decoding and "
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
      .uses_engine_load = true,
  };
}

}  // namespace heng::least_time
