// What stands in for a tokenizer: counts tokens by bytes and names each block of a text by a chained hash.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace heng {

/// English text averages about four bytes a token in the vocabularies of current models.
inline constexpr std::uint32_t kBytesPerToken = 4;

constexpr std::uint64_t count_tokens(std::uint64_t bytes) {
  return (bytes + kBytesPerToken - 1) / kBytesPerToken;
}

/// See chain_prompt_blocks; blocks of block_tokens x 4 bytes.
std::vector<std::uint64_t> prompt_blocks(std::string_view text, std::uint32_t block_tokens);

}  // namespace heng
