// The key-value cache of a simulated engine: blocks with reference counts, prefix reuse by hash, LRU
// eviction.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace heng {

/// Bookkeeping of `total` equal blocks, as vLLM v1's block pool does it. A block is *used* while sequences
/// refer to it and *free* otherwise; a free block keeps its contents, and is found again by its hash, until
/// it is the least recently freed one when somebody needs room. Value semantics, no IO. All calls are O(1)
/// but `match`.
class KvCache {
 public:
  using Block = std::uint32_t;

  explicit KvCache(std::uint32_t total);

  std::uint32_t total() const { return static_cast<std::uint32_t>(blocks_.size()); }
  std::uint32_t free() const { return free_; }
  std::uint32_t used() const { return total() - free_; }

  struct Match {
    std::uint32_t blocks = 0;       // leading hashes of the chain that are in the cache
    std::uint32_t free_blocks = 0;  // of these, how many are free now (taking them lowers `free()`)
  };
  /// O(length of the match). Changes nothing.
  Match match(std::span<const std::uint64_t> chain) const;

  /// One more reference to the block that holds `hash`, which must be present.
  Block acquire(std::uint64_t hash);
  /// An empty block with one reference, or nothing when none is free. Evicts the least recently freed
  /// contents.
  std::optional<Block> allocate();
  /// The block's contents are complete and may be shared under `hash`. Ignored when another block already
  /// holds it.
  void publish(Block block, std::uint64_t hash);
  /// Drops one reference; the last one frees the block.
  void release(Block block);

 private:
  struct Entry {
    std::uint64_t hash = 0;
    std::uint32_t references = 0;
    bool published = false;
    Block previous = 0;  // neighbours in the list of free blocks, oldest first
    Block next = 0;
  };
  static constexpr Block kNone = 0xffffffff;

  void push_free(Block block);
  void unlink_free(Block block);
  /// Index into table_, of the hash or of the hole where it belongs.
  std::size_t find(std::uint64_t hash) const;
  void forget(std::uint64_t hash);

  std::vector<Entry> blocks_;
  struct Cell {
    Block block;
    std::uint32_t tag;  // low half of the mixed hash: most look-ups then touch one block at most
  };
  std::vector<Cell> table_;  // open addressing, linear probing; at most half full
  std::uint32_t free_ = 0;
  Block oldest_ = kNone;
  Block newest_ = kNone;
};

}  // namespace heng
