// Decisions of dynamo_kv that follow from its source by hand. A block of the prompts here is 4 KV blocks.
#include <gtest/gtest.h>

#include "policy/route/reference_scene.h"

namespace heng {
namespace {

using Scene = ReferenceScene;

/// A request whose first byte has come.
void decode(Scene& scene, Slot worker, const Scene::Prompt& prompt) {
  scene.first_byte(worker, scene.send(worker, prompt));
}

/// Worker 0 has 32 of the prompt's 40 KV blocks and decodes a request of `blocks` blocks of prompt.
void warm_and_busy(Scene& scene, int blocks) {
  scene.serve(0, Scene::prompt(1, 8));
  decode(scene, 0, Scene::tokens(16 * blocks));
}

TEST(DynamoKv, BlocksToPrefillAndBlocksInUse) {
  for (const auto& [blocks, chosen] : {std::pair{31, Slots{0}}, {32, Slots{0, 1}}, {33, Slots{1}}}) {
    Scene scene("dynamo_kv", 2);
    warm_and_busy(scene, blocks);
    // (40 - 32) + blocks + 40 against 40 + 0 + 40.
    EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), chosen) << blocks;
  }
}

TEST(DynamoKv, WhatIsLeftOverIsPrefilledButNotInUse) {
  Scene scene("dynamo_kv", 2);
  scene.send(0, Scene::tokens(31));  // 31 / 16 + 1 blocks
  scene.send(1, Scene::tokens(32));  // 2 + 2 blocks
  EXPECT_EQ(scene.choices(Scene::tokens(160)), Slots{0});
  scene.send(0, Scene::tokens(9));  // + 9 / 16: 3.5
  EXPECT_EQ(scene.choices(Scene::tokens(160)), Slots{0});
  scene.send(0, Scene::tokens(8));  // 4
  EXPECT_EQ(scene.choices(Scene::tokens(160)), (Slots{0, 1}));
}

TEST(DynamoKv, BlocksInUseAreSharedAndPromptsWaitUntilTheFirstByte) {
  Scene scene("dynamo_kv", 2);
  const std::uint64_t request = scene.send(0, Scene::prompt(1, 8));
  // (32 + 40 - 32) + 32 + (40 - 32) = 80 against 80.
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), (Slots{0, 1}));
  scene.first_byte(0, request);  // 48
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), Slots{0});
  decode(scene, 0, Scene::tokens(16 * 32));  // 80
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), (Slots{0, 1}));
}

TEST(DynamoKv, ASharedBlockIsInUseUntilItsLastRequestEnds) {
  Scene scene("dynamo_kv", 2, {{"overlap_score_credit", 0}});
  const std::uint64_t first = scene.send(0, Scene::prompt(1, 8));
  const std::uint64_t second = scene.send(0, Scene::prompt(1, 4));
  scene.first_byte(0, first), scene.first_byte(0, second);
  decode(scene, 1, Scene::tokens(16 * 32));
  EXPECT_EQ(scene.choices(Scene::tokens(16)), (Slots{0, 1}));  // 32 blocks in use on both
  scene.end(0, second);
  EXPECT_EQ(scene.choices(Scene::tokens(16)), (Slots{0, 1}));
  scene.send(0, Scene::prompt(1, 4));
  scene.end(0, first);  // 16 in use and, without credit, 16 waiting
  EXPECT_EQ(scene.choices(Scene::tokens(16)), Slots{0});
}

TEST(DynamoKv, ANewWorkerInTheSlotKeepsItsOwnBlocks) {
  Scene scene("dynamo_kv", 2);
  const std::uint64_t old = scene.send(0, Scene::prompt(1, 8));
  scene.pool.remove(0);
  ASSERT_EQ(scene.pool.add(), 0U);
  decode(scene, 0, Scene::prompt(1, 8)), decode(scene, 1, Scene::tokens(16 * 31));
  EXPECT_EQ(scene.choices(Scene::tokens(160)), Slots{1});  // 32 against 31 blocks
  scene.end(0, old);
  EXPECT_EQ(scene.choices(Scene::tokens(160)), Slots{1});
}

TEST(DynamoKv, OnlyTheUncachedPartWaits) {
  Scene scene("dynamo_kv", 2);
  scene.serve(0, Scene::prompt(1, 8));
  scene.send(0, Scene::prompt(1, 10));    // 8 waiting, 40 in use
  scene.send(1, Scene::tokens(16 * 24));  // 24 + 24
  EXPECT_EQ(scene.choices(Scene::tokens(160)), (Slots{0, 1}));
}

TEST(DynamoKv, CreditDecaysWithWhatWaitsThere) {
  for (const auto& [decay, chosen] : {std::pair{0, Slots{0}}, {1, Slots{1}}}) {
    Scene scene("dynamo_kv", 2, {{"overlap_score_credit_decay", decay}});
    scene.serve(0, Scene::prompt(1, 10));
    scene.send(0, Scene::tokens(640));  // one more request of this size to prefill
    decode(scene, 1, Scene::tokens(16 * 50));
    // (80 - 40) + 40 + 40 = 120, with half the credit 140, against 40 + 50 + 40 = 130.
    EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), chosen) << decay;
  }
}

TEST(DynamoKv, PrefillScaleAndCreditAreWeights) {
  for (const auto& [scale, chosen] : {std::pair{1.0, Slots{1}}, {2.0, Slots{0, 1}}, {2.5, Slots{0}}}) {
    Scene scene("dynamo_kv", 2, {{"prefill_load_scale", scale}});
    warm_and_busy(scene, 64);  // 8 scale + 64 + 40 against 40 scale + 40
    EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), chosen) << scale;
  }
  Scene scene("dynamo_kv", 2, {{"overlap_score_credit", 5}});
  warm_and_busy(scene, 40);  // no less than 0 to prefill: 0 + 80 against 80
  EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), (Slots{0, 1}));
}

TEST(DynamoKv, LmetricMultiplies) {
  for (const auto& [blocks, chosen] : {std::pair{163, Slots{0}}, {164, Slots{0, 1}}, {165, Slots{1}}}) {
    Scene scene("dynamo_kv", 2, {{"lmetric", 1}});
    warm_and_busy(scene, blocks);
    // (40 - 32) x (blocks + 40 + 1) against 40 x (40 + 1) = 1640.
    EXPECT_EQ(scene.choices(Scene::prompt(1, 10)), chosen) << blocks;
  }
}

TEST(DynamoKv, TemperatureDrawsByNormalisedCost) {
  Scene scene("dynamo_kv", 2, {{"temperature", 1}});
  decode(scene, 1, Scene::tokens(16 * 500));
  int first = 0;
  for (int i = 0; i < 20000; ++i) first += scene.choose(Scene::tokens(160)) == 0 ? 1 : 0;
  EXPECT_NEAR(first / 20000.0, 1 / (1 + std::exp(-1)), 0.015);  // costs 0 and 1, whatever their difference
}

}  // namespace
}  // namespace heng
