// The table behind the prefix index, and the search in it.
#include "policy/route/prefix_index.h"

#include <algorithm>
#include <bit>

#include "base/result.h"

namespace heng {

namespace {

constexpr std::uint32_t kMissesUntilForgotten =
    3;  // a worker that has nothing of what it had was started anew

}  // namespace

void PrefixIndex::sync(const PoolView& pool) {
  if (pool.identity.size() > stride_) grow(pool.identity.size());
  workers_.resize(pool.identity.size());
  for (Slot slot = 0; slot < workers_.size(); ++slot) {
    if (workers_[slot].identity == pool.identity[slot]) continue;
    // The newcomer's clock begins again: what the former worker left there would look new.
    if (workers_[slot].clock != 1) {
      for (std::size_t at = 0; at < keys_.size(); ++at) stamps_[at * stride_ + slot] = kAbsent;
    }
    workers_[slot] = {.identity = pool.identity[slot]};
  }
}

void PrefixIndex::grow(std::size_t slots) {
  stride_ = std::max<std::size_t>(4, std::bit_ceil(slots));
  const std::size_t entry = sizeof(std::uint64_t) + sizeof(std::uint32_t) * (1 + stride_);
  const std::size_t sets = std::bit_floor(std::max<std::size_t>(1, bytes_ / (entry * kWays)));
  keys_.assign(sets * kWays, 0);
  used_.assign(sets * kWays, 0);
  stamps_.assign(sets * kWays * stride_, kAbsent);
}

std::size_t PrefixIndex::find(std::uint64_t key) const {
  const std::size_t set = (key & (keys_.size() / kWays - 1)) * kWays;
  for (std::size_t at = set; at < set + kWays; ++at) {
    if (keys_[at] == key) return at;
  }
  return keys_.size();
}

std::size_t PrefixIndex::place_for(std::uint64_t key) {
  const std::size_t set = (key & (keys_.size() / kWays - 1)) * kWays;
  std::size_t oldest = set;
  for (std::size_t at = set; at < set + kWays; ++at) {
    if (keys_[at] == key) return at;
    if (turns_ - used_[at] > turns_ - used_[oldest]) oldest = at;
  }
  keys_[oldest] = key;
  std::fill_n(stamps_.begin() + static_cast<std::ptrdiff_t>(oldest * stride_), stride_, kAbsent);
  return oldest;
}

bool PrefixIndex::holds(std::size_t at, Slot slot) const {
  const std::uint32_t stamp = stamps_[at * stride_ + slot];
  const Worker& worker = workers_[slot];
  return stamp > worker.forgotten && worker.clock - stamp < worker.window;
}

std::size_t PrefixIndex::count(std::size_t at) const {
  std::size_t workers = 0;
  for (Slot slot = 0; slot < workers_.size(); ++slot) workers += holds(at, slot) ? 1 : 0;
  return workers;
}

void PrefixIndex::assign(const Level& level, std::span<PrefixMatch> out) const {
  for (Slot slot = 0; slot < workers_.size(); ++slot) {
    if (holds(level.at, slot))
      out[slot] = {level.blocks, workers_[slot].clock - stamps_[level.at * stride_ + slot]};
  }
}

/// Between two known levels: those who have the lower one but not the higher are somewhere in between.
void PrefixIndex::refine(std::span<const std::uint64_t> prefix, const Level& low, const Level& high,
                         std::span<PrefixMatch> out) {
  if (high.blocks - low.blocks < 2 || low.workers <= high.workers) return;
  const std::uint32_t blocks = low.blocks + (high.blocks - low.blocks) / 2;
  const std::size_t at = find(prefix[blocks - 1]);
  if (at == keys_.size()) return;  // forgotten in the middle: take what is known
  const Level middle{blocks, at, count(at)};
  refine(prefix, low, middle, out);
  if (middle.workers > high.workers) {
    assign(middle, out);
    refine(prefix, middle, high, out);
  }
}

void PrefixIndex::match(std::span<const std::uint64_t> prefix, std::span<PrefixMatch> out) {
  HENG_ASSERT(out.size() == workers_.size());
  std::ranges::fill(out, PrefixMatch{});
  if (prefix.empty() || keys_.empty()) return;
  // The deepest block that anybody has.
  std::uint32_t known = 0, unknown = static_cast<std::uint32_t>(prefix.size()) + 1;
  Level deepest{0, 0, 0};
  while (unknown - known > 1) {
    const std::uint32_t blocks = known + (unknown - known) / 2;
    const std::size_t at = find(prefix[blocks - 1]);
    const std::size_t workers = at == keys_.size() ? 0 : count(at);
    if (workers == 0) {
      unknown = blocks;
    } else {
      known = blocks;
      deepest = {blocks, at, workers};
    }
  }
  if (known == 0) return;
  // Shallow levels first, so that each worker keeps its deepest.
  const std::size_t first = find(prefix[0]);
  if (known > 1 && first != keys_.size()) {
    const Level shallow{1, first, count(first)};
    assign(shallow, out);
    refine(prefix, shallow, deepest, out);
  }
  assign(deepest, out);
}

void PrefixIndex::insert(std::span<const std::uint64_t> prefix, Slot slot, std::uint32_t had) {
  Worker& worker = workers_[slot];
  const auto blocks = static_cast<std::uint32_t>(prefix.size());
  worker.clock += blocks - std::min(had, blocks);
  ++turns_;
  for (const std::uint64_t key : prefix) {
    const std::size_t at = place_for(key);
    used_[at] = turns_;
    stamps_[at * stride_ + slot] = worker.clock;
  }
}

void PrefixIndex::learn(Slot slot, const PrefixMatch& expected, std::uint32_t actual_blocks) {
  Worker& worker = workers_[slot];
  if (expected.blocks == 0) return;
  // Much younger than what it usually keeps, and all gone: it was started anew. Once may be chance.
  if (actual_blocks == 0 && worker.window != kUnlimited && expected.age < worker.window / 2) {
    if (++worker.misses < kMissesUntilForgotten) return;
    worker.forgotten = worker.clock;
    worker.misses = 0;
    return;
  }
  worker.misses = 0;
  // The window's edge is where hits turn into misses: it moves a fifth of the way towards each surprise, and
  // grows slowly while there is none, so that it follows a cache that has become larger.
  const bool missed = 2 * actual_blocks < expected.blocks;
  if (missed) {
    const std::uint32_t from = std::min(worker.window, std::max(2 * expected.age, 64U));
    worker.window =
        std::max(16U, from - std::min(from, (from - std::min(from, expected.age)) / 5 + from / 50));
  } else if (worker.window != kUnlimited) {
    worker.window += worker.window / 400 + 1;
  }
}

}  // namespace heng
