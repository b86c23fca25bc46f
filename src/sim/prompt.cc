// Implementation of the block hashes.
#include "sim/prompt.h"

#include "base/hash.h"
#include "base/result.h"

namespace heng {

std::vector<std::uint64_t> prompt_blocks(std::string_view text, std::uint32_t block_tokens) {
  HENG_ASSERT(block_tokens > 0);
  const std::size_t block_bytes = std::size_t{block_tokens} * kBytesPerToken;
  std::vector<std::uint64_t> chain(text.size() / block_bytes);
  std::uint64_t previous = 0;
  for (std::size_t i = 0; i < chain.size(); ++i) {
    previous = hash_bytes(text.substr(i * block_bytes, block_bytes), previous);
    chain[i] = previous;
  }
  return chain;
}

}  // namespace heng
