// What the reference policies assume to be cached where: the blocks of prompts that each worker was sent
// last.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "policy/route/attempt_table.h"
#include "policy/route/slot_table.h"

namespace heng {

struct PrefixLruOptions {
  double tokens;             // remembered of each worker at most
  bool shared = false;       // `tokens` is for all workers together
  bool heads_first = false;  // of a prompt, the first blocks are forgotten before the last
  bool after_gaps = false;   // a match goes on after a block that the worker lacks, while anybody has it
};

/// Owned by a policy. Memory is bounded by `tokens`, some 100 bytes for a block on a worker, and grows into
/// that.
class PrefixLru {
 public:
  explicit PrefixLru(const PrefixLruOptions& options) : options_(options) {}

  /// To be called before anything else: forgets what belongs to workers that have left.
  void sync(const PoolView& pool);

  /// How many of the first blocks of the prompt each worker has, [slots]; valid until the next call. O(slots
  /// + matching blocks of all workers), unless the same prompt was asked for last.
  std::span<const std::uint32_t> match(std::span<const std::uint64_t> prefix);

  /// The worker gets the prompt, whose blocks are `block_tokens` each. O(matching blocks of all workers).
  void insert(std::span<const std::uint64_t> prefix, double block_tokens, Slot slot);

 private:
  static constexpr std::uint32_t kNone = 0xffffffff;

  struct Node {  // a block that a worker has
    std::uint64_t hash = 0;
    float tokens = 0;
    Slot slot = kNoSlot;
    std::uint32_t older = kNone, newer = kNone;         // in the list it is forgotten by
    std::uint32_t previous = kNone, following = kNone;  // among the workers that have the block
  };
  struct List {
    std::uint32_t oldest = kNone, newest = kNone;
    double tokens = 0;
  };

  List& list_of(Slot slot) { return options_.shared ? shared_list_ : lists_[slot]; }
  void touch(std::uint64_t hash, double tokens, Slot slot);
  void append(std::uint32_t at);
  void detach(std::uint32_t at);
  void forget(std::uint32_t at);

  PrefixLruOptions options_;
  std::vector<Node> nodes_;
  std::uint32_t free_ = kNone;                // first of the unused nodes, linked by `older`
  AttemptTable<std::uint32_t> first_holder_;  // a block's first node; the worker is always 0
  std::vector<List> lists_;                   // [slots]
  List shared_list_;
  std::vector<std::uint64_t> identity_;  // [slots]
  std::vector<std::uint32_t> blocks_;    // [slots] the last answer,
  std::uint64_t answered_ = 0;           // and the last block of the prompt it is for; 0 = there is none
};

}  // namespace heng
