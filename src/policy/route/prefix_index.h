// Remembers which blocks of which prompts each worker of a pool has probably cached.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/pool_view.h"

namespace heng {

/// How much of a prompt a worker has.
struct PrefixMatch {
  std::uint32_t blocks = 0;  // from the start of the prompt
  std::uint32_t age = 0;     // blocks the worker has taken in since it last used the deepest of them
};

/// A table of fixed size from a block's chained hash (which stands for the whole prompt up to there) to the
/// time of its last use on each worker. Time is counted in blocks a worker has taken in, so a worker's cache
/// with eviction of the least recently used is a window of that time; its width is learned from what the
/// worker reports. A worker that has a block has all before it, which makes the longest match a binary
/// search. Blocks not used for longest are forgotten first. Owned by a policy; allocates only when the pool
/// grows, which may forget everything.
class PrefixIndex {
 public:
  /// `bytes`: of all memory used for blocks.
  explicit PrefixIndex(std::size_t bytes) : bytes_(bytes) {}

  /// To be called when the pool has changed.
  void sync(const PoolView& pool);

  /// The longest match of each worker, [slots]. O(levels log blocks) probes of the table, where levels is how
  /// many different lengths there are; each probe scans the slots once.
  void match(std::span<const std::uint64_t> prefix, std::span<PrefixMatch> out);
  /// The worker takes in the prompt, of which it had `had` blocks. O(blocks).
  void insert(std::span<const std::uint64_t> prefix, Slot slot, std::uint32_t had);
  /// What the worker had of a prompt for which `match` said `expected`.
  void learn(Slot slot, const PrefixMatch& expected, std::uint32_t actual_blocks);

  std::size_t capacity() const { return keys_.size(); }  // blocks

 private:
  static constexpr std::size_t kWays = 8;
  static constexpr std::uint32_t kAbsent = 0;
  static constexpr std::uint32_t kUnlimited = 1U << 31;

  struct Worker {
    std::uint64_t identity = 0;
    std::uint32_t clock = 1;            // blocks taken in
    std::uint32_t forgotten = 0;        // what was used by then is gone
    std::uint32_t window = kUnlimited;  // blocks its cache holds, as far as known
    std::uint32_t misses = 0;           // in a row, of all that was expected
  };
  struct Level {
    std::uint32_t blocks;
    std::size_t at;  // in the table
    std::size_t workers;
  };

  void grow(std::size_t slots);
  std::size_t find(std::uint64_t key) const;  // capacity() if it is not there
  std::size_t place_for(std::uint64_t key);
  bool holds(std::size_t at, Slot slot) const;
  std::size_t count(std::size_t at) const;
  void assign(const Level& level, std::span<PrefixMatch> out) const;
  void refine(std::span<const std::uint64_t> prefix, const Level& low, const Level& high,
              std::span<PrefixMatch> out);

  std::size_t bytes_;
  std::vector<Worker> workers_;        // [slots]
  std::size_t stride_ = 0;             // slots there is room for
  std::vector<std::uint64_t> keys_;    // [sets x kWays]; 0 = empty
  std::vector<std::uint32_t> used_;    // [sets x kWays] when anybody last used it, in turns_
  std::vector<std::uint32_t> stamps_;  // [sets x kWays x stride_] the worker's clock at its last use
  std::uint32_t turns_ = 0;            // insertions
};

}  // namespace heng
