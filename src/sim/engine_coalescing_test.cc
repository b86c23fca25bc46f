// Steps passed over in one go give what single steps give, to the nanosecond and to the block.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "base/rng.h"
#include "sim/engine.h"

namespace heng {
namespace {

struct Action {
  enum class Kind : std::uint8_t { submit, cancel, speed, look };
  Kind kind = Kind::look;
  Instant at;
  EngineRequest request;
  double speed = 1;
};

std::vector<Action> random_actions(std::uint64_t seed, std::size_t count, double gap_ms,
                                   std::uint32_t output_max) {
  Rng rng(seed);
  std::vector<Action> actions;
  Instant now{};
  for (std::size_t i = 0; i < count; ++i) {
    now += from_seconds(rng.exponential(gap_ms / 1e3));
    Action action{.at = now, .request = {}};
    const double dice = rng.uniform();
    action.kind = dice < 0.7    ? Action::Kind::submit
                  : dice < 0.8  ? Action::Kind::cancel
                  : dice < 0.85 ? Action::Kind::speed
                                : Action::Kind::look;
    action.speed = 0.25 + 2 * rng.uniform();
    action.request.id = action.kind == Action::Kind::cancel ? rng.below(i + 1) : i;
    action.request.prompt_tokens = static_cast<std::uint32_t>(1 + rng.below(120));
    action.request.output_tokens = static_cast<std::uint32_t>(rng.below(output_max));
    // Half of them share prefixes, and go on into the answer.
    const std::uint64_t family = rng.below(4);
    const std::uint64_t blocks = family < 2 ? 0 : (action.request.prompt_tokens + rng.below(80)) / 4;
    for (std::uint64_t block = 0; block < blocks; ++block)
      action.request.blocks.push_back(block < 8 ? family * 1000 + block
                                                : family * 1000 + i * 100'000 + block);
    actions.push_back(std::move(action));
  }
  return actions;
}

struct Trail {
  std::vector<EngineEvent> events;  // first and last tokens only
  EngineCounters counters;
  std::vector<std::uint32_t> used;  // blocks, at each look
};

Trail run(const EngineParams& params, const std::vector<Action>& actions, bool single_steps) {
  Engine engine(params);
  Trail trail;
  std::vector<EngineEvent> events;
  const auto advance_to = [&](Instant until) {
    // Only single steps have an event for each step; the others jump.
    while (single_steps && engine.next_event() < until) engine.advance(engine.next_event(), events);
  };
  for (const Action& action : actions) {
    advance_to(action.at);
    switch (action.kind) {
      case Action::Kind::submit: {
        EngineRequest request = action.request;
        request.every_token = single_steps;
        engine.submit(std::move(request), action.at);
        break;
      }
      case Action::Kind::cancel:
        engine.advance(action.at, events);
        engine.cancel(action.request.id, action.at);
        break;
      case Action::Kind::speed:
        engine.advance(action.at, events);
        engine.set_speed(action.speed, action.at);
        break;
      case Action::Kind::look:
        engine.advance(action.at, events);
        trail.used.push_back(engine.cache().used());
        break;
    }
  }
  while (engine.next_event() != Engine::kNever) engine.advance(engine.next_event(), events);
  for (const EngineEvent& event : events) {
    if (event.tokens <= 1 || event.finish != FinishReason::none) trail.events.push_back(event);
  }
  trail.counters = engine.counters();
  return trail;
}

void compare(const Trail& single, const Trail& jumped) {
  RC_ASSERT(single.events.size() == jumped.events.size());
  for (std::size_t i = 0; i < single.events.size(); ++i) {
    const EngineEvent &a = single.events[i], &b = jumped.events[i];
    RC_ASSERT(a.at == b.at);
    RC_ASSERT(a.id == b.id);
    RC_ASSERT(a.tokens == b.tokens);
    RC_ASSERT(a.cached_tokens == b.cached_tokens);
    RC_ASSERT(a.finish == b.finish);
  }
  RC_ASSERT(single.used == jumped.used);
  RC_ASSERT(single.counters.steps == jumped.counters.steps);
  RC_ASSERT(single.counters.busy == jumped.counters.busy);
  RC_ASSERT(single.counters.preemptions == jumped.counters.preemptions);
  RC_ASSERT(single.counters.generation_tokens == jumped.counters.generation_tokens);
  RC_ASSERT(single.counters.prefix_hit_tokens == jumped.counters.prefix_hit_tokens);
  RC_ASSERT(single.counters.finished == jumped.counters.finished);
}

RC_GTEST_PROP(EngineCoalescing, GivesWhatSingleStepsGive, ()) {
  EngineParams params;
  params.block_size = *rc::gen::element(1u, 4u, 16u);
  params.kv_blocks = *rc::gen::inRange(200u, 1200u) * 4 / params.block_size;
  params.max_num_seqs = *rc::gen::inRange(1u, 40u);
  params.max_num_batched_tokens = params.max_num_seqs + *rc::gen::inRange(0u, 200u);
  params.prefix_caching = *rc::gen::arbitrary<bool>();
  const double gap_ms = *rc::gen::element(1.0, 20.0, 200.0);
  const auto actions =
      random_actions(*rc::gen::arbitrary<std::uint64_t>(), 120, gap_ms, *rc::gen::element(3u, 60u, 300u));
  const Trail single = run(params, actions, true), jumped = run(params, actions, false);
  if (single.counters.preemptions > 0) RC_TAG("preempted");
  if (single.counters.prefix_hit_tokens > 0) RC_TAG("prefix hits");
  compare(single, jumped);
}

TEST(EngineCoalescing, LeavesOutTheStepsInBetween) {
  Engine engine(EngineParams{});
  EngineRequest request;
  request.prompt_tokens = 100;
  request.output_tokens = 1000;
  request.every_token = false;
  engine.submit(request, Instant{});
  int calls = 0;
  std::vector<EngineEvent> events;
  for (; engine.next_event() != Engine::kNever; ++calls) engine.advance(engine.next_event(), events);
  EXPECT_EQ(engine.counters().steps, 1000u);
  EXPECT_LE(calls, 5);
  EXPECT_EQ(events.size(), 2u);
}

}  // namespace
}  // namespace heng
