// Policy `smg_cache_aware`: SMG's choice among the workers that hold a prompt's beginning, for comparison.
#include <algorithm>
#include <array>
#include <tuple>

#include "policy/route/expected_wait.h"
#include "policy/route/prefix_lru.h"
#include "policy/route/registry.h"

namespace heng::smg_cache_aware {
namespace {

struct Options {
  double cache_threshold;
  double balance_abs_threshold;
  double balance_rel_threshold;
  double balance_token_usage_threshold;
  double overload_token_usage_threshold;
  double max_tree_tokens;
  bool expected_wait;
};

constexpr std::array kFields{
    OptionField{"cache_threshold", 0.3, 0, 1, "share of a prompt that must match for the match to count"},
    OptionField{"balance_abs_threshold", 64, 0, 1e6,
                "requests above the mean, from which a worker's requests spill ..."},
    OptionField{"balance_rel_threshold", 1.5, 1, 1000, "... if they are also this multiple of the mean"},
    OptionField{"balance_token_usage_threshold", 1, 0, 1,
                "difference of KV cache use in the pool above which matches do not count; 1 = never"},
    OptionField{"overload_token_usage_threshold", 1, 0, 1,
                "KV cache use of any worker above which matches do not count; 1 = never"},
    OptionField{"max_tree_tokens", 67108864, 1, 1e12, "tokens of prompts remembered, of all workers"},
    OptionField{"expected_wait", 0, 0, 1,
                "ties and misses go by expected wait (SMG since late 2026-08), not by requests", true},
};
constexpr std::size_t kHoldersMax = 8;  // MATCHED_TENANTS_CAP of SMG's crates/kv_index

/// https://github.com/smg-project/smg model_gateway/src/policies/cache_aware.rs at 56ad201, in effect the
/// same at f8daa88 (2026-08-22); `expected_wait` as at 04def28. Defaults are those of the command line, not
/// of the struct. Its tree of prompts is a table of blocks here; KV events, and the decay and temperature
/// that need waiting tokens or are off by default, are left out.
class SmgCacheAware final : public RoutePolicy {
 public:
  explicit SmgCacheAware(const Options& options)
      : options_(options), index_({.tokens = options.max_tree_tokens, .shared = true}), wait_({}) {}

  std::optional<Slot> choose(const RequestView& request, const PoolView& pool, Instant, Rng& rng) override {
    unplaced_ = 0;
    if (pool.eligible.empty()) return std::nullopt;
    sync(pool);
    if (kv_imbalanced(pool)) return fallback(pool, rng);
    const std::span<const std::uint32_t> blocks = index_.match(request.prefix);
    const std::uint32_t most = blocks.empty() ? 0 : *std::ranges::max_element(blocks);
    if (most * request.block_tokens <= options_.cache_threshold * request.prompt_tokens) {
      return fallback(pool, rng);
    }
    candidates_.clear();
    find_holders(pool, blocks, most);
    if (candidates_.empty()) {
      if (options_.expected_wait) return fallback(pool, rng);
      unplaced_ = request.id;
      return pool.eligible.front();
    }
    mean_ = mean_load(pool);
    std::erase_if(candidates_, [&](Slot slot) { return must_spill(pool, slot); });
    if (candidates_.empty()) return spill(pool, rng);
    return options_.expected_wait ? wait_.choose(among_candidates(pool), rng)
                                  : least(among_candidates(pool), rng,
                                          [&](Slot slot) -> double { return pool.in_flight[slot]; });
  }

  void on(const AttemptEvent& event, const PoolView& pool, Instant) override {
    if (event.kind != AttemptEvent::Kind::started) return;
    sync(pool);
    // What went to the first worker because no holder was healthy, the tree does not learn.
    if (event.request == unplaced_ && unplaced_ != 0) return;
    ++processed_[event.worker];
    wait_.sent(event.worker, event.prompt_tokens);
    index_.insert(event.prefix, event.block_tokens, event.worker);
  }

 private:
  void sync(const PoolView& pool) {
    index_.sync(pool);
    wait_.sync(pool);
    processed_.sync(pool);
    candidates_.reserve(pool.identity.size());
  }

  bool kv_imbalanced(const PoolView& pool) const {
    double least_used = 1, most_used = 0;
    for (const Slot slot : pool.eligible) {
      if (!pool.reported[slot].known()) continue;
      least_used = std::min<double>(least_used, pool.reported[slot].kv_used);
      most_used = std::max<double>(most_used, pool.reported[slot].kv_used);
    }
    return most_used > options_.overload_token_usage_threshold ||
           most_used - least_used > options_.balance_token_usage_threshold;
  }

  /// Eligible ones of the first few with the longest match.
  void find_holders(const PoolView& pool, std::span<const std::uint32_t> blocks, std::uint32_t most) {
    std::size_t holders = 0;
    auto eligible = pool.eligible.begin();
    for (Slot slot = 0; slot < blocks.size() && holders < kHoldersMax; ++slot) {
      if (blocks[slot] != most) continue;
      ++holders;
      eligible = std::lower_bound(eligible, pool.eligible.end(), slot);
      if (eligible != pool.eligible.end() && *eligible == slot) candidates_.push_back(slot);
    }
  }

  static double mean_load(const PoolView& pool) {
    double sum = 0;
    for (const Slot slot : pool.eligible) sum += pool.in_flight[slot];
    return sum / static_cast<double>(pool.eligible.size());
  }

  bool must_spill(const PoolView& pool, Slot slot) const {
    const double load = pool.in_flight[slot];
    return load > mean_ * options_.balance_rel_threshold && load > mean_ + options_.balance_abs_threshold;
  }

  std::optional<Slot> spill(const PoolView& pool, Rng& rng) {
    for (const Slot slot : pool.eligible) {
      if (!must_spill(pool, slot)) candidates_.push_back(slot);
    }
    return fallback(among_candidates(pool), rng);
  }

  std::optional<Slot> fallback(const PoolView& pool, Rng& rng) const {
    if (options_.expected_wait) return wait_.choose(pool, rng);
    return *std::ranges::min_element(pool.eligible, {}, [&](Slot slot) {
      return std::tuple(pool.in_flight[slot], processed_[slot], slot);
    });
  }

  PoolView among_candidates(PoolView pool) const {
    pool.eligible = candidates_;
    return pool;
  }

  Options options_;
  PrefixLru index_;
  ExpectedWait wait_;
  SlotTable<std::uint64_t> processed_;  // requests ever sent
  std::vector<Slot> candidates_;        // scratch
  double mean_ = 0;                     // requests in flight of an eligible worker
  std::uint64_t unplaced_ = 0;          // the request chosen for without a holder
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "smg_cache_aware",
      .summary = "for comparison: SMG's choice among holders of the prompt's beginning",
      .details =
          "A reference policy, for comparisons: the rule of SMG's `cache_aware` "
          "([source](https://github.com/smg-project/smg/blob/main/model_gateway/src/policies/cache_aware.rs)"
          ", 2026-08). If more than `cache_threshold` of the prompt was sent before, the worker with the "
          "fewest requests in flight of those that got the longest such beginning (at most 8), unless it is "
          "far above the mean: then, and if too little matches, the least loaded worker, the one with the "
          "fewest requests so far of several. If no holder is healthy, the first worker of the list. SMG's "
          "documentation suggests 0.5 and 0.9 for the two thresholds of KV cache use. Engines' KV events "
          "are not seen, so this is what SMG does for HTTP workers, with blocks of 256 bytes instead of "
          "characters. Weights do not count.",
      .fields = kFields,
      .validate = nullptr,
      .make = [](const OptionValues& values) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<SmgCacheAware>(
            Options{values[0], values[1], values[2], values[3], values[4], values[5], values[6] != 0});
      },
      .uses_prefix = true,
      .uses_engine_load = true,
  };
}

}  // namespace heng::smg_cache_aware
