// Remembers which blocks of which prompts each worker of a pool has probably cached.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/huge_pages.h"
#include "model/pool_view.h"

namespace heng {

/// How much of a prompt a worker has.
struct PrefixMatch {
  std::uint32_t blocks = 0;  // from the start of the prompt
  std::uint32_t age = 0;     // blocks the worker has taken in since it last used the deepest of them
};

/// What a prompt is part of, as far as it is known.
struct KnownText {
  /// The hash by which requests that continue one text meet on one worker without knowing of each other: of
  /// the first block that is not known to begin several texts. 0: the prompt has no block.
  std::uint64_t name = 0;
  std::uint32_t shared_blocks = 0;  // those before it
};

/// A table of fixed size from a block's chained hash (which stands for the whole prompt up to there) to the
/// workers that used it last. Time is counted in blocks a worker has taken in, so a worker's cache with
/// eviction of the least recently used is a window of that time; its width is learned from what the worker
/// reports. A worker that has a block has all before it, which makes the longest match a binary search.
/// Blocks not used for longest are forgotten first, and of a block that very many workers have, those who
/// used it longest ago. Owned by a policy; memory is taken as it is first used, and when the pool grows
/// everything may be forgotten.
class PrefixIndex {
 public:
  /// `bytes`: of all memory used for blocks.
  explicit PrefixIndex(std::size_t bytes) : bytes_(bytes), memory_(bytes) {}

  /// To be called when the pool has changed.
  void sync(const PoolView& pool);

  /// The longest match of each worker, [slots]. O(levels log blocks) probes of the table, where levels is how
  /// many different lengths there are.
  KnownText match(std::span<const std::uint64_t> prefix, std::span<PrefixMatch> out);
  /// The worker takes in the prompt, of which it had `had` blocks. O(blocks).
  void insert(std::span<const std::uint64_t> prefix, Slot slot, std::uint32_t had);
  /// What the worker had of a prompt for which `match` said `expected`.
  void learn(Slot slot, const PrefixMatch& expected, std::uint32_t actual_blocks);

  std::size_t capacity() const { return sets_.size() * kWays; }  // blocks

 private:
  static constexpr std::size_t kWays = 8;         // one cache line of keys
  static constexpr std::size_t kHoldersMax = 16;  // workers remembered for a block
  static constexpr std::uint32_t kUnlimited = 1U << 31;
  static constexpr std::uint32_t kDepartures = 3;  // fewer: one text, edited or asked again

  struct Worker {
    std::uint64_t identity = 0;
    std::uint32_t clock = 1;            // blocks taken in
    std::uint32_t forgotten = 0;        // what was used by then is gone
    std::uint32_t window = kUnlimited;  // blocks its cache holds, as far as known
    std::uint32_t misses = 0;           // in a row, of all that was expected
  };
  /// What is known of the texts that go through a block, packed so that a set fills two cache lines.
  struct Continuation {
    std::uint32_t child : 20 = 0;      // low bits of the hash of a block that followed; 0 = none
    std::uint32_t fork : 10 = 0;       // positions up to the last place, here or before, where texts part
    std::uint32_t departures : 2 = 0;  // how often another block followed than before, at most kDepartures
    bool departs_with(std::uint64_t next) const { return child != 0 && child != (next & 0xfffff); }
    void go_on_with(std::uint64_t next) { child = next & 0xfffff; }
    void part_at(std::uint32_t position) { fork = position & 0x3ff; }
  };
  struct alignas(128) Set {
    std::array<std::uint64_t, kWays> keys{};  // 0 = empty
    std::array<std::uint32_t, kWays> used{};  // when anybody last used it, in turns_
    std::array<Continuation, kWays> continuations{};
  };
  static_assert(sizeof(Set) == 128);
  struct Holder {
    Slot slot = 0;
    std::uint32_t stamp = 0;  // the worker's clock at its last use; 0 = nobody
  };
  struct Place {
    std::size_t at = 0;  // in the table
    bool fresh = false;  // somebody else's until now
  };
  struct Level {
    std::uint32_t blocks;  // positions, see thin
    std::size_t at;        // in the table
    std::size_t workers;
  };

  /// Of 400 KB of prompt 1,562 blocks would be remembered one by one. Beyond 64 blocks ever fewer are, 32 for
  /// each doubling: always the same, so that prompts agree, and at most 1 part in 32 of a match is lost.
  static constexpr std::uint32_t kEveryBlock = 64, kPerDoubling = 32;
  static std::uint32_t blocks_at(std::uint32_t position);  // positions from 1
  std::span<const std::uint64_t> thin(std::span<const std::uint64_t> prefix);

  void divide(std::size_t slots);
  /// By the upper half of the hash (Lemire 2019): any number of sets will do.
  Set& set_of(std::uint64_t key) const { return sets_[(key >> 32) * sets_.size() >> 32]; }
  std::size_t find(std::uint64_t key) const;  // capacity() if it is not there
  Continuation& continuation(std::size_t at) { return sets_[at / kWays].continuations[at % kWays]; }
  const Continuation& continuation(std::size_t at) const {
    return sets_[at / kWays].continuations[at % kWays];
  }
  Place place_for(std::uint64_t key);
  std::span<Holder> holders(std::size_t at) const { return holders_.subspan(at * stride_, stride_); }
  bool holds(const Holder& holder) const;
  std::size_t count(std::size_t at) const;
  void assign(const Level& level, std::span<PrefixMatch> out) const;
  void refine(std::span<const std::uint64_t> prefix, const Level& low, const Level& high,
              std::span<PrefixMatch> out) const;
  KnownText text_of(std::span<const std::uint64_t> prefix, std::uint32_t known, std::size_t at) const;
  void hold(const Place& place, Slot slot);

  std::size_t bytes_;            // of memory_, for blocks
  std::vector<Worker> workers_;  // [slots]
  std::size_t stride_ = 0;       // holders of a block there is room for
  HugePages memory_;             // zeroes are an empty table
  std::span<Set> sets_;
  std::span<Holder> holders_;                                             // [sets x kWays x stride_]
  std::uint32_t turns_ = 0;                                               // insertions
  std::array<std::uint64_t, kEveryBlock + 20 * kPerDoubling> thinned_{};  // scratch
};

}  // namespace heng
