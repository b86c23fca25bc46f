// Decisions of smg_cache_aware that follow from its source by hand.
#include <gtest/gtest.h>

#include "policy/route/reference_scene.h"

namespace heng {
namespace {

using Scene = ReferenceScene;

TEST(SmgCacheAware, MissGoesByLoadThenRequestsSoFarThenPlace) {
  Scene scene("smg_cache_aware", 3);
  EXPECT_EQ(scene.choices(Scene::prompt(1, 4)), Slots{0});
  scene.serve(0, Scene::tokens(100));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 4)), Slots{1});
  scene.send(1, Scene::tokens(100));
  scene.serve(2, Scene::tokens(100)), scene.serve(2, Scene::tokens(100));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 4)), Slots{0});  // (0, 1), (1, 1), (0, 2)
}

TEST(SmgCacheAware, MoreThanTheThresholdMustMatch) {
  Scene scene("smg_cache_aware", 3);
  scene.serve(2, Scene::prompt(1, 3));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});  // 192 / 640 = 0.3
  scene.serve(2, Scene::prompt(1, 4));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{2});
}

TEST(SmgCacheAware, LeastLoadedOfThoseWithTheLongestMatch) {
  Scene scene("smg_cache_aware", 4);
  scene.serve(0, Scene::prompt(1, 7));
  for (const Slot slot : {1, 2, 3}) scene.serve(slot, Scene::prompt(1, 8));
  scene.pool.in_flight = {0, 9, 7, 7};
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), (Slots{2, 3}));
}

TEST(SmgCacheAware, SpillsFarAboveTheMeanAndTheTargetBecomesAHolder) {
  Scene scene("smg_cache_aware", 4);
  scene.serve(3, Scene::prompt(1, 10));
  scene.pool.in_flight = {0, 0, 0, 85};  // 85 <= 85 / 4 + 64 = 85.25
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{3});
  scene.pool.in_flight = {0, 0, 0, 86};  // 86 > 85.5 and > 1.5 x 21.5
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});
  scene.send(0, Scene::prompt(1, 10));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});  // 1 in flight against 86
}

TEST(SmgCacheAware, SpillingTakesBothMargins) {
  Scene scene("smg_cache_aware", 2);
  scene.serve(0, Scene::prompt(1, 10));
  scene.pool.in_flight = {300, 170};  // 300 > 235 + 64, but 300 <= 1.5 x 235
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});
  scene.pool.in_flight = {128, 0};  // 128 > 1.5 x 64, but not > 64 + 64
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});
  scene.pool.in_flight = {600, 170};  // 600 > 385 + 64 and 600 > 577.5
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});
}

TEST(SmgCacheAware, WithoutAHealthyHolderTheFirstWorkerWhichIsNotLearned) {
  Scene scene("smg_cache_aware", 3);
  scene.serve(2, Scene::prompt(1, 10));
  scene.pool.set_healthy(2, false);
  scene.pool.in_flight = {7, 0, 0};
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});
  scene.send(0, Scene::prompt(1, 10));
  scene.pool.set_healthy(2, true);
  scene.pool.in_flight = {0, 0, 9};
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{2});
}

TEST(SmgCacheAware, SeesEightHolders) {
  Scene scene("smg_cache_aware", 10);
  for (Slot slot = 0; slot < 10; ++slot) scene.serve(slot, Scene::prompt(1, 10));
  scene.pool.in_flight = {5, 4, 5, 5, 5, 5, 5, 5, 0, 0};
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});  // which eight is up to SMG's map; here the first
}

TEST(SmgCacheAware, AFullCacheOrADifferenceTurnsMatchesOff) {
  Scene scene("smg_cache_aware", 2, {{"balance_token_usage_threshold", 0.5}});
  scene.serve(1, Scene::prompt(1, 10));
  scene.serve(0, Scene::tokens(1)), scene.serve(0, Scene::tokens(1));
  scene.pool.in_flight = {0, 1};
  scene.report(0, 0, 0.25F), scene.report(1, 0, 0.75F);
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});
  scene.report(1, 0, 0.76F);
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});

  Scene ceiling("smg_cache_aware", 2, {{"overload_token_usage_threshold", 0.75}});
  ceiling.serve(1, Scene::prompt(1, 10));
  ceiling.pool.in_flight = {0, 1};
  ceiling.report(0, 0, 0.7F), ceiling.report(1, 0, 0.75F);
  EXPECT_EQ(ceiling.choices(Scene::prompt(1, 10)), Slots{1});
  ceiling.report(0, 0, 0.76F);
  EXPECT_EQ(ceiling.choices(Scene::prompt(1, 10)), Slots{0});
}

TEST(SmgCacheAware, OneTreeForAllWorkersForgetsTheLeastRecentlyUsed) {
  Scene scene("smg_cache_aware", 3, {{"max_tree_tokens", 256}});
  scene.serve(1, Scene::prompt(1, 2));
  scene.serve(2, Scene::prompt(11, 12));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 2)), Slots{1});
  scene.serve(2, Scene::prompt(21, 22));  // 6 blocks, of which 4 stay
  EXPECT_EQ(scene.choices(Scene::prompt(1, 2)), Slots{0});
  EXPECT_EQ(scene.choices(Scene::prompt(11, 12)), Slots{2});
}

TEST(SmgCacheAware, ExpectedWaitDecidesTiesMissesAndSpills) {
  Scene scene("smg_cache_aware", 3, {{"expected_wait", 1}});
  scene.report(0, 3, 0), scene.report(1, 2, 0), scene.report(2, 1, 0);
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{2});
  scene.serve(0, Scene::prompt(1, 10)), scene.serve(1, Scene::prompt(1, 10));
  scene.pool.in_flight = {0, 5, 9};
  // Holders 0 and 1 have 3 x 0.512 + 0.32 and 2 x 0.512 + 0.32 s.
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});
  scene.pool.in_flight = {190, 190, 0};  // 190 <= 126.7 + 64
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});
  scene.pool.in_flight = {300, 301, 0};  // the mean is 200.3: 300 <= 300.5, 301 > 300.5
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});
  scene.pool.set_healthy(0, false), scene.pool.set_healthy(1, false);
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{2});
}

}  // namespace
}  // namespace heng
