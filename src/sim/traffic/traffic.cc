// Names of the blocks of a prompt that is given by pieces.
#include "sim/traffic/traffic.h"

#include <algorithm>

#include "base/hash.h"

namespace heng {

std::vector<std::uint64_t> block_chain(std::span<const PromptPiece> pieces, std::uint32_t block_tokens) {
  HENG_ASSERT(block_tokens > 0);
  std::uint64_t total = 0;
  for (const PromptPiece& piece : pieces) total += piece.tokens;
  std::vector<std::uint64_t> chain;
  chain.reserve(total / block_tokens);
  std::uint64_t hash = 0;
  std::uint32_t filled = 0;  // of the block under way
  for (const PromptPiece& piece : pieces) {
    for (std::uint32_t offset = 0; offset < piece.tokens;) {
      const std::uint32_t taken = std::min(block_tokens - filled, piece.tokens - offset);
      hash = combine(hash, combine(piece.id, std::uint64_t{offset} << 32 | taken));
      offset += taken;
      filled += taken;
      if (filled < block_tokens) continue;
      chain.push_back(hash);
      filled = 0;
    }
  }
  return chain;
}

}  // namespace heng
