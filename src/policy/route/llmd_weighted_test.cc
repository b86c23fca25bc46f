// Decisions of llmd_weighted that follow from its source by hand.
#include <gtest/gtest.h>

#include "policy/route/reference_scene.h"

namespace heng {
namespace {

using Scene = ReferenceScene;

TEST(LlmdWeighted, AddsQueueCacheAndPrefixScores) {
  Scene scene("llmd_weighted", 3);
  scene.serve(1, Scene::prompt(1, 5));
  scene.serve(2, Scene::prompt(1, 10));
  // 2 x 1 + 2 x 0.5 + 0 = 3; 2 x 0.5 + 2 x 0.9 + 3 x 0.5 = 4.3; 0 + 2 x 1 + 3 x 1 = 5.
  scene.report(0, 0, 0.5F), scene.report(1, 2, 0.1F), scene.report(2, 4, 0);
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{2});
  scene.report(2, 4, 0.5F);  // 4
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});
  EXPECT_EQ(scene.choices(Scene::prompt(11, 20)), Slots{0});  // 3 against 2.8 and 1
}

TEST(LlmdWeighted, EqualQueuesScoreOneAndTiesAreDrawn) {
  Scene scene("llmd_weighted", 3);
  scene.report(0, 7, 0.5F), scene.report(1, 7, 0.5F), scene.report(2, 7, 0.6F);
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), (Slots{0, 1}));
}

TEST(LlmdWeighted, WhoDoesNotReportGetsNoScoreForLoad) {
  Scene scene("llmd_weighted", 2);
  scene.serve(1, Scene::prompt(1, 7));
  scene.report(0, 9, 0.9F);  // its queue is the shortest and the longest: 2 + 0.2 against 3 x 0.7
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});
  scene.serve(1, Scene::prompt(1, 8));  // 2.4
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});
}

TEST(LlmdWeighted, RequestsInFlightStandForQueuesWhileNobodyReports) {
  Scene scene("llmd_weighted", 3);
  scene.pool.in_flight = {4, 3, 4};
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});
  scene.serve(2, Scene::prompt(1, 7));  // 2 x 0 + 3 x 0.7 against 2 x 1
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{2});
}

TEST(LlmdWeighted, ForgetsBeginningsFirstAndCountsBlocksAfterThem) {
  Scene scene("llmd_weighted", 2, {{"index_tokens", 128}});
  scene.serve(1, Scene::prompt(1, 3));  // blocks 2 and 3 stay
  EXPECT_EQ(scene.choices(Scene::prompt(1, 3)), (Slots{0, 1}));
  scene.serve(0, Scene::prompt(1, 1));  // now somebody has the first: 1 block against 2
  EXPECT_EQ(scene.choices(Scene::prompt(1, 3)), Slots{1});
}

TEST(LlmdWeighted, ColdPromptsTakeTurnsWithTheGuidesWeights) {
  Scene scene("llmd_weighted", 3, {{"no_hit_lru_weight", 2}});
  // Nobody has had one: 1, 1/2, 0 in the order of the list; then who has not, then who had it longest ago.
  for (const Slot slot : {0U, 1U, 2U, 0U}) {
    EXPECT_EQ(scene.choices(Scene::tokens(10)), Slots{slot});
    scene.serve(slot, Scene::tokens(10));
  }
  scene.serve(2, Scene::prompt(1, 3));
  // Warm ones take no turns: 3 x 0.15 decides, not that worker 1 had the last cold one longest ago.
  EXPECT_EQ(scene.choices(Scene::prompt(1, 20)), Slots{2});
}

}  // namespace
}  // namespace heng
