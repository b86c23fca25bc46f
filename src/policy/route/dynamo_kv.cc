// Policy `dynamo_kv`: the cost in KV blocks by which Dynamo's router chooses, for comparison.
#include <algorithm>
#include <array>
#include <cmath>

#include "policy/route/least.h"
#include "policy/route/prefix_lru.h"
#include "policy/route/registry.h"
#include "policy/route/waiting_tokens.h"

namespace heng::dynamo_kv {
namespace {

struct Options {
  double prefill_load_scale;
  double overlap_score_credit;
  double overlap_score_credit_decay;
  double temperature;
  bool lmetric;
  double block_tokens;
  double index_tokens;
};

constexpr std::array kFields{
    OptionField{"prefill_load_scale", 1, 0, 1000, "of blocks to prefill, where a block in use counts 1"},
    OptionField{"overlap_score_credit", 1, 0, 1000, "of a cached block, against blocks to prefill"},
    OptionField{"overlap_score_credit_decay", 0, 0, 1000,
                "how fast that credit falls with what a worker has to prefill more than the least loaded"},
    OptionField{"temperature", 0, 0, 1000, "0 = always the least cost; else softmax of normalised costs"},
    OptionField{"lmetric", 0, 0, 1, "multiply blocks to prefill and blocks in use, not add", true},
    OptionField{"block_tokens", 16, 1, 4096, "tokens of a KV block"},
    OptionField{"index_tokens", 500000, 1, 1e12, "tokens of prompts remembered of each worker"},
};

/// Blocks of prompts in use on each worker; a block that several requests there share counts once. Constant
/// cost per block; allocates only when more blocks than ever before are in use.
class ActiveBlocks {
 public:
  void sync(const PoolView& pool) { workers_.sync(pool); }

  /// `rest`: tokens of the prompt beyond its hashed blocks.
  void start(const AttemptEvent& event, double rest, const PoolView& pool) {
    const std::uint64_t identity = pool.identity[event.worker];
    std::uint64_t before = 0;
    Worker& worker = workers_[event.worker];
    for (const std::uint64_t hash : event.prefix) {
      if (Use* const use = uses_.at(hash ^ identity, event.worker)) {
        ++use->requests;
      } else {
        uses_.put(hash ^ identity, event.worker, {1, before, event.block_tokens});
        worker.tokens += event.block_tokens;
      }
      before = hash;
    }
    worker.tokens += rest;
    ++worker.requests;
    requests_.put(event.request, event.worker, {before, rest, identity});
  }

  void end(const AttemptEvent& event, const PoolView& pool) {
    const std::optional<Request> request = requests_.take(event.request, event.worker);
    if (!request) return;
    double freed = request->rest;
    for (std::uint64_t hash = request->last; hash != 0;) {
      Use* const use = uses_.at(hash ^ request->identity, event.worker);
      const std::uint64_t before = use->before;
      if (--use->requests == 0) {
        freed += use->tokens;
        uses_.take(hash ^ request->identity, event.worker);
      }
      hash = before;
    }
    if (pool.identity[event.worker] != request->identity) return;  // the slot has changed hands
    Worker& worker = workers_[event.worker];
    // Rounding errors end with the last request.
    worker.tokens = --worker.requests == 0 ? 0 : std::max(worker.tokens - freed, 0.0);
  }

  double tokens(Slot slot) const { return workers_[slot].tokens; }

  /// How many of the first blocks of the prompt are in use on the worker. Who uses a block uses all before
  /// it: a binary search.
  std::size_t shared(std::span<const std::uint64_t> prefix, Slot slot, const PoolView& pool) {
    const auto absent = std::ranges::partition_point(
        prefix, [&](std::uint64_t hash) { return uses_.at(hash ^ pool.identity[slot], slot) != nullptr; });
    return static_cast<std::size_t>(absent - prefix.begin());
  }

 private:
  struct Use {
    std::uint32_t requests = 0;
    std::uint64_t before = 0;  // the block before it; 0 = it is the first
    double tokens = 0;
  };
  struct Request {
    std::uint64_t last = 0;  // of its blocks; 0 = it has none
    double rest = 0;         // tokens beyond them, which nobody shares
    std::uint64_t identity = 0;
  };
  struct Worker {
    std::uint32_t requests = 0;
    double tokens = 0;
  };

  AttemptTable<Use> uses_;  // by block and worker
  AttemptTable<Request> requests_;
  SlotTable<Worker> workers_;
};

/// https://github.com/ai-dynamo/dynamo lib/kv-router/src/scheduling/selector/{mod,default}.rs at 07a6c9c,
/// loads in lib/kv-router/src/sequences/{single,prompt_registry}.rs at 04df1c4, `lmetric` and the tuning in
/// docs/components/router/ at 03037af. There is one tier of cache here, and answers' blocks are not tracked
/// (Dynamo's default).
class DynamoKv final : public RoutePolicy {
 public:
  explicit DynamoKv(const Options& options) : options_(options), index_({.tokens = options.index_tokens}) {}

  std::optional<Slot> choose(const RequestView& request, const PoolView& pool, Instant, Rng& rng) override {
    if (pool.eligible.empty()) return std::nullopt;
    sync(pool);
    const std::span<const std::uint32_t> blocks = index_.match(request.prefix);
    double least_waiting = HUGE_VAL;
    for (const Slot slot : pool.eligible) least_waiting = std::min(least_waiting, waiting_.of(slot));
    for (const Slot slot : pool.eligible) {
      const double cached = blocks[slot] * request.block_tokens;
      const double excess = waiting_.of(slot) - least_waiting;
      costs_[slot] = cost(request, pool, slot, cached, excess);
    }
    if (options_.temperature > 0) return sample(pool, rng);
    return least(pool, rng, [&](Slot slot) { return costs_[slot]; });
  }

  void on(const AttemptEvent& event, const PoolView& pool, Instant) override {
    sync(pool);
    if (event.worker >= pool.identity.size()) return;
    switch (event.kind) {
      case AttemptEvent::Kind::started: {
        const double cached = index_.match(event.prefix)[event.worker] * event.block_tokens;
        const double uncached = std::max(prompt_tokens(event.prompt_tokens) - cached, 0.0);
        waiting_.add(event.request, event.worker, uncached, pool);
        const double hashed = static_cast<double>(event.prefix.size()) * event.block_tokens;
        active_.start(event, whole_blocks(event.prompt_tokens - hashed), pool);
        return index_.insert(event.prefix, event.block_tokens, event.worker);
      }
      case AttemptEvent::Kind::first_byte:
        return waiting_.remove(event.request, event.worker, pool);
      case AttemptEvent::Kind::ended:
        waiting_.remove(event.request, event.worker, pool);
        return active_.end(event, pool);
    }
  }

 private:
  void sync(const PoolView& pool) {
    index_.sync(pool);
    waiting_.sync(pool);
    active_.sync(pool);
    costs_.resize(pool.identity.size());
    shares_.reserve(pool.identity.size());
  }

  /// A prompt of unknown length counts as one token: Dynamo knows all lengths.
  static double prompt_tokens(double tokens) { return std::max(tokens, 1.0); }

  /// The tokens that fill blocks: what is left over is prefilled, but not tracked as in use.
  double whole_blocks(double tokens) const {
    return std::floor(std::max(tokens, 0.0) / options_.block_tokens) * options_.block_tokens;
  }

  /// KV blocks. cached, excess: tokens.
  double cost(const RequestView& request, const PoolView& pool, Slot slot, double cached, double excess) {
    const double prompt = prompt_tokens(request.prompt_tokens);
    const double request_blocks = std::ceil(prompt / options_.block_tokens);
    const double behind = excess / options_.block_tokens / request_blocks;
    const double credit = options_.overlap_score_credit / (1 + options_.overlap_score_credit_decay * behind);
    const double raw_prefill = (waiting_.of(slot) + std::max(prompt, cached)) / options_.block_tokens;
    const double prefill = std::max(raw_prefill - credit * cached / options_.block_tokens, 0.0);
    const double shared =
        static_cast<double>(active_.shared(request.prefix, slot, pool)) * request.block_tokens;
    const double added = whole_blocks(request.prompt_tokens - shared);
    const double decode = (active_.tokens(slot) + added) / options_.block_tokens;
    return options_.lmetric ? prefill * (decode + 1) : options_.prefill_load_scale * prefill + decode;
  }

  /// Softmax of -(cost - least) / ((greatest - least) temperature).
  Slot sample(const PoolView& pool, Rng& rng) {
    const auto cost_of = [&](Slot slot) { return costs_[slot]; };
    const double lowest = costs_[*std::ranges::min_element(pool.eligible, {}, cost_of)];
    const double highest = costs_[*std::ranges::max_element(pool.eligible, {}, cost_of)];
    const double scale = highest > lowest ? 1 / ((highest - lowest) * options_.temperature) : 0;
    double sum = 0;
    shares_.clear();
    for (const Slot slot : pool.eligible) {
      sum += std::exp((lowest - costs_[slot]) * scale);
      shares_.push_back(sum);
    }
    const auto drawn = std::ranges::upper_bound(shares_, rng.uniform() * sum);
    return pool.eligible[std::min<std::size_t>(drawn - shares_.begin(), pool.eligible.size() - 1)];
  }

  Options options_;
  PrefixLru index_;
  WaitingTokens waiting_;
  ActiveBlocks active_;
  std::vector<double> costs_;   // [slots] scratch
  std::vector<double> shares_;  // [eligible] scratch
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "dynamo_kv",
      .summary = "for comparison: Dynamo's cost in KV blocks",
      .details =
          "A reference policy, for comparisons: the cost of Dynamo's KV router "
          "([source](https://github.com/ai-dynamo/dynamo/blob/main/docs/components/router/"
          "router-concepts.md), 2026-08). The worker with the least `prefill_load_scale` x (blocks sent "
          "there that wait for their first byte + the prompt's - `overlap_score_credit` x those of them "
          "cached there, at least 0) + (blocks of prompts in use there + those the prompt adds); ties at "
          "random. Dynamo's documentation calls the defaults a reasonable start and gives "
          "`overlap_score_credit_decay: 1` as an example against overloaded holders; `lmetric` multiplies "
          "the two terms (+ 1) instead. Dynamo learns from engines' events what they have cached; "
          "here that is what was sent there, least recently used forgotten first, up to `index_tokens`, "
          "which should be the size of an engine's KV cache. Weights do not count.",
      .fields = kFields,
      .validate = nullptr,
      .make = [](const OptionValues& values) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<DynamoKv>(
            Options{values[0], values[1], values[2], values[3], values[4] != 0, values[5], values[6]});
      },
      .uses_prefix = true,
  };
}

}  // namespace heng::dynamo_kv
