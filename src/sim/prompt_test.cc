// Token counts, block hashes and the filler text that goes with them.
#include "sim/prompt.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <set>
#include <string>

#include "base/hash.h"
#include "sim/text.h"

namespace heng {
namespace {

TEST(Prompt, CountsFourBytesAsOneToken) {
  EXPECT_EQ(count_tokens(0), 0u);
  EXPECT_EQ(count_tokens(1), 1u);
  EXPECT_EQ(count_tokens(4), 1u);
  EXPECT_EQ(count_tokens(5), 2u);
}

TEST(Prompt, ChainsXxh3OverCompleteBlocks) {
  const std::string text =
      "abcdefghijklmnopqrs";  // 19 bytes: two blocks of two tokens, three bytes left over
  const auto chain = prompt_blocks(text, 2);
  ASSERT_EQ(chain.size(), 2u);
  EXPECT_EQ(chain[0], combine(0, hash_bytes("abcdefgh")));
  EXPECT_EQ(chain[1], combine(chain[0], hash_bytes("ijklmnop")));
  EXPECT_TRUE(prompt_blocks("", 2).empty());
  EXPECT_TRUE(prompt_blocks("abcdefg", 2).empty());
}

RC_GTEST_PROP(PromptProperty, ChainsAgreeExactlyOnTheCommonBlocks,
              (const std::string& a, const std::string& b)) {
  const auto block_tokens = *rc::gen::inRange<std::uint32_t>(1, 4);
  const auto common = *rc::gen::inRange<std::size_t>(0, 50);
  const std::string start = filler_text(3, common);
  const std::string left = start + a;
  const std::string right = start + b;
  const auto left_chain = prompt_blocks(left, block_tokens);
  const auto right_chain = prompt_blocks(right, block_tokens);
  RC_ASSERT(left_chain.size() == left.size() / (block_tokens * kBytesPerToken));
  for (std::size_t i = 0; i < std::min(left_chain.size(), right_chain.size()); ++i) {
    const std::size_t bytes = (i + 1) * block_tokens * kBytesPerToken;
    RC_ASSERT((left_chain[i] == right_chain[i]) == (left.substr(0, bytes) == right.substr(0, bytes)));
  }
}

TEST(FillerText, IsOneFourByteWordPerToken) {
  const std::string text = filler_text(1, 200);
  ASSERT_EQ(text.size(), 200 * kBytesPerToken);
  for (std::uint64_t i = 0; i < 200; ++i) {
    const std::string_view word = filler_word(1, i);
    EXPECT_EQ(word.size(), kBytesPerToken);
    EXPECT_EQ(text.substr(i * kBytesPerToken, kBytesPerToken), word);
    EXPECT_EQ(word.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz. "),
              std::string::npos);
    EXPECT_EQ(word.back(), ' ');
  }
  EXPECT_EQ(text, filler_text(1, 200));
}

TEST(FillerText, DiffersBetweenSeeds) {
  std::set<std::string> texts;
  for (std::uint64_t seed = 0; seed < 100; ++seed) texts.insert(filler_text(seed, 20));
  EXPECT_EQ(texts.size(), 100u);
}

}  // namespace
}  // namespace heng
