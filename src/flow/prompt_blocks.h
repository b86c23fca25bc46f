// Names each block of a prompt by a hash of everything up to its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace heng {

/// Of the blocks by which the gateway tells prompts apart, about 64 tokens.
inline constexpr std::size_t kPromptBlockBytes = 256;

/// Replaces `chain` by the hashes of the text's complete blocks: chain[i] = combine(chain[i-1], XXH3(block
/// i)), chain[-1] = 0. Two texts have chain[i] in common exactly when their first i + 1 blocks are equal (but
/// for collisions of 64 bits). The rest of the text that fills no block has no hash. O(bytes).
void chain_prompt_blocks(std::string_view text, std::size_t block_bytes, std::vector<std::uint64_t>& chain);

}  // namespace heng
