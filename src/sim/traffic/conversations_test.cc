// Which prompts are taken to repeat others, and what they consist of then.
#include "sim/traffic/conversations.h"

#include <gtest/gtest.h>

#include <utility>

#include "base/hash.h"
#include "base/rng.h"

namespace heng {
namespace {

using Pieces = std::vector<std::pair<std::uint64_t, std::uint32_t>>;

Pieces put(Conversations& conversations, std::vector<std::uint64_t> blocks, std::uint32_t prompt,
           std::uint32_t output) {
  Pieces pieces;
  for (const PromptPiece& piece : conversations.pieces(blocks, prompt, output))
    pieces.emplace_back(piece.id, piece.tokens);
  return pieces;
}

TEST(Conversations, TurnsRepeatAnswers) {
  Conversations conversations(10);
  EXPECT_EQ(put(conversations, {1, 2}, 28, 8), (Pieces{{1, 15}, {2, 10}, {mix(1), 11}}));
  // 36 tokens are known, the rest of the fourth block and what follows are not.
  EXPECT_EQ(put(conversations, {1, 2, 3, 4, 5}, 58, 30),
            (Pieces{{1, 15}, {2, 10}, {mix(1), 11}, {4, 9}, {5, 10}, {mix(2), 33}}));
  EXPECT_EQ(put(conversations, {1, 2, 3, 4, 5, 6, 7, 8, 9}, 90, 1),
            (Pieces{{1, 15}, {2, 10}, {mix(1), 11}, {4, 9}, {5, 10}, {mix(2), 33}, {9, 2}, {mix(3), 1}}));
  // Asked once more after the first turn.
  EXPECT_EQ(put(conversations, {1, 2, 3, 14}, 40, 1),
            (Pieces{{1, 15}, {2, 10}, {mix(1), 11}, {14, 4}, {mix(4), 1}}));
}

TEST(Conversations, CommonBeginningsAreNotRepeatedAnswers) {
  Conversations conversations(10);
  put(conversations, {1, 2}, 25, 8);
  EXPECT_EQ(put(conversations, {1, 2, 3}, 32, 5), (Pieces{{1, 15}, {2, 10}, {3, 7}, {mix(2), 5}}))
      << "too short to have the answer";
  EXPECT_EQ(put(conversations, {1, 2, 4, 5}, 40, 5).at(2).first, mix(1));
  EXPECT_EQ(put(conversations, {1, 2, 6, 7}, 40, 5).at(2).first, 6u) << "goes on differently";
  put(conversations, {8}, 15, 5);
  put(conversations, {8}, 12, 5);
  EXPECT_EQ(put(conversations, {8, 9, 10}, 30, 5).at(1).first, 9u) << "two ended there";
}

TEST(Conversations, HashesThatAreNotChainedDoNoHarm) {
  Conversations conversations(10);
  put(conversations, {1, 2, 3}, 30, 5);
  EXPECT_EQ(put(conversations, {3, 4}, 60, 1), (Pieces{{3, 15}, {4, 10}, {mix(2), 36}}));
}

TEST(ConversationsProperty, PiecesAreAsLongAsPromptAndAnswer) {
  Rng rng(3);
  Conversations conversations(10);
  for (int i = 0; i < 20'000; ++i) {
    std::vector<std::uint64_t> blocks(rng.below(8));
    for (std::uint64_t& block : blocks) block = rng.below(6);
    const auto prompt = static_cast<std::uint32_t>(rng.below(90));
    const auto output = static_cast<std::uint32_t>(rng.below(30));
    std::uint32_t tokens = 0;
    for (const auto& [id, length] : put(conversations, blocks, prompt, output)) {
      ASSERT_GT(length, 0u);
      tokens += length;
    }
    ASSERT_EQ(tokens, prompt + output);
  }
}

TEST(Conversations, PromptsEndWhereTheirTokensDo) {
  Conversations conversations(10);
  EXPECT_EQ(put(conversations, {1, 2, 3}, 17, 5), (Pieces{{1, 15}, {2, 2}, {mix(1), 5}}));
  EXPECT_EQ(put(conversations, {}, 7, 5), (Pieces{{mix(2), 12}}));
  EXPECT_EQ(put(conversations, {}, 0, 0), Pieces{});
  // What was repeated goes further than the blocks, which are of their mean length.
  EXPECT_EQ(put(conversations, {4}, 10, 90), (Pieces{{4, 10}, {mix(4), 90}}));
  EXPECT_EQ(put(conversations, {4, 5}, 110, 1), (Pieces{{4, 10}, {mix(4), 90}, {mix(5), 11}}));
}

}  // namespace
}  // namespace heng
