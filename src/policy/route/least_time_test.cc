// What least_time weighs: waiting, what is cached, measured speeds, and what other gateways may have done.
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>

#include "policy/route/explain.h"
#include "policy/route/reference_scene.h"

namespace heng {
namespace {

using Scene = ReferenceScene;

/// Sends, answers and ends a request; the worker says that it had `cached` tokens.
void serve(Scene& scene, Slot worker, const Scene::Prompt& prompt, double cached, Duration first = 100ms,
           double answer = 100) {
  const std::uint64_t request = scene.send(worker, prompt);
  AttemptEvent event{.kind = AttemptEvent::Kind::first_byte,
                     .worker = worker,
                     .request = request,
                     .time_to_first_byte = first};
  scene.tell(event);
  event.kind = AttemptEvent::Kind::ended;
  event.elapsed = first + 1s;
  event.prompt_tokens = prompt.tokens;
  event.cached_tokens = cached;
  event.output_tokens = answer;
  scene.tell(event);
}

TEST(LeastTime, GoesWhereNobodyWaits) {
  Scene scene("least_time", 2);
  scene.send(0, Scene::tokens(4000));
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{1});
}

TEST(LeastTime, TokensThatWaitCountNotRequests) {
  Scene scene("least_time", 2);
  scene.send(0, Scene::tokens(8000));
  for (int i = 0; i < 4; ++i) scene.send(1, Scene::tokens(200));
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{1});
}

/// A worker that many are waiting for must not look cheap because few are decoding there.
TEST(LeastTime, StreamsDoNotOutweighAQueue) {
  Scene scene("least_time", 2);
  for (int i = 0; i < 100; ++i) scene.first_byte(1, scene.send(1, Scene::tokens(1000)));
  for (int i = 0; i < 20; ++i) scene.send(0, Scene::tokens(1000));
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{1});
}

TEST(LeastTime, CachedPromptsAttractUntilTheQueueCostsMore) {
  Scene scene("least_time", 2);
  serve(scene, 0, Scene::prompt(1, 40), 0);
  EXPECT_EQ(scene.choices(Scene::prompt(1, 44)), Slots{0});
  scene.send(0, Scene::tokens(1000));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 44)), Slots{0});
  scene.send(0, Scene::tokens(20000));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 44)), Slots{1});
}

TEST(LeastTime, AnswersTakeRoomInTheCacheAsPromptsDo) {
  const auto room_beside_ten = [](double answer) {
    Scene scene("least_time", 2);
    for (int i = 0; i < 20; ++i) serve(scene, 0, Scene::tokens(1000), 0, 100ms, answer);
    for (int i = 0; i < 10; ++i) scene.first_byte(1, scene.send(1, Scene::tokens(1000)));
    const auto terms = scene.explain(Scene::tokens(1000))[1].terms;
    return std::ranges::find(terms, "room_s", [](const auto& term) { return std::string_view(term.name); })
        ->value;
  };
  EXPECT_NEAR(room_beside_ten(9000) / room_beside_ten(1000), 5, 0.1);
}

TEST(LeastTime, WhoKeepsSomebodyWaitingForLongerThanExpectedWillDoSoAgain) {
  Scene scene("least_time", 2);
  scene.send(0, Scene::tokens(1000));
  scene.wait(10s);
  for (int i = 0; i < 10; ++i) scene.send(1, Scene::tokens(1000));
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{1});
}

TEST(LeastTime, AFullCacheCountsAsLongAsItIsReported) {
  Scene scene("least_time", 2);
  for (int i = 0; i < 5; ++i) scene.first_byte(1, scene.send(1, Scene::tokens(1000)));
  scene.report(0, 0, 0.5);
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{0});
  scene.report(0, 0, 1);
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{1});
  scene.wait(11s);
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{0});
}

TEST(LeastTime, LongContextsCostMoreThanTheirTokens) {
  Scene scene("least_time", 2);
  scene.send(0, Scene::tokens(40000));
  for (int i = 0; i < 45; ++i) scene.send(1, Scene::tokens(1000));
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{1});
}

TEST(LeastTime, SlowWorkersAreLearned) {
  Scene scene("least_time", 2);
  for (int i = 0; i < 40; ++i) {
    serve(scene, 0, Scene::tokens(2000), 0, 800ms);
    serve(scene, 1, Scene::tokens(2000), 0, 200ms);
  }
  scene.send(1,
             Scene::tokens(2000));  // the fast one is done with it before the slow one would begin to answer
  EXPECT_EQ(scene.choices(Scene::tokens(2000)), Slots{1});
}

/// An answer of 300 tokens that comes as a whole after `elapsed`.
void answer_whole(Scene& scene, Slot worker, Duration elapsed) {
  const std::uint64_t request = scene.send(worker, Scene::tokens(100), false);
  scene.wait(elapsed);
  scene.tell({.kind = AttemptEvent::Kind::first_byte,
              .worker = worker,
              .request = request,
              .time_to_first_byte = elapsed});
  scene.tell({.kind = AttemptEvent::Kind::ended,
              .worker = worker,
              .request = request,
              .elapsed = elapsed,
              .time_to_first_byte = elapsed,
              .prompt_tokens = 100,
              .output_tokens = 300});
}

TEST(LeastTime, TheTimeOfAWholeAnswerIsNotThatOfItsPrompt) {
  Scene scene("least_time", 2);
  answer_whole(scene, 0, 4s);  // and nothing is known of the other
  for (int i = 0; i < 20; ++i) serve(scene, 1, Scene::tokens(1000), 0, 120ms);
  scene.send(1, Scene::tokens(1000));
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{0});
}

TEST(LeastTime, SlowWorkersAreLearnedFromWholeAnswersToo) {
  Scene scene("least_time", 2);
  for (int i = 0; i < 40; ++i) {
    answer_whole(scene, 0, 16s);
    answer_whole(scene, 1, 4s);
  }
  scene.send(1, Scene::tokens(1000), false);
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{1});
}

TEST(LeastTime, WhoeverAnswersAsAWholeWaitsNoLongerThanItsPromptTakes) {
  Scene scene("least_time", 2);
  for (int i = 0; i < 3; ++i) scene.send(0, Scene::tokens(8000), false);
  scene.first_byte(1, scene.send(1, Scene::tokens(8000)));
  for (int i = 0; i < 4; ++i) scene.first_byte(1, scene.send(1, Scene::tokens(8000)));
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{1});
  scene.wait(20s);  // they decode by now, and the other one has more to do
  EXPECT_LT(scene.explain(Scene::tokens(1000))[0].cost, scene.explain(Scene::tokens(1000))[1].cost);
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{0});
}

TEST(LeastTime, AWorkerNotHeardOfForLongIsTriedAgain) {
  Scene scene("least_time", 2);
  for (int i = 0; i < 3; ++i) serve(scene, 0, Scene::tokens(1000), 0, 20s);  // a bad start
  scene.send(1, Scene::tokens(1000));
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{1});
  int served = 0;
  for (; served < 5000 && scene.choices(Scene::tokens(1000)) == Slots{1}; ++served)
    serve(scene, 1, Scene::tokens(1000), 0, 120ms);
  EXPECT_LT(served, 5000);
}

TEST(LeastTime, AWorkerNotHeardOfIsTakenToBeLikeTheOthers) {
  Scene scene("least_time", 2);
  for (int i = 0; i < 40; ++i) serve(scene, 0, Scene::tokens(2000), 0, 1s);
  scene.send(0, Scene::tokens(2000));
  for (int i = 0; i < 2; ++i) scene.send(1, Scene::tokens(2000));
  EXPECT_EQ(scene.choices(Scene::tokens(2000)), Slots{0});
}

TEST(LeastTime, GatewaysThatKnowNothingOfEachOtherAgree) {
  Scene one("least_time", 8), two("least_time", 8);
  Slots homes;
  for (int text = 0; text < 50; ++text) {
    const auto prompt = Scene::prompt(100 * text, 100 * text + 20);
    const Slots chosen = one.choices(prompt);
    EXPECT_EQ(chosen.size(), 1U);
    EXPECT_EQ(two.choices(prompt), chosen);
    homes.merge(Slots(chosen));
  }
  EXPECT_EQ(homes.size(), 8U);
}

TEST(LeastTime, ATextThatGoesOnHasTheSameHomeThoughOthersBeginAlike) {
  Scene first("least_time", 8), later("least_time", 8);
  for (Scene* scene : {&first, &later}) {
    for (int text = 0; text < 5; ++text) {  // both know the beginning that many share
      Scene::Prompt prompt = Scene::prompt(1, 8);
      for (std::uint64_t block = 0; block < 4; ++block)
        prompt.blocks.push_back(combine(mix(static_cast<std::uint64_t>(text)), block));
      prompt.tokens = 64 * 12;
      serve(*scene, static_cast<Slot>(text), prompt, 0);
    }
  }
  int apart = 0;
  for (int text = 0; text < 30; ++text) {
    const auto turn = [&](int blocks) {
      Scene::Prompt prompt = Scene::prompt(1, 8);
      for (int block = 0; block < blocks; ++block)
        prompt.blocks.push_back(
            combine(static_cast<std::uint64_t>(1000 + text), static_cast<std::uint64_t>(block)));
      prompt.tokens = Scene::kBlockTokens * static_cast<double>(prompt.blocks.size());
      return prompt;
    };
    apart += first.choose(turn(20)) != later.choose(turn(40)) ? 1 : 0;
  }
  EXPECT_EQ(apart, 0);
}

/// Where nothing is ever found that this gateway did not send, the home has no pull and load decides.
TEST(LeastTime, TextsThatNobodySharesAreAtHomeNowhere) {
  Scene scene("least_time", 4);
  int next = 0;
  const auto fresh = [&] { return next += 100, Scene::prompt(next, next + 20); };
  for (int i = 0; i < 4000; ++i) {
    const auto prompt = fresh();
    serve(scene, scene.choose(prompt), prompt, 0);
  }
  for (Slot busy = 0; busy < 4; ++busy) scene.send(busy, Scene::tokens(busy == 2 ? 10 : 300));
  int idle = 0;
  for (int i = 0; i < 50; ++i) idle += scene.choose(fresh()) == 2 ? 1 : 0;
  EXPECT_EQ(idle, 50);
}

TEST(LeastTime, ExplainsItsChoiceInSeconds) {
  Scene scene("least_time", 4);
  serve(scene, 1, Scene::prompt(1, 30), 0);
  scene.send(3, Scene::tokens(3000));
  const auto prompt = Scene::prompt(1, 40);
  const std::vector<Candidate> candidates = scene.explain(prompt);
  ASSERT_EQ(candidates.size(), 4U);
  const Candidate* least = &candidates.front();
  for (const Candidate& candidate : candidates) {
    double sum = 0;
    for (const CostTerm& term : candidate.terms) sum += term.name.ends_with("_s") ? term.value : 0;
    EXPECT_DOUBLE_EQ(*candidate.cost, sum);  // all weights are 1
    if (*candidate.cost < *least->cost) least = &candidate;
  }
  EXPECT_EQ(scene.choices(prompt), Slots{least->worker});
}

}  // namespace
}  // namespace heng
