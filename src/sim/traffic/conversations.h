// Finds, among recorded prompts, those that repeat an earlier one with its answer.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "sim/traffic/traffic.h"

namespace heng {

/// A recording names a prompt's blocks and no answer's. A prompt is taken to repeat an earlier prompt and its
/// answer if it has all the blocks of that and as many tokens as both; but not if another prompt ended in the
/// same block, nor if one that repeated them went on differently: then the blocks are a beginning that many
/// share. Prompts that part within a block share half of it, on average: so much do pieces end later than
/// their blocks. Remembers the last million prompts. O(blocks) for each.
class Conversations {
 public:
  /// Of prompts whose blocks have so many tokens.
  explicit Conversations(std::uint32_t block_tokens) : block_tokens_(block_tokens) {}

  /// What the next prompt, in order of arrival, and its answer consist of. `blocks`: chained hashes.
  std::vector<PromptPiece> pieces(std::span<const std::uint64_t> blocks, std::uint32_t prompt_tokens,
                                  std::uint32_t output_tokens);

 private:
  /// A prompt by its last block. What follows, its rest and its answer, is known to those that repeat it.
  struct End {
    std::uint64_t rest = 0;  // its name
    std::uint32_t blocks = 0;
    std::uint32_t begins = 0;             // where in the text
    std::uint32_t tokens = 0;             // prompt and answer, where it ends
    std::optional<std::uint64_t> before;  // last block of the prompt that it repeats itself
    std::optional<std::uint64_t> next;    // block of those that repeat it
    bool shared = false;
  };

  std::optional<std::uint64_t> repeated(std::span<const std::uint64_t> blocks, std::uint32_t prompt_tokens);
  void remember(std::uint64_t block, const End& end);

  std::uint32_t block_tokens_;
  std::uint64_t count_ = 0;
  std::unordered_map<std::uint64_t, End> ends_;
  std::deque<std::uint64_t> remembered_;  // oldest first
  std::vector<const End*> repeats_;       // scratch
};

}  // namespace heng
