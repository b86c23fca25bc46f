// Implementation of the block bookkeeping.
#include "sim/kv_cache.h"

#include <bit>

#include "base/hash.h"
#include "base/result.h"

namespace heng {

KvCache::KvCache(std::uint32_t total)
    : blocks_(total), table_(std::bit_ceil(std::size_t{total} * 2 + 2), {kNone, 0}) {
  HENG_ASSERT(total > 0 && total < kNone);
  for (Block block = 0; block < total; ++block) push_free(block);
}

void KvCache::push_free(Block block) {
  Entry& entry = blocks_[block];
  entry.previous = newest_;
  entry.next = kNone;
  (newest_ == kNone ? oldest_ : blocks_[newest_].next) = block;
  newest_ = block;
  ++free_;
}

void KvCache::unlink_free(Block block) {
  const Entry& entry = blocks_[block];
  (entry.previous == kNone ? oldest_ : blocks_[entry.previous].next) = entry.next;
  (entry.next == kNone ? newest_ : blocks_[entry.next].previous) = entry.previous;
  --free_;
}

std::size_t KvCache::find(std::uint64_t hash) const {
  const std::size_t mask = table_.size() - 1;
  const auto tag = static_cast<std::uint32_t>(mix(hash));
  std::size_t index = tag & mask;
  while (table_[index].block != kNone &&
         (table_[index].tag != tag || blocks_[table_[index].block].hash != hash)) {
    index = (index + 1) & mask;
  }
  return index;
}

void KvCache::forget(std::uint64_t hash) {
  // Deletion by shifting back (Knuth, TAOCP 6.4, algorithm R): no tombstones, so look-ups never slow down.
  const std::size_t mask = table_.size() - 1;
  std::size_t hole = find(hash);
  HENG_ASSERT(table_[hole].block != kNone);
  for (std::size_t at = (hole + 1) & mask; table_[at].block != kNone; at = (at + 1) & mask) {
    const std::size_t home = table_[at].tag & mask;
    if (((at - home) & mask) < ((at - hole) & mask)) continue;
    table_[hole] = table_[at];
    hole = at;
  }
  table_[hole].block = kNone;
}

KvCache::Match KvCache::match(std::span<const std::uint64_t> chain) const {
  Match match;
  for (const std::uint64_t hash : chain) {
    const Block block = table_[find(hash)].block;
    if (block == kNone) break;
    ++match.blocks;
    if (blocks_[block].references == 0) ++match.free_blocks;
  }
  return match;
}

KvCache::Block KvCache::acquire(std::uint64_t hash) {
  const Block block = table_[find(hash)].block;
  HENG_ASSERT(block != kNone);
  if (blocks_[block].references++ == 0) unlink_free(block);
  return block;
}

std::optional<KvCache::Block> KvCache::allocate() {
  if (free_ == 0) return std::nullopt;
  const Block block = oldest_;
  unlink_free(block);
  Entry& entry = blocks_[block];
  if (entry.published) forget(entry.hash);
  entry.published = false;
  entry.references = 1;
  return block;
}

void KvCache::publish(Block block, std::uint64_t hash) {
  Entry& entry = blocks_[block];
  HENG_ASSERT(entry.references > 0 && !entry.published);
  const std::size_t index = find(hash);
  if (table_[index].block != kNone) return;
  table_[index] = {block, static_cast<std::uint32_t>(mix(hash))};
  entry.hash = hash;
  entry.published = true;
}

void KvCache::release(Block block) {
  HENG_ASSERT(blocks_[block].references > 0);
  if (--blocks_[block].references == 0) push_free(block);
}

}  // namespace heng
