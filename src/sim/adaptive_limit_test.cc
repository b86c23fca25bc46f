// The adaptive limit before a simulated engine under overload: the queue is kept out of the engine, and its
// throughput is not.
#include "control/adaptive_limit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <unordered_map>
#include <vector>

#include "base/rng.h"
#include "sim/engine.h"

namespace heng {
namespace {

struct Figures {
  double tokens_per_s = 0;  // of answers, in the second half
  double engine_queue = 0;  // mean requests waiting inside the engine
  double limit = 0;
};

/// More requests than the engine can serve, for ten minutes; `limit` decides how many it has at a time.
template <class LimitOf>
Figures overload(const EngineParams& params, LimitOf limit_of, AdaptiveLimit* learner) {
  struct Sent {
    Instant at;
    std::uint32_t prompt;
    bool first = true;
  };
  Engine engine(params);
  Rng rng(7);
  std::unordered_map<std::uint64_t, Sent> sent;
  std::vector<EngineEvent> events;
  Figures figures;
  std::uint64_t next_id = 1, tokens_at_half = 0;
  int samples = 0;
  constexpr Instant kHalf{300s}, kEnd{600s};
  for (Instant now{}; now < kEnd; now += 10ms) {
    events.clear();
    engine.advance(now, events);
    for (const EngineEvent& event : events) {
      Sent& request = sent.at(event.id);
      if (request.first && learner != nullptr)
        learner->on_first_byte(request.prompt, event.at - request.at, static_cast<std::uint32_t>(sent.size()),
                               now);
      request.first = false;
      if (event.finish != FinishReason::none) sent.erase(event.id);
    }
    while (sent.size() < limit_of()) {
      EngineRequest request;
      request.id = next_id++;
      request.prompt_tokens = 100 + static_cast<std::uint32_t>(rng.exponential(400));
      request.output_tokens = 20 + static_cast<std::uint32_t>(rng.exponential(200));
      request.every_token = false;
      sent[request.id] = {now, request.prompt_tokens};
      EXPECT_EQ(engine.submit(request, now), Refusal::none);
    }
    if (now < kHalf) {
      tokens_at_half = engine.counters().generation_tokens;
      continue;
    }
    ++samples;
    figures.engine_queue += engine.waiting();
    figures.limit += static_cast<double>(limit_of());
  }
  figures.tokens_per_s =
      static_cast<double>(engine.counters().generation_tokens - tokens_at_half) / to_seconds(kEnd - kHalf);
  figures.engine_queue /= samples;
  figures.limit /= samples;
  return figures;
}

void expect_near_best(const EngineParams& params, std::uint32_t best) {
  const Figures fixed = overload(params, [&] { return best; }, nullptr);
  AdaptiveLimit learner({}, Instant{});
  const Figures learned = overload(params, [&] { return learner.limit(); }, &learner);
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
