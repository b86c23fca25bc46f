// Policy `llmd_weighted`: llm-d's weighted sum of scores, for comparison.
#include <algorithm>
#include <array>

#include "policy/route/least.h"
#include "policy/route/prefix_lru.h"
#include "policy/route/registry.h"

namespace heng::llmd_weighted {
namespace {

struct Options {
  double queue_weight;
  double kv_weight;
  double prefix_weight;
  double no_hit_lru_weight;
  double index_tokens;
};

constexpr std::array kFields{
    OptionField{"queue_weight", 2, 0, 1000, "of a short queue in the engine"},
    OptionField{"kv_weight", 2, 0, 1000, "of a free KV cache"},
    OptionField{"prefix_weight", 3, 0, 1000, "of the share of the prompt that is cached"},
    OptionField{"no_hit_lru_weight", 0, 0, 1000,
                "of having got no prompt for longest that nobody had cached, for such prompts"},
    OptionField{"index_tokens", 500000, 1, 1e12, "tokens of prompts remembered of each worker"},
};

/// https://github.com/llm-d/llm-d-router: weights in pkg/epp/config/loader/defaults.go at 0b59e4e, scores in
/// pkg/epp/framework/plugins/scheduling/scorer/{queuedepth,kvcacheutilization,prefix} at 2342697 and
/// {nohitlru} at 0b59e4e, the index in .../requestcontrol/dataproducer/approximateprefix at 09a534f: per
/// worker an LRU of 31,250 blocks of 16 tokens, to which each prompt is added from its beginning.
class LlmdWeighted final : public RoutePolicy {
 public:
  explicit LlmdWeighted(const Options& options)
      : options_(options),
        index_({.tokens = options.index_tokens, .heads_first = true, .after_gaps = true}) {}

  std::optional<Slot> choose(const RequestView& request, const PoolView& pool, Instant, Rng& rng) override {
    sync(pool);
    const std::span<const std::uint32_t> blocks = index_.match(request.prefix);
    const bool cold = std::ranges::none_of(pool.eligible, [&](Slot slot) { return blocks[slot] > 0; });
    cold_request_ = cold ? request.id : 0;
    if (options_.no_hit_lru_weight > 0) score_cold(pool, cold);
    const QueueRange range = queue_range(pool);
    const double total = std::max(static_cast<double>(request.prefix.size()), 1.0);
    return least(pool, rng, [&](Slot slot) {
      double score = options_.prefix_weight * blocks[slot] / total;
      if (options_.no_hit_lru_weight > 0) score += options_.no_hit_lru_weight * cold_score_[slot];
      if (range.counts(pool, slot)) {
        score += options_.queue_weight * range.score(range.queue(pool, slot)) +
                 options_.kv_weight * (1 - pool.reported[slot].kv_used);
      }
      return -score;
    });
  }

  void on(const AttemptEvent& event, const PoolView& pool, Instant) override {
    if (event.kind != AttemptEvent::Kind::started) return;
    sync(pool);
    if (event.request == cold_request_) last_cold_[event.worker] = ++cold_requests_;
    index_.insert(event.prefix, event.block_tokens, event.worker);
  }

 private:
  /// Queues from the shortest to the longest. Who does not report gets no score, unless nobody does: then the
  /// requests in flight stand for the queue.
  struct QueueRange {
    bool reported = false;
    double shortest = 0, longest = 0;

    bool counts(const PoolView& pool, Slot slot) const { return !reported || pool.reported[slot].known(); }
    double queue(const PoolView& pool, Slot slot) const {
      return reported ? pool.reported[slot].waiting : static_cast<double>(pool.in_flight[slot]);
    }
    double score(double queue) const {
      return longest == shortest ? 1 : (longest - queue) / (longest - shortest);
    }
  };

  void sync(const PoolView& pool) {
    index_.sync(pool);
    last_cold_.sync(pool);
    cold_score_.resize(pool.identity.size());
    by_age_.reserve(pool.identity.size());
  }

  static QueueRange queue_range(const PoolView& pool) {
    QueueRange range;
    range.reported = std::ranges::any_of(pool.eligible, [&](Slot s) { return pool.reported[s].known(); });
    bool first = true;
    for (const Slot slot : pool.eligible) {
      if (!range.counts(pool, slot)) continue;
      const double queue = range.queue(pool, slot);
      range.shortest = first ? queue : std::min(range.shortest, queue);
      range.longest = first ? queue : std::max(range.longest, queue);
      first = false;
    }
    return range;
  }

  /// For a cold request 1 for the worker whose last one is longest ago, down to 0; else the same for all.
  void score_cold(const PoolView& pool, bool cold) {
    by_age_.assign(pool.eligible.begin(), pool.eligible.end());
    std::ranges::sort(by_age_, {}, [&](Slot slot) { return std::pair(last_cold_[slot], slot); });
    const double steps = std::max(static_cast<double>(by_age_.size()) - 1, 1.0);
    for (std::size_t i = 0; i < by_age_.size(); ++i) {
      cold_score_[by_age_[i]] = cold ? 1 - static_cast<double>(i) / steps : 0.5;
    }
  }

  Options options_;
  PrefixLru index_;
  SlotTable<std::uint64_t> last_cold_;  // number of the last cold request; 0 = none yet
  std::uint64_t cold_requests_ = 0;
  std::uint64_t cold_request_ = 0;  // the request chosen for, if it is cold
  std::vector<Slot> by_age_;        // scratch
  std::vector<double> cold_score_;  // [slots] scratch
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "llmd_weighted",
      .summary = "for comparison: llm-d's weighted sum of queue, KV cache and prefix scores",
      .details =
          "A reference policy, for comparisons: the built-in blend of the llm-d router "
          "([source](https://github.com/llm-d/llm-d-router), 2026-08). The worker with the greatest sum of "
          "`queue_weight` times 1 for the shortest to 0 for the longest queue in an engine, `kv_weight` "
          "times the free share of its KV cache, and `prefix_weight` times the share of the prompt's blocks "
          "that were sent there before; ties at random. The weights of llm-d's guides until mid 2026 are "
          "these and `no_hit_lru_weight: 2`, for prompts that nobody has: 1 for the worker that got none "
          "for longest, down to 0. `index_tokens` should be the size of an engine's KV cache, to which "
          "llm-d sets it where engines tell. While no worker reports its load, requests in flight stand "
          "for the queue; where some do, the others get no score for it, as there. Weights of workers do "
          "not count.",
      .fields = kFields,
      .validate = nullptr,
      .make = [](const OptionValues& values) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<LlmdWeighted>(Options{values[0], values[1], values[2], values[3], values[4]});
      },
      .uses_prefix = true,
      .uses_engine_load = true,
  };
}

}  // namespace heng::llmd_weighted
