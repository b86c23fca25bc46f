// Policy `llmd_sticky`: llm-d's rule "sticky until saturated", for comparison.
#include <algorithm>
#include <array>
#include <cmath>

#include "policy/route/least.h"
#include "policy/route/prefix_lru.h"
#include "policy/route/registry.h"
#include "policy/route/waiting_tokens.h"

namespace heng::llmd_sticky {
namespace {

struct Options {
  double affinity_threshold;
  double max_ttft_penalty_s;
  double peak_prefill_throughput;
  bool by_requests;
  double index_tokens;
};

constexpr std::array kFields{
    OptionField{"affinity_threshold", 0.8, 0, 1, "cached share of a prompt that makes a worker sticky"},
    OptionField{"max_ttft_penalty_s", 18, 0, 3600,
                "a sticky worker is left if it would answer so much later than another; 0 = never"},
    OptionField{"peak_prefill_throughput", 15928, 1, 1e9, "tokens per second that a worker prefills"},
    OptionField{"by_requests", 0, 0, 1, "compare requests in flight, not tokens: for long answers", true},
    OptionField{"index_tokens", 500000, 1, 1e12, "tokens of prompts remembered of each worker"},
};

/// https://github.com/llm-d/llm-d-router pkg/epp/framework/plugins: scheduling/filter/prefixcacheaffinity at
/// 066c20e, scheduling/scorer/tokenload at 1b30d10 (its cap of 4,194,304 tokens left out, beyond which all
/// score alike) or scorer/activerequest at 2b0e757, requestcontrol/dataproducer/inflightload at 003369e;
/// https://github.com/llm-d/llm-d.github.io
/// blog/2026-08-17_bottleneck-aware-scheduling-for-llm-inference.mdx.
class LlmdSticky final : public RoutePolicy {
 public:
  explicit LlmdSticky(const Options& options)
      : options_(options),
        index_({.tokens = options.index_tokens, .heads_first = true, .after_gaps = true}) {}

  std::optional<Slot> choose(const RequestView& request, const PoolView& pool, Instant, Rng& rng) override {
    sync(pool);
    const std::span<const std::uint32_t> blocks = index_.match(request.prefix);
    PoolView candidates = pool;
    if (keep_sticky(request, pool, blocks)) candidates.eligible = sticky_;
    return least(candidates, rng, [&](Slot slot) -> double {
      if (options_.by_requests) return pool.in_flight[slot];
      return waiting_.of(slot) + uncached(request.prompt_tokens, blocks[slot], request.block_tokens);
    });
  }

  void on(const AttemptEvent& event, const PoolView& pool, Instant) override {
    sync(pool);
    if (event.worker >= pool.identity.size()) return;
    if (event.kind != AttemptEvent::Kind::started) {
      return waiting_.remove(event.request, event.worker, pool);
    }
    const std::uint32_t blocks = index_.match(event.prefix)[event.worker];
    waiting_.add(event.request, event.worker, uncached(event.prompt_tokens, blocks, event.block_tokens),
                 pool);
    index_.insert(event.prefix, event.block_tokens, event.worker);
  }

 private:
  void sync(const PoolView& pool) {
    index_.sync(pool);
    waiting_.sync(pool);
    sticky_.reserve(pool.identity.size());
  }

  /// Tokens; a prompt of unknown length counts as one.
  static double uncached(double prompt_tokens, std::uint32_t blocks, double block_tokens) {
    return std::max(std::max(prompt_tokens, 1.0) - blocks * block_tokens, 0.0);
  }

  /// Fills sticky_. False: choose among all.
  bool keep_sticky(const RequestView& request, const PoolView& pool, std::span<const std::uint32_t> blocks) {
    if (options_.affinity_threshold == 0 || request.prefix.empty()) return false;
    sticky_.clear();
    double sticky_tokens = HUGE_VAL, other_tokens = HUGE_VAL;
    for (const Slot slot : pool.eligible) {
      const double share = blocks[slot] / static_cast<double>(request.prefix.size());
      const bool sticky = share >= options_.affinity_threshold;
      double& least_tokens = sticky ? sticky_tokens : other_tokens;
      least_tokens = std::min(least_tokens, waiting_.of(slot));
      if (sticky) sticky_.push_back(slot);
    }
    if (sticky_.empty()) return false;
    if (options_.max_ttft_penalty_s == 0 || sticky_.size() == pool.eligible.size()) return true;
    const double penalty_s = (sticky_tokens - other_tokens) / options_.peak_prefill_throughput;
    return penalty_s <= options_.max_ttft_penalty_s;
  }

  Options options_;
  PrefixLru index_;
  WaitingTokens waiting_;
  std::vector<Slot> sticky_;  // scratch
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "llmd_sticky",
      .summary = "for comparison: llm-d's rule \"sticky until saturated\"",
      .details =
          "A reference policy, for comparisons: the default of llm-d's guides since mid 2026 "
          "([source](https://github.com/llm-d/llm-d-router), [post](https://github.com/llm-d/"
          "llm-d.github.io/blob/main/blog/2026-08-17_bottleneck-aware-scheduling-for-llm-inference.mdx)). "
          "Where workers have at least `affinity_threshold` of the prompt's blocks, only they are "
          "candidates, unless the least loaded of them is behind the least loaded other one by more than "
          "`max_ttft_penalty_s`, the load being the uncached tokens sent there that wait for their first "
          "byte, over `peak_prefill_throughput`. Of the candidates the one for which these tokens and the "
          "request's own uncached ones are fewest, ties at random; with `by_requests`, which llm-d "
          "publishes for answers that are long beside their prompts, the one with the fewest requests. The "
          "defaults are llm-d's, measured for Qwen3-32B on two H100; its post ran with 14 s and 20480, and "
          "for other models and devices it wants `peak_prefill_throughput` measured (from 1970 to 39065 "
          "in its table). `index_tokens` should be the size of an engine's KV cache. Weights do not count.",
      .fields = kFields,
      .validate = nullptr,
      .make = [](const OptionValues& values) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<LlmdSticky>(
            Options{values[0], values[1], values[2], values[3] != 0, values[4]});
      },
      .uses_prefix = true,
  };
}

}  // namespace heng::llmd_sticky
