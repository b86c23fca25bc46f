// Decisions of llmd_sticky that follow from its source by hand.
#include <gtest/gtest.h>

#include "policy/route/reference_scene.h"

namespace heng {
namespace {

using Scene = ReferenceScene;

TEST(LlmdSticky, StaysWhereFourFifthsAreCached) {
  Scene scene("llmd_sticky", 3);
  scene.serve(1, Scene::prompt(1, 8));
  scene.send(1, Scene::tokens(5000));  // 0.31 s behind
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});
  EXPECT_EQ(scene.choices(Scene::prompt(1, 11)), (Slots{0, 2}));  // 8 / 11 < 0.8: 704 against 5192 tokens
}

TEST(LlmdSticky, FewestUncachedTokensOfThoseThatAreLeft) {
  Scene scene("llmd_sticky", 3);
  scene.serve(1, Scene::prompt(1, 7));
  scene.send(0, Scene::tokens(500)), scene.send(1, Scene::tokens(900)), scene.send(2, Scene::tokens(600));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});  // 500 + 640, 900 + 192, 600 + 640
  scene.send(1, Scene::tokens(48));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), (Slots{0, 1}));  // 1140 both
  scene.send(1, Scene::tokens(1));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});
}

TEST(LlmdSticky, LeavesASaturatedWorker) {
  Scene scene("llmd_sticky", 3);
  scene.serve(1, Scene::prompt(1, 10));
  scene.send(0, Scene::tokens(1000)), scene.send(2, Scene::tokens(2000));
  scene.send(1, Scene::tokens(18 * 15928 + 1000));  // 18 s more than the least loaded other: not yet
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});
  scene.send(1, Scene::tokens(1));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});  // 1640 against 2640 and 287705 tokens
}

TEST(LlmdSticky, TheLeastLoadedStickyWorkerCounts) {
  Scene scene("llmd_sticky", 3);
  for (const Slot slot : {1, 2}) scene.serve(slot, Scene::prompt(1, 10));
  scene.send(1, Scene::tokens(1e6)), scene.send(2, Scene::tokens(1000));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{2});
  scene.serve(0, Scene::prompt(1, 10));
  scene.send(2, Scene::tokens(1e6));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});
}

TEST(LlmdSticky, TokensWaitUntilTheFirstByteOrTheEnd) {
  Scene scene("llmd_sticky", 2);
  const std::uint64_t first = scene.send(0, Scene::tokens(1000));
  const std::uint64_t second = scene.send(1, Scene::tokens(900));
  EXPECT_EQ(scene.choices(Scene::tokens(10)), Slots{1});
  scene.first_byte(0, first);
  EXPECT_EQ(scene.choices(Scene::tokens(10)), Slots{0});
  scene.end(0, first), scene.end(1, second);  // that one failed
  EXPECT_EQ(scene.choices(Scene::tokens(10)), (Slots{0, 1}));
}

TEST(LlmdSticky, ANewWorkerInTheSlotKeepsItsOwnTokens) {
  Scene scene("llmd_sticky", 2);
  const std::uint64_t old = scene.send(0, Scene::tokens(1000));
  scene.pool.remove(0);
  ASSERT_EQ(scene.pool.add(), 0U);
  scene.send(0, Scene::tokens(500)), scene.send(1, Scene::tokens(400));
  scene.end(0, old);
  EXPECT_EQ(scene.choices(Scene::tokens(10)), Slots{1});
}

TEST(LlmdSticky, CachedPartsDoNotWait) {
  Scene scene("llmd_sticky", 2);
  scene.serve(0, Scene::prompt(1, 10));
  scene.send(0, Scene::prompt(1, 12));  // 128 tokens
  scene.send(1, Scene::tokens(128));
  EXPECT_EQ(scene.choices(Scene::tokens(10)), (Slots{0, 1}));
}

TEST(LlmdSticky, NeverLeavesWithoutAPenaltyAndMayGoByRequests) {
  Scene scene("llmd_sticky", 2, {{"max_ttft_penalty_s", 0}});
  scene.serve(1, Scene::prompt(1, 10));
  scene.send(1, Scene::tokens(1e8));
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{1});

  Scene requests("llmd_sticky", 3, {{"by_requests", 1}});
  requests.send(0, Scene::tokens(1)), requests.send(0, Scene::tokens(1));
  requests.send(1, Scene::tokens(9000)), requests.send(2, Scene::tokens(1));
  EXPECT_EQ(requests.choices(Scene::tokens(10)), (Slots{1, 2}));
}

}  // namespace
}  // namespace heng
