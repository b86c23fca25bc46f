// Implementation of the block hashes.
#include "sim/prompt.h"

#include "flow/prompt_blocks.h"

namespace heng {

std::vector<std::uint64_t> prompt_blocks(std::string_view text, std::uint32_t block_tokens) {
  std::vector<std::uint64_t> chain;
  chain_prompt_blocks(text, std::size_t{block_tokens} * kBytesPerToken, chain);
  return chain;
}

}  // namespace heng
