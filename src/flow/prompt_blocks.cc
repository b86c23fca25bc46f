// One pass of XXH3 over the prompt. Without a seed, which would cost more than a block of this size.
#include "flow/prompt_blocks.h"

#define XXH_INLINE_ALL  // a call for each block takes as long as its hash
#include <xxhash.h>

#include "base/hash.h"
#include "base/result.h"

namespace heng {

void chain_prompt_blocks(std::string_view text, std::size_t block_bytes, std::vector<std::uint64_t>& chain) {
  HENG_ASSERT(block_bytes > 0);
  chain.resize(text.size() / block_bytes);
  std::uint64_t previous = 0;
  for (std::uint64_t& hash : chain) {
    hash = previous = combine(previous, XXH3_64bits(text.data(), block_bytes));
    text.remove_prefix(block_bytes);
  }
}

}  // namespace heng
