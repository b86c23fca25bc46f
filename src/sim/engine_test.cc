// The engine model: each rule by example with exact times, then its laws for random traffic.
#include "sim/engine.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/hash.h"
#include "sim/prompt.h"
#include "sim/text.h"

namespace heng {
namespace {

constexpr Instant kStart{};

/// Round numbers: 1 ms a step, 10 us a prompt token, 100 us a decoding sequence, nothing for attention.
EngineParams plain() {
  EngineParams params;
  params.t_base = 1ms;
  params.t_prefill = 10us;
  params.t_decode_seq = 100us;
  params.t_kv_ns = 0;
  params.t_attention_ns = 0;
  params.block_size = 4;
  params.kv_blocks = 1000;
  params.max_num_seqs = 8;
  params.max_num_batched_tokens = 100;
  params.max_model_len = 1000;
  return params;
}

EngineRequest request(std::uint64_t id, std::uint32_t prompt, std::uint32_t output) {
  EngineRequest made;
  made.id = id;
  made.prompt_tokens = prompt;
  made.output_tokens = output;
  return made;
}

EngineRequest request_of(std::uint64_t id, const std::string& text, std::uint32_t output,
                         std::uint32_t block_size) {
  EngineRequest made = request(id, static_cast<std::uint32_t>(count_tokens(text.size())), output);
  made.blocks = prompt_blocks(text, block_size);
  return made;
}

std::vector<EngineEvent> run_until(Engine& engine, Instant now) {
  std::vector<EngineEvent> events;
  engine.advance(now, events);
  return events;
}

std::vector<EngineEvent> run_out(Engine& engine) {
  std::vector<EngineEvent> events;
  while (engine.next_event() != Engine::kNever) engine.advance(engine.next_event(), events);
  return events;
}

EngineEvent last_of(const std::vector<EngineEvent>& events, std::uint64_t id) {
  EngineEvent found;
  for (const EngineEvent& event : events) {
    if (event.id == id) found = event;
  }
  return found;
}

TEST(EngineStepTime, IsTheStatedSum) {
  EngineParams params;
  params.t_base = 1000ns;
  params.t_prefill = 100ns;
  params.t_decode_seq = 10ns;
  params.t_kv_ns = 0.5;
  params.t_attention_ns = 0.25;
  const StepWork work{.prefill_tokens = 3, .decode_sequences = 4, .kv_tokens_read = 20, .attention_pairs = 8};
  EXPECT_EQ(step_time(params, work), 1352ns);
  params.speed = 2;
  EXPECT_EQ(step_time(params, work), 676ns);
}

TEST(EngineStepTime, ReadsContextSlowerBesidePrompts) {
  EngineParams params = plain();
  params.t_kv_ns = 10;
  params.kv_mixed = 3;
  EXPECT_EQ(step_time(params, {.decode_sequences = 1, .kv_tokens_read = 1000}), 1ms + 100us + 10us);
  EXPECT_EQ(step_time(params, {.prefill_tokens = 5, .decode_sequences = 1, .kv_tokens_read = 1000}),
            1ms + 50us + 100us + 30us);
}

TEST(EnginePrefix, TakesTheCallersWordForCachedTokens) {
  Engine engine(plain());
  EngineRequest known = request(1, 90, 2);
  known.cached_tokens = 70;
  engine.submit(known, kStart);
  const std::vector<EngineEvent> events = run_out(engine);
  EXPECT_EQ(events.front().at, kStart + 1ms + 200us);  // 20 tokens are left
  EXPECT_EQ(events.front().cached_tokens, 70u);
  known.cached_tokens = 500;  // the last token is always computed
  engine.submit(known, events.back().at);
  EXPECT_EQ(run_out(engine).front().cached_tokens, 89u);
}

TEST(EngineStepTime, DefaultsMatchTheHardwareTheyCite) {
  const EngineParams params;
  // One sequence decodes at about 95 tokens/s, 8 run nearly as fast each, prompts prefill at 10 to 15
  // thousand per s.
  const auto decode = [&](std::uint64_t n) {
    return to_seconds(step_time(params, {.decode_sequences = n, .kv_tokens_read = n * 1100}));
  };
  EXPECT_NEAR(1 / decode(1), 96, 2);
  EXPECT_LT(decode(8) / decode(1), 1.15);
  EXPECT_GT(decode(256) / decode(1), 3);
  const double chunk =
      to_seconds(step_time(params, {.prefill_tokens = 2048, .attention_pairs = 2048 * 2049 / 2}));
  EXPECT_GT(2048 / chunk, 10'000);
  EXPECT_LT(2048 / chunk, 15'000);
}

TEST(Engine, OneRequestTakesItsPrefillThenOneStepPerToken) {
  Engine engine(plain());
  EXPECT_EQ(engine.next_event(), Engine::kNever);
  ASSERT_EQ(engine.submit(request(1, 50, 3), kStart + 5ms), Refusal::none);
  EXPECT_EQ(engine.next_event(), kStart + 5ms);
  const auto events = run_out(engine);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].at, kStart + 5ms + 1500us);  // 1 ms + 50 tokens of 10 us
  EXPECT_EQ(events[1].at, events[0].at + 1100us);
  EXPECT_EQ(events[2].at, events[1].at + 1100us);
  for (std::uint32_t i = 0; i < 3; ++i) EXPECT_EQ(events[i].tokens, i + 1);
  EXPECT_EQ(events[1].finish, FinishReason::none);
  EXPECT_EQ(events[2].finish, FinishReason::stop);
  EXPECT_EQ(engine.counters().prompt_tokens, 50u);
  EXPECT_EQ(engine.counters().generation_tokens, 3u);
  EXPECT_EQ(engine.counters().busy, 3700us);
  EXPECT_EQ(engine.cache().used(), 0u);
}

TEST(Engine, LongPromptsArePrefilledInChunksBesideDecodes) {
  Engine engine(plain());
  engine.submit(request(1, 10, 100), kStart);
  run_until(engine, kStart);
  engine.submit(request(2, 250, 2), kStart + 500us);
  const auto events = run_out(engine);
  // Step 1: 10 tokens of request 1. Then each step: one decode and 99, 99, 52 tokens of request 2.
  const Instant first = kStart + 1100us + (1000us + 100us + 990us) * 2 + (1000us + 100us + 520us);
  const auto token =
      std::find_if(events.begin(), events.end(), [](const EngineEvent& e) { return e.id == 2; });
  ASSERT_NE(token, events.end());
  EXPECT_EQ(token->at, first);
  EXPECT_EQ(token->tokens, 1u);
}

TEST(Engine, RequestsBeyondTheBatchQueueInOrder) {
  EngineParams params = plain();
  params.max_num_seqs = 2;
  Engine engine(params);
  for (std::uint64_t id = 1; id <= 4; ++id) engine.submit(request(id, 4, 5), kStart);
  EXPECT_EQ(engine.waiting(), 4u);
  run_until(engine, kStart);
  EXPECT_EQ(engine.running(), 2u);
  EXPECT_EQ(engine.waiting(), 2u);
  const auto events = run_out(engine);
  EXPECT_LT(last_of(events, 2).at, last_of(events, 3).at);
  EXPECT_EQ(last_of(events, 3).at, last_of(events, 4).at);
}

TEST(Engine, EmbeddingsEndWithTheirPrefill) {
  Engine engine(plain());
  engine.submit(request(1, 40, 0), kStart);
  const auto events = run_out(engine);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].at, kStart + 1400us);
  EXPECT_EQ(events[0].tokens, 0u);
  EXPECT_EQ(events[0].finish, FinishReason::stop);
}

TEST(Engine, RefusesWhatCanNeverRun) {
  Engine engine(plain());
  EXPECT_EQ(engine.submit(request(1, 0, 1), kStart), Refusal::empty_prompt);
  EXPECT_EQ(engine.submit(request(1, 1000, 1), kStart), Refusal::prompt_too_long);
  EXPECT_EQ(engine.submit(request(1, 0xffffffff, 1), kStart), Refusal::prompt_too_long);
  EXPECT_EQ(engine.submit(request(1, 999, 1), kStart), Refusal::none);
  EXPECT_EQ(engine.submit(request(1, 5, 1), kStart), Refusal::duplicate_id);
  EXPECT_EQ(engine.counters().refused, 4u);
  run_out(engine);
  EXPECT_EQ(engine.submit(request(1, 5, 1), kStart + 1s), Refusal::none);

  EngineParams params = plain();
  params.kv_blocks = 10;
  EXPECT_EQ(Engine(params).context_tokens(), 40u);
}

TEST(Engine, TheContextCutsTheAnswer) {
  Engine engine(plain());
  engine.submit(request(1, 990, 500), kStart);
  const auto events = run_out(engine);
  EXPECT_EQ(last_of(events, 1).tokens, 10u);
  EXPECT_EQ(last_of(events, 1).finish, FinishReason::length);
}

TEST(Engine, CanceledRequestsStaySilentAndLeaveNoBlocks) {
  Engine engine(plain());
  engine.submit(request(1, 50, 50), kStart);
  engine.submit(request(2, 50, 50), kStart);
  run_until(engine, kStart + 10ms);
  EXPECT_TRUE(engine.cancel(1, kStart + 10ms));
  EXPECT_FALSE(engine.cancel(1, kStart + 10ms));
  for (const EngineEvent& event : run_out(engine)) EXPECT_EQ(event.id, 2u);
  EXPECT_FALSE(engine.cancel(2, kStart + 10s));
  EXPECT_EQ(engine.cache().used(), 0u);
  EXPECT_EQ(engine.counters().canceled, 1u);
}

TEST(Engine, ASpeedChangeRescalesTheStepUnderWay) {
  Engine engine(plain());
  engine.submit(request(1, 100, 2), kStart);
  run_until(engine, kStart);
  EXPECT_EQ(engine.next_event(), kStart + 2ms);
  engine.set_speed(0.5, kStart + 1ms);
  EXPECT_EQ(engine.next_event(), kStart + 3ms);
  const auto events = run_out(engine);
  EXPECT_EQ(events[1].at, kStart + 3ms + 2200us);
}

TEST(Engine, LateCallersDoNotSlowItDown) {
  Engine prompt_caller(plain());
  Engine late_caller(plain());
  for (Engine* engine : {&prompt_caller, &late_caller}) {
    engine->submit(request(1, 50, 20), kStart);
    engine->submit(request(2, 70, 20), kStart);
  }
  const auto expected = run_out(prompt_caller);
  const auto got = run_until(late_caller, kStart + 1h);
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i].at, expected[i].at);
}

TEST(Engine, ARequestNeverJoinsAStepThatBeganBeforeIt) {
  Engine engine(plain());
  engine.submit(request(1, 10, 3), kStart);  // steps end at 1.1, 2.2 and 3.3 ms
  run_until(engine, kStart);
  engine.submit(request(2, 10, 1), kStart + 2500us);  // nobody has called advance since
  const auto events = run_out(engine);
  EXPECT_EQ(last_of(events, 2).at, kStart + 3300us + 1100us);
}

TEST(EnginePrefix, ReportsTheCachedBlocksOfThePrompt) {
  Engine engine(plain());
  const std::string system = filler_text(1, 40);
  engine.submit(request_of(1, system + filler_text(2, 10), 4, 4), kStart);
  EXPECT_EQ(last_of(run_out(engine), 1).cached_tokens, 0u);
  // 40 tokens in common are 10 blocks of 4.
  engine.submit(request_of(2, system + filler_text(3, 10), 4, 4), kStart + 1s);
  EXPECT_EQ(last_of(run_out(engine), 2).cached_tokens, 40u);
  // All 50 tokens are known, 48 in complete blocks.
  engine.submit(request_of(3, system + filler_text(2, 10), 4, 4), kStart + 2s);
  EXPECT_EQ(last_of(run_out(engine), 3).cached_tokens, 48u);
  // A prompt of complete blocks only: the last token must be computed again, and with it its block.
  engine.submit(request_of(4, system, 4, 4), kStart + 3s);
  EXPECT_EQ(last_of(run_out(engine), 4).cached_tokens, 36u);
  EXPECT_EQ(engine.counters().prefix_query_tokens, 50u + 50 + 50 + 40);
  EXPECT_EQ(engine.counters().prefix_hit_tokens, 40u + 48 + 36);
}

TEST(EnginePrefix, CachedTokensCostNoPrefill) {
  Engine engine(plain());
  const std::string text = filler_text(1, 50);
  engine.submit(request_of(1, text, 1, 4), kStart);
  run_out(engine);
  engine.submit(request_of(2, text, 1, 4), kStart + 1s);
  EXPECT_EQ(run_out(engine)[0].at, kStart + 1s + 1ms + 20us);  // 50 - 48 tokens
}

TEST(EnginePrefix, ANextTurnFindsTheAnswerOfTheLastOne) {
  Engine engine(plain());
  const std::string question = filler_text(1, 20);
  const std::string answer = filler_text(2, 21);
  EngineRequest turn = request(1, 20, 21);
  turn.blocks = prompt_blocks(question + answer, 4);
  engine.submit(turn, kStart);
  run_out(engine);
  engine.submit(request_of(2, question + answer + filler_text(3, 9), 1, 4), kStart + 1s);
  EXPECT_EQ(last_of(run_out(engine), 2).cached_tokens, 40u);
}

TEST(EnginePrefix, CanBeTurnedOff) {
  EngineParams params = plain();
  params.prefix_caching = false;
  Engine engine(params);
  for (std::uint64_t id = 1; id <= 2; ++id) {
    engine.submit(request_of(id, filler_text(1, 50), 1, 4), kStart + 1s * id);
    EXPECT_EQ(last_of(run_out(engine), id).cached_tokens, 0u);
  }
  EXPECT_EQ(engine.counters().prefix_query_tokens, 0u);
}

TEST(EnginePreemption, TheLatestYieldsAndFinishesLater) {
  EngineParams params = plain();
  params.kv_blocks = 20;  // 80 tokens: two requests of 10 + 60 do not fit together
  Engine engine(params);
  engine.submit(request(1, 10, 60), kStart);
  engine.submit(request(2, 10, 60), kStart);
  const auto events = run_out(engine);
  EXPECT_GE(engine.counters().preemptions, 1u);
  EXPECT_EQ(last_of(events, 1).tokens, 60u);
  EXPECT_EQ(last_of(events, 2).tokens, 60u);
  EXPECT_LT(last_of(events, 1).at, last_of(events, 2).at);
  EXPECT_EQ(engine.counters().generation_tokens, 120u);
  EXPECT_EQ(engine.counters().prompt_tokens, 20u);
}

TEST(EnginePreemption, ThePreemptedGoBeforeThoseWhoWait) {
  EngineParams params = plain();
  params.kv_blocks = 20;
  params.max_num_seqs = 2;
  Engine engine(params);
  for (std::uint64_t id = 1; id <= 3; ++id) engine.submit(request(id, 10, 60), kStart);
  const auto events = run_out(engine);
  EXPECT_GE(engine.counters().preemptions, 1u);
  const auto first =
      std::find_if(events.begin(), events.end(), [](const EngineEvent& e) { return e.id == 3; });
  EXPECT_LT(last_of(events, 1).at, first->at);
  EXPECT_EQ(last_of(events, 2).finish, FinishReason::stop);
  EXPECT_LT(last_of(events, 2).at, last_of(events, 3).at);
}

TEST(Engine, ThroughputGrowsWithTheBatchAsStated) {
  // Alone a token takes 1.1 ms; with 8 sequences a step takes 1.8 ms and makes 8.
  for (const auto& [sequences, step] :
       std::map<std::uint64_t, Duration>{{1, 1100us}, {4, 1400us}, {8, 1800us}}) {
    Engine engine(plain());
    for (std::uint64_t id = 0; id < sequences; ++id) engine.submit(request(id, 1, 200), kStart);
    const auto events = run_out(engine);
    const Duration decoding = events.back().at - events.front().at;
    EXPECT_EQ(decoding, step * 199);
  }
}

TEST(EngineParams, AreChecked) {
  const auto refused = [](auto change) {
    EngineParams params;
    change(params);
    return !check(params).has_value();
  };
  EXPECT_TRUE(check(EngineParams{}).has_value());
  EXPECT_TRUE(check(plain()).has_value());
  EXPECT_TRUE(refused([](EngineParams& p) { p.speed = 0; }));
  EXPECT_TRUE(refused([](EngineParams& p) { p.speed = std::nan(""); }));
  EXPECT_TRUE(refused([](EngineParams& p) { p.t_base = -1ns; }));
  EXPECT_TRUE(refused([](EngineParams& p) { p.max_num_seqs = 0; }));
  EXPECT_TRUE(refused([](EngineParams& p) { p.max_num_batched_tokens = 255; }));
  EXPECT_TRUE(refused([](EngineParams& p) { p.block_size = 0; }));
  EXPECT_TRUE(refused([](EngineParams& p) { p.kv_blocks = 0; }));
  EXPECT_TRUE(refused([](EngineParams& p) { p.max_model_len = 1; }));
}

// Random traffic.

struct Action {
  enum Kind { submit, cancel, speed, wait } kind;
  std::uint32_t id;      // of the request to cancel; family of prompts to submit from
  std::uint32_t prompt;  // tokens
  std::uint32_t output;
  std::int64_t pause_us;
};

// rapidcheck finds it by this name. NOLINTNEXTLINE(readability-identifier-naming)
[[maybe_unused]] void showValue(const Action& action, std::ostream& out) {
  out << "{kind " << action.kind << ", id " << action.id << ", prompt " << action.prompt << ", output "
      << action.output << ", pause " << action.pause_us << "us}";
}

rc::Gen<std::vector<Action>> traffic() {
  const auto action = rc::gen::build<Action>(
      rc::gen::set(&Action::kind,
                   rc::gen::weightedElement<Action::Kind>(
                       {{6, Action::submit}, {1, Action::cancel}, {1, Action::speed}, {2, Action::wait}})),
      rc::gen::set(&Action::id, rc::gen::inRange(0u, 40u)),
      rc::gen::set(&Action::prompt, rc::gen::inRange(0u, 120u)),
      rc::gen::set(&Action::output, rc::gen::inRange(0u, 40u)),
      rc::gen::set(&Action::pause_us, rc::gen::inRange<std::int64_t>(0, 4000)));
  return rc::gen::scale(2.0, rc::gen::container<std::vector<Action>>(action));
}

rc::Gen<EngineParams> small_engines() {
  return rc::gen::map(
      rc::gen::tuple(rc::gen::inRange(1u, 6u), rc::gen::inRange(6u, 60u), rc::gen::inRange(2u, 60u),
                     rc::gen::inRange(1u, 8u), rc::gen::arbitrary<bool>()),
      [](const auto& drawn) {
        EngineParams params = plain();
        params.t_kv_ns = 50;
        params.t_attention_ns = 10;
        std::tie(params.max_num_seqs, params.max_num_batched_tokens, params.kv_blocks, params.block_size,
                 params.prefix_caching) = drawn;
        return params;
      });
}

struct Played {
  std::vector<EngineEvent> events;
  EngineCounters counters;
  std::map<std::uint64_t, EngineRequest> accepted;  // answers cut to the context, canceled ones removed
};

void check_conservation(const Engine& engine) {
  const EngineCounters& c = engine.counters();
  RC_ASSERT(c.submitted == c.refused + c.canceled + c.finished + engine.waiting() + engine.running());
  RC_ASSERT(engine.running() <= engine.params().max_num_seqs);
  RC_ASSERT(engine.kv_usage() <= 1.0);
  if (engine.running() == 0) RC_ASSERT(engine.cache().used() == 0u);
}

Played play(const EngineParams& params, const std::vector<Action>& actions, bool eager) {
  Engine engine(params);
  Played outcome;
  Instant now = kStart;
  std::uint64_t next_id = 0;
  const auto advance = [&] {
    if (!eager) return engine.advance(now, outcome.events);
    while (engine.next_event() <= now) engine.advance(engine.next_event(), outcome.events);
  };
  for (const Action& action : actions) {
    if (action.kind == Action::submit) {
      // Known beyond the prompt, so that longer prompts of the family find answers in the cache too.
      EngineRequest made = request(next_id++, action.prompt, action.output);
      made.blocks =
          prompt_blocks(filler_text(action.id % 3, action.prompt + action.output), params.block_size);
      if (engine.submit(made, now) == Refusal::none) {
        made.output_tokens = std::min(made.output_tokens, engine.context_tokens() - made.prompt_tokens);
        outcome.accepted[made.id] = made;
      }
    } else if (action.kind == Action::cancel) {
      if (engine.cancel(action.id, now)) outcome.accepted.erase(action.id);
    } else if (action.kind == Action::speed) {
      engine.set_speed(1.0 + action.id, now);
    }
    check_conservation(engine);
    now += std::chrono::microseconds(action.pause_us);
    advance();
    RC_ASSERT(engine.next_event() > now);
    check_conservation(engine);
  }
  now += 1h;
  advance();
  RC_ASSERT(engine.next_event() == Engine::kNever);
  check_conservation(engine);
  RC_ASSERT(engine.running() + engine.waiting() == 0u);
  outcome.counters = engine.counters();
  return outcome;
}

RC_GTEST_PROP(EngineProperty, EveryRequestGetsExactlyItsTokensInOrder, ()) {
  const EngineParams params = *small_engines();
  const Played outcome = play(params, *traffic(), false);
  std::map<std::uint64_t, EngineEvent> last;
  Instant time = kStart;
  for (const EngineEvent& event : outcome.events) {
    RC_ASSERT(event.at >= time);
    time = event.at;
    const auto before = last.find(event.id);
    if (before != last.end()) {
      RC_ASSERT(before->second.finish == FinishReason::none);
      RC_ASSERT(event.tokens == before->second.tokens + 1);
      RC_ASSERT(event.at > before->second.at);
      RC_ASSERT(event.cached_tokens == before->second.cached_tokens);
    } else {
      RC_ASSERT(event.tokens <= 1u);
    }
    last[event.id] = event;
  }
  for (const auto& [id, accepted] : outcome.accepted) {
    RC_ASSERT(last.contains(id));
    RC_ASSERT(last[id].tokens == accepted.output_tokens);
    RC_ASSERT(last[id].finish != FinishReason::none);
    RC_ASSERT(last[id].cached_tokens % params.block_size == 0u);
    RC_ASSERT(last[id].cached_tokens < accepted.prompt_tokens);
  }
  RC_CLASSIFY(outcome.counters.preemptions > 0, "preempted");
  RC_CLASSIFY(outcome.counters.prefix_hit_tokens > 0, "prefix hits");
}

RC_GTEST_PROP(EngineProperty, WithRoomForAllThePrefixFoundIsTheLongestSeen, ()) {
  EngineParams params = plain();
  params.kv_blocks = 10'000;
  Engine engine(params);
  const auto prompts = *rc::gen::container<std::vector<std::vector<int>>>(
      rc::gen::nonEmpty(rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 2))));
  std::vector<std::string> seen;
  for (const std::vector<int>& pieces : prompts) {
    std::string text;
    for (const int piece : pieces) text += filler_text(static_cast<std::uint64_t>(piece), 3);
    std::size_t longest = 0;
    for (const std::string& other : seen) {
      const auto parted = std::mismatch(text.begin(), text.end(), other.begin(), other.end()).first;
      longest = std::max(longest, static_cast<std::size_t>(parted - text.begin()) / 16);
    }
    longest = std::min(longest, (count_tokens(text.size()) - 1) / 4);
    engine.submit(request_of(seen.size(), text, 1, 4), kStart + 1h * seen.size());
    RC_ASSERT(run_out(engine).back().cached_tokens == longest * 4);
    seen.push_back(text);
  }
}

RC_GTEST_PROP(EngineProperty, TheSameCallsGiveTheSameEventsHoweverOftenAdvanced, ()) {
  const EngineParams params = *small_engines();
  const auto actions = *traffic();
  const Played one = play(params, actions, false);
  const Played two = play(params, actions, true);
  RC_ASSERT(one.events.size() == two.events.size());
  for (std::size_t i = 0; i < one.events.size(); ++i) {
    RC_ASSERT(one.events[i].at == two.events[i].at);
    RC_ASSERT(one.events[i].id == two.events[i].id);
    RC_ASSERT(one.events[i].tokens == two.events[i].tokens);
    RC_ASSERT(one.events[i].cached_tokens == two.events[i].cached_tokens);
  }
}

RC_GTEST_PROP(EngineProperty, ReportingOnlyTheEndsChangesNothingElse, ()) {
  const EngineParams params = *small_engines();
  const auto outputs = *rc::gen::container<std::vector<std::uint32_t>>(rc::gen::inRange(0u, 30u));
  std::map<std::uint64_t, Instant> ends[2];
  for (const bool every_token : {false, true}) {
    Engine engine(params);
    for (std::uint64_t id = 0; id < outputs.size(); ++id) {
      EngineRequest made = request(id, 2, outputs[id]);
      made.every_token = every_token;
      engine.submit(made, kStart);
    }
    for (const EngineEvent& event : run_out(engine)) {
      if (!every_token) RC_ASSERT(event.tokens <= 1u || event.finish != FinishReason::none);
      if (event.finish != FinishReason::none) ends[every_token][event.id] = event.at;
    }
  }
  RC_ASSERT(ends[0] == ends[1]);
}

RC_GTEST_PROP(EngineProperty, ThroughputScalesWithTheSpeed, ()) {
  EngineParams params = *small_engines();
  const auto speed = static_cast<double>(*rc::gen::inRange(1, 1000)) / 100;
  const auto prompts =
      *rc::gen::nonEmpty(rc::gen::container<std::vector<std::uint32_t>>(rc::gen::inRange(1u, 100u)));
  double seconds[2];
  std::uint64_t steps[2];
  for (int i = 0; i < 2; ++i) {
    params.speed = i == 0 ? 1 : speed;
    Engine engine(params);
    for (std::uint64_t id = 0; id < prompts.size(); ++id) engine.submit(request(id, prompts[id], 20), kStart);
    run_out(engine);
    seconds[i] = to_seconds(engine.counters().busy);
    steps[i] = engine.counters().steps;
  }
  RC_ASSERT(steps[0] == steps[1]);
  RC_ASSERT(std::abs(seconds[0] - seconds[1] * speed) <=
            1e-6 * seconds[0] + 1e-8 * static_cast<double>(steps[0]));
}

}  // namespace
}  // namespace heng
