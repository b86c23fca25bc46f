// Decisions of smg_least_load that follow from its source by hand.
#include <gtest/gtest.h>

#include "policy/route/reference_scene.h"

namespace heng {
namespace {

using Scene = ReferenceScene;

TEST(SmgLeastLoad, WaitingTokensAndTheBarrierAreSeconds) {
  Scene scene("smg_least_load", 2);
  // 2 x 1024 / 2000 + 0.15 x 0.5 / 0.5 = 1.174 s against 1024 / 2000 + 0.15 x 0.88 / 0.12 = 1.612 s.
  scene.report(0, 2, 0.5F), scene.report(1, 1, 0.88F);
  EXPECT_EQ(scene.choices(Scene::tokens(100)), Slots{0});
  // 0.512 + 0.15 x 0.8 / 0.2 = 1.112 s.
  scene.report(1, 1, 0.8F);
  EXPECT_EQ(scene.choices(Scene::tokens(100)), Slots{1});
}

TEST(SmgLeastLoad, FullCacheIsFinite) {
  Scene scene("smg_least_load", 2);
  // 0.15 x 0.999 / 0.001 = 149.85 s against 293 x 0.512 = 150.016 s, then 292 x 0.512 = 149.504 s.
  scene.report(0, 0, 1), scene.report(1, 293, 0);
  EXPECT_EQ(scene.choices(Scene::tokens(100)), Slots{0});
  scene.report(1, 292, 0);
  EXPECT_EQ(scene.choices(Scene::tokens(100)), Slots{1});
}

TEST(SmgLeastLoad, TokensSentCountUntilTheNextReport) {
  Scene scene("smg_least_load", 2);
  scene.report(0, 0, 0), scene.report(1, 0, 0);
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), (Slots{0, 1}));
  scene.send(0, Scene::tokens(1000));  // 0.5 s
  scene.send(1, Scene::tokens(900));   // 0.45 s
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{1});
  scene.send(1, Scene::tokens(100));  // 0.5 s
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), (Slots{0, 1}));
  scene.report(1, 0, 0);
  EXPECT_EQ(scene.choices(Scene::tokens(1000)), Slots{1});
}

TEST(SmgLeastLoad, UnknownLengthIsAMeanPrompt) {
  Scene scene("smg_least_load", 2);
  scene.report(0, 0, 0), scene.report(1, 0, 0);
  scene.send(0, Scene::tokens(0));
  scene.send(1, Scene::tokens(1025));  // 1024 there, so the other has less
  EXPECT_EQ(scene.choices(Scene::tokens(0)), Slots{0});
}

TEST(SmgLeastLoad, ShortestQueueWhileNobodyReports) {
  Scene scene("smg_least_load", 3);
  scene.send(0, Scene::tokens(1)), scene.send(0, Scene::tokens(1));
  scene.send(1, Scene::tokens(50000));
  scene.send(2, Scene::tokens(1));
  EXPECT_EQ(scene.choices(Scene::tokens(1)), (Slots{1, 2}));
}

TEST(SmgLeastLoad, UnknownLoadIsThatOfTheBestKnownAndItsOwnRequests) {
  Scene scene("smg_least_load", 3);
  scene.report(0, 1, 0), scene.report(1, 2, 0);  // 0.512 and 1.024 s
  EXPECT_EQ(scene.choices(Scene::tokens(1)), (Slots{0, 2}));
  scene.send(2, Scene::tokens(1));  // 0.512 + 1024 / 2000
  EXPECT_EQ(scene.choices(Scene::tokens(1)), Slots{0});
  scene.send(0, Scene::tokens(1024));  // 1.024 s too; the unknown one follows the best known, now 1.024 s
  EXPECT_EQ(scene.choices(Scene::tokens(1)), (Slots{0, 1}));
}

}  // namespace
}  // namespace heng
