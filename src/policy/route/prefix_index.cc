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
  const std::size_t slots = pool.identity.size();
  if (stride_ < std::min(kHoldersMax, slots)) allocate(slots);
  workers_.resize(slots);
  for (Slot slot = 0; slot < slots; ++slot) {
    Worker& worker = workers_[slot];
    if (worker.identity == pool.identity[slot]) continue;
    // The clock goes on, so that what the slot's former worker left is older than anything of the new one.
    worker = {.identity = pool.identity[slot], .clock = worker.clock + 1, .forgotten = worker.clock};
  }
}

void PrefixIndex::allocate(std::size_t slots) {
  stride_ = std::clamp<std::size_t>(std::bit_ceil(slots), 4, kHoldersMax);
  const std::size_t entry = sizeof(std::uint64_t) + sizeof(Block) + sizeof(Holder) * stride_;
  const std::size_t sets = std::bit_floor(std::max<std::size_t>(1, bytes_ / (entry * kWays)));
  keys_.assign(sets * kWays, 0);
  blocks_.assign(sets * kWays, {});
  holders_.assign(sets * kWays * stride_, {});
}

std::size_t PrefixIndex::find(std::uint64_t key) const {
  const std::size_t set = set_of(key);
  for (std::size_t at = set; at < set + kWays; ++at) {
    if (keys_[at] == key) return at;
  }
  return keys_.size();
}

std::size_t PrefixIndex::place_for(std::uint64_t key) {
  const std::size_t set = set_of(key);
  std::size_t oldest = set;
  for (std::size_t at = set; at < set + kWays; ++at) {
    if (keys_[at] == key) return at;
    if (turns_ - blocks_[at].used > turns_ - blocks_[oldest].used) oldest = at;
  }
  keys_[oldest] = key;
  blocks_[oldest] = {};
  std::ranges::fill(holders(oldest), Holder{});
  return oldest;
}

bool PrefixIndex::holds(const Holder& holder) const {
  if (holder.stamp == 0) return false;
  const Worker& worker = workers_[holder.slot];
  return holder.stamp > worker.forgotten && worker.clock - holder.stamp < worker.window;
}

std::size_t PrefixIndex::count(std::size_t at) const {
  return static_cast<std::size_t>(
      std::ranges::count_if(holders(at), [this](const Holder& holder) { return holds(holder); }));
}

void PrefixIndex::assign(const Level& level, std::span<PrefixMatch> out) const {
  for (const Holder& holder : holders(level.at)) {
    if (holds(holder)) out[holder.slot] = {level.blocks, workers_[holder.slot].clock - holder.stamp};
  }
}

/// Between two known levels: those who have the lower one but not the higher are somewhere in between.
void PrefixIndex::refine(std::span<const std::uint64_t> prefix, const Level& low, const Level& high,
                         std::span<PrefixMatch> out) const {
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

/// Blocks up to where this text parts from others, as far as it is known.
std::uint32_t PrefixIndex::parting(std::span<const std::uint64_t> prefix) const {
  std::uint32_t known = 0, unknown = static_cast<std::uint32_t>(prefix.size()) + 1;
  std::size_t last = keys_.size();
  while (unknown - known > 1) {
    const std::uint32_t blocks = known + (unknown - known) / 2;
    const std::size_t at = find(prefix[blocks - 1]);
    (at == keys_.size() ? unknown : known) = blocks;
    if (at != keys_.size()) last = at;
  }
  if (known == 0) return 0;
  const Block& block = blocks_[last];
  const bool departs =
      known < prefix.size() && block.child != 0 && block.child != static_cast<std::uint32_t>(prefix[known]);
  const bool parts = departs && block.departures + 1 >= kDepartures;
  return parts ? known : block.fork;
}

KnownText PrefixIndex::match(std::span<const std::uint64_t> prefix, std::span<PrefixMatch> out) {
  HENG_ASSERT(out.size() == workers_.size());
  std::ranges::fill(out, PrefixMatch{});
  if (prefix.empty() || keys_.empty()) return {};
  KnownText text{.shared_blocks = parting(prefix)};
  text.name = prefix[std::min<std::size_t>(text.shared_blocks, prefix.size() - 1)];
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
  if (known == 0) return text;
  // Shallow levels first, so that each worker keeps its deepest.
  const std::size_t first = find(prefix[0]);
  if (known > 1 && first != keys_.size()) {
    const Level shallow{1, first, count(first)};
    assign(shallow, out);
    refine(prefix, shallow, deepest, out);
  }
  assign(deepest, out);
  return text;
}

void PrefixIndex::hold(std::size_t at, Slot slot) {
  const auto age = [this](const Holder& holder) { return workers_[holder.slot].clock - holder.stamp; };
  Holder* place = nullptr;
  for (Holder& holder : holders(at)) {
    if (holder.stamp != 0 && holder.slot == slot) {
      place = &holder;
      break;
    }
    if (place != nullptr && !holds(*place)) continue;
    if (place == nullptr || !holds(holder) || age(holder) > age(*place)) place = &holder;
  }
  *place = {slot, workers_[slot].clock};
}

void PrefixIndex::insert(std::span<const std::uint64_t> prefix, Slot slot, std::uint32_t had) {
  // All places are random: asked for first, they come at the same time.
  for (const std::uint64_t key : prefix) {
    const std::size_t set = set_of(key);
    __builtin_prefetch(&keys_[set]);
    __builtin_prefetch(&blocks_[set], 1);
  }
  Worker& worker = workers_[slot];
  const auto blocks = static_cast<std::uint32_t>(prefix.size());
  worker.clock += blocks - std::min(had, blocks);
  ++turns_;
  std::uint32_t fork = 0;
  for (std::uint32_t i = 0; i < blocks; ++i) {
    const std::size_t at = place_for(prefix[i]);
    Block& block = blocks_[at];
    if (i + 1 < blocks) {
      const auto child = static_cast<std::uint32_t>(prefix[i + 1]);
      if (block.child != 0 && block.child != child && ++block.departures >= kDepartures) block.fork = i + 1;
      block.child = child;
    }
    fork = block.fork = std::max(fork, block.fork);
    block.used = turns_;
    hold(at, slot);
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
