// Lists of blocks in the order of their last use, and a table of who has which.
#include "policy/route/prefix_lru.h"

#include <algorithm>

namespace heng {

void PrefixLru::sync(const PoolView& pool) {
  if (std::ranges::equal(identity_, pool.identity)) return;
  answered_ = 0;
  const auto known = static_cast<Slot>(std::min(identity_.size(), pool.identity.size()));
  for (Slot slot = 0; slot < known; ++slot) {
    if (identity_[slot] == pool.identity[slot]) continue;
    for (std::uint32_t at = list_of(slot).oldest; at != kNone;) {
      const std::uint32_t newer = nodes_[at].newer;
      if (nodes_[at].slot == slot) forget(at);
      at = newer;
    }
  }
  identity_.assign(pool.identity.begin(), pool.identity.end());
  lists_.resize(identity_.size());
  blocks_.resize(identity_.size());
}

std::span<const std::uint32_t> PrefixLru::match(std::span<const std::uint64_t> prefix) {
  if (!prefix.empty() && answered_ == prefix.back()) return blocks_;
  std::ranges::fill(blocks_, 0U);
  answered_ = prefix.empty() ? 0 : prefix.back();
  for (std::uint32_t i = 0; i < prefix.size(); ++i) {
    bool found = false;
    const std::uint32_t* const first = first_holder_.at(prefix[i], 0);
    for (std::uint32_t at = first == nullptr ? kNone : *first; at != kNone; at = nodes_[at].following) {
      std::uint32_t& blocks = blocks_[nodes_[at].slot];
      if (!options_.after_gaps && blocks != i) continue;
      ++blocks;
      found = true;
    }
    if (!found) break;
  }
  return blocks_;
}

void PrefixLru::insert(std::span<const std::uint64_t> prefix, double block_tokens, Slot slot) {
  answered_ = 0;
  const std::size_t blocks = prefix.size();
  for (std::size_t i = 0; i < blocks; ++i) {
    touch(prefix[options_.heads_first ? i : blocks - 1 - i], block_tokens, slot);
  }
}

void PrefixLru::touch(std::uint64_t hash, double tokens, Slot slot) {
  if (const std::uint32_t* const first = first_holder_.at(hash, 0)) {
    std::uint32_t at = *first;
    while (at != kNone && nodes_[at].slot != slot) at = nodes_[at].following;
    if (at != kNone) {
      detach(at);
      return append(at);
    }
  }
  List& list = list_of(slot);
  while (list.oldest != kNone && list.tokens + tokens > options_.tokens) forget(list.oldest);
  std::uint32_t at = free_;
  if (at == kNone) {
    at = static_cast<std::uint32_t>(nodes_.size());
    nodes_.emplace_back();
  } else {
    free_ = nodes_[at].older;
  }
  const std::uint32_t* const first = first_holder_.at(hash, 0);  // may just have been forgotten
  nodes_[at] = {.hash = hash,
                .tokens = static_cast<float>(tokens),
                .slot = slot,
                .following = first == nullptr ? kNone : *first};
  if (first != nullptr) nodes_[*first].previous = at;
  first_holder_.put(hash, 0, at);
  append(at);
}

void PrefixLru::append(std::uint32_t at) {
  Node& node = nodes_[at];
  List& list = list_of(node.slot);
  node.older = list.newest;
  node.newer = kNone;
  (list.newest == kNone ? list.oldest : nodes_[list.newest].newer) = at;
  list.newest = at;
  list.tokens += node.tokens;
}

void PrefixLru::detach(std::uint32_t at) {
  const Node& node = nodes_[at];
  List& list = list_of(node.slot);
  (node.older == kNone ? list.oldest : nodes_[node.older].newer) = node.newer;
  (node.newer == kNone ? list.newest : nodes_[node.newer].older) = node.older;
  list.tokens = list.oldest == kNone ? 0 : list.tokens - node.tokens;
}

void PrefixLru::forget(std::uint32_t at) {
  detach(at);
  Node& node = nodes_[at];
  if (node.following != kNone) nodes_[node.following].previous = node.previous;
  if (node.previous != kNone) {
    nodes_[node.previous].following = node.following;
  } else if (node.following != kNone) {
    first_holder_.put(node.hash, 0, node.following);
  } else {
    first_holder_.take(node.hash, 0);
  }
  node = {.older = free_};
  free_ = at;
}

}  // namespace heng
