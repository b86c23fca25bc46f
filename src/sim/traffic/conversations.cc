// Pieces in three kinds: known blocks, and the rests and answers of the prompts that are repeated.
#include "sim/traffic/conversations.h"

#include <algorithm>
#include <ranges>

#include "base/hash.h"

namespace heng {

namespace {
constexpr std::size_t kRemembered = 1 << 20;
}

/// The last block of the longest prompt that this one repeats with its answer.
std::optional<std::uint64_t> Conversations::repeated(std::span<const std::uint64_t> blocks,
                                                     std::uint32_t prompt_tokens) {
  for (std::size_t count = blocks.size(); count-- > 1;) {
    const auto found = ends_.find(blocks[count - 1]);
    if (found == ends_.end()) continue;
    End& end = found->second;
    // A chained hash at another place is in no honest recording.
    if (end.shared || end.blocks != count || end.tokens > prompt_tokens) continue;
    if (!end.next) end.next = blocks[count];
    if (*end.next == blocks[count]) return found->first;
  }
  return {};
}

void Conversations::remember(std::uint64_t block, const End& end) {
  const auto [at, is_new] = ends_.try_emplace(block, end);
  if (!is_new) {
    at->second.shared = true;
    return;
  }
  remembered_.push_back(block);
  if (remembered_.size() <= kRemembered) return;
  ends_.erase(remembered_.front());
  remembered_.pop_front();
}

std::vector<PromptPiece> Conversations::pieces(std::span<const std::uint64_t> blocks,
                                               std::uint32_t prompt_tokens, std::uint32_t output_tokens) {
  const std::optional<std::uint64_t> before = repeated(blocks, prompt_tokens);
  repeats_.clear();
  for (auto block = before; block; block = repeats_.back()->before) {
    const auto end = ends_.find(*block);
    if (end == ends_.end()) break;  // forgotten
    if (!repeats_.empty() && end->second.blocks >= repeats_.back()->blocks) break;
    repeats_.push_back(&end->second);
  }
  std::vector<PromptPiece> pieces;
  std::uint32_t at = 0;
  const auto append = [&](std::uint64_t id, std::uint64_t to) {
    if (to > at) pieces.push_back({id, static_cast<std::uint32_t>(to - at)});
    at = static_cast<std::uint32_t>(std::max<std::uint64_t>(at, to));
  };
  const auto append_blocks = [&](std::size_t to, std::uint32_t tokens) {
    for (std::size_t i = at / block_tokens_; i < to; ++i)
      append(blocks[i], std::min<std::uint64_t>((i + 1) * block_tokens_ + block_tokens_ / 2, tokens));
  };
  for (const End* end : std::views::reverse(repeats_)) {
    append_blocks(end->blocks, end->begins);
    append(end->rest, end->tokens);
  }
  append_blocks(blocks.size(), prompt_tokens);
  const std::uint64_t rest = mix(++count_);
  const std::uint32_t begins = at;
  append(rest, std::uint64_t{prompt_tokens} + output_tokens);
  if (!blocks.empty()) {
    remember(blocks.back(), {.rest = rest,
                             .blocks = static_cast<std::uint32_t>(blocks.size()),
                             .begins = begins,
                             .tokens = prompt_tokens + output_tokens,
                             .before = before,
                             .next = {}});
  }
  return pieces;
}

}  // namespace heng
