// The adaptive limit before a simulated engine under overload: the queue is kept out of the engine, and its
// throughput is not.
#include "control/adaptive_limit.h"

#include <gtest/gtest.h>

#include "config/config.h"
#include "sim/cluster.h"
#include "sim/traffic/synthetic.h"

namespace heng {
namespace {

struct Figures {
  double tokens_per_s = 0;  // of answers, in the second half
  double engine_queue = 0;  // mean requests waiting inside the engine
  double limit = 0;
};

/// More requests than one engine can serve, for ten minutes; the others wait in the gateway, or are turned
/// away.
Figures overload(const EngineParams& params, std::uint32_t limit) {
  ClusterOptions options;
  options.workers = {{.engine = params, .max_in_flight = limit}};
  options.gateway.policy = find_route_policy("least_connections");
  options.gateway.policy_options = default_values(*options.gateway.policy);
  const auto traffic =
      make_synthetic({.rate = 50, .requests = UINT64_MAX, .prompt = {500, 0.8}, .output = {220, 0.9}}, 7);
  Tally tally({.workers = 1, .speeds = {1}});
  Cluster cluster(options, *traffic, tally);
  Figures figures;
  std::uint64_t tokens_at_half = 0;
  int samples = 0;
  constexpr Instant kHalf{300s}, kEnd{600s};
  for (Instant next{1s}; cluster.now() < kEnd;) {
    EXPECT_TRUE(cluster.step().has_value());
    if (cluster.now() < next) continue;
    next += 1s;
    const Engine& engine = cluster.engine(0);
    if (cluster.now() < kHalf) {
      tokens_at_half = engine.counters().generation_tokens;
      continue;
    }
    ++samples;
    figures.engine_queue += engine.waiting();
    figures.limit += cluster.gateways()[0].pool().limit(0);
  }
  const std::uint64_t tokens = cluster.engine(0).counters().generation_tokens;
  figures.tokens_per_s = static_cast<double>(tokens - tokens_at_half) / to_seconds(kEnd - kHalf);
  figures.engine_queue /= samples;
  figures.limit /= samples;
  return figures;
}

void expect_near_best(const EngineParams& params, std::uint32_t best) {
  const Figures fixed = overload(params, best), learned = overload(params, kAdaptive);
  EXPECT_GT(learned.tokens_per_s, 0.9 * fixed.tokens_per_s) << "limit " << learned.limit;
  EXPECT_LT(learned.engine_queue, 0.3 * best) << "limit " << learned.limit;
  EXPECT_LT(learned.limit, 1.3 * best);
}

TEST(AdaptiveLimitOnEngine, LearnsASmallBatch) {
  EngineParams params;
  params.max_num_seqs = 32;
  expect_near_best(params, 32);
}

TEST(AdaptiveLimitOnEngine, LearnsTheDefaultEngine) { expect_near_best(EngineParams{}, 256); }

TEST(AdaptiveLimitOnEngine, LearnsWhatTheMemoryHolds) {
  EngineParams params;
  params.kv_blocks = 3000;  // 48,000 tokens: about 70 requests of 700
  expect_near_best(params, 75);
}

}  // namespace
}  // namespace heng
