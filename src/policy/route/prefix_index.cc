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
  const std::size_t set = sizeof(Set) + kWays * (sizeof(Block) + sizeof(Holder) * stride_);
  const std::size_t sets = std::bit_floor(std::max<std::size_t>(1, bytes_ / set));
  sets_.assign(sets, {});
  blocks_.assign(sets * kWays, {});
  holders_.assign(sets * kWays * stride_, {});
}

std::uint32_t PrefixIndex::blocks_at(std::uint32_t position) {
  if (position <= kEveryBlock) return position;
  const std::uint32_t beyond = position - kEveryBlock;
  const std::uint32_t doublings = (beyond - 1) / kPerDoubling;
  const std::uint32_t step = (kEveryBlock / kPerDoubling) << doublings;
  return (kEveryBlock << doublings) + (beyond - doublings * kPerDoubling) * step;
}

std::span<const std::uint64_t> PrefixIndex::thin(std::span<const std::uint64_t> prefix) {
  if (prefix.size() <= kEveryBlock) return prefix;
  std::uint32_t positions = 0;
  while (positions < thinned_.size() && blocks_at(positions + 1) <= prefix.size()) {
    thinned_[positions] = prefix[blocks_at(positions + 1) - 1];
    ++positions;
  }
  return std::span(thinned_).first(positions);
}

std::size_t PrefixIndex::find(std::uint64_t key) const {
  const std::size_t set = set_of(key);
  for (std::size_t way = 0; way < kWays; ++way) {
    if (sets_[set].keys[way] == key) return set * kWays + way;
  }
  return capacity();
}

std::size_t PrefixIndex::place_for(std::uint64_t key) {
  const std::size_t index = set_of(key);
  Set& set = sets_[index];
  std::size_t oldest = 0;
  for (std::size_t way = 0; way < kWays; ++way) {
    if (set.keys[way] == key) {
      set.used[way] = turns_;
      return index * kWays + way;
    }
    if (turns_ - set.used[way] > turns_ - set.used[oldest]) oldest = way;
  }
  set.keys[oldest] = key;
  set.used[oldest] = turns_;
  const std::size_t at = index * kWays + oldest;
  blocks_[at] = {};
  std::ranges::fill(holders(at), Holder{});
  return at;
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
    if (!holds(holder)) continue;
    out[holder.slot] = {blocks_at(level.blocks), workers_[holder.slot].clock - holder.stamp};
  }
}

/// Between two known levels: those who have the lower one but not the higher are somewhere in between.
void PrefixIndex::refine(std::span<const std::uint64_t> prefix, const Level& low, const Level& high,
                         std::span<PrefixMatch> out) const {
  if (high.blocks - low.blocks < 2 || low.workers <= high.workers) return;
  const std::uint32_t blocks = low.blocks + (high.blocks - low.blocks) / 2;
  const std::size_t at = find(prefix[blocks - 1]);
  if (at == capacity()) return;  // forgotten in the middle: take what is known
  const Level middle{blocks, at, count(at)};
  refine(prefix, low, middle, out);
  if (middle.workers > high.workers) {
    assign(middle, out);
    refine(prefix, middle, high, out);
  }
}

/// `at`: the place of the last of the `known` blocks.
KnownText PrefixIndex::text_of(std::span<const std::uint64_t> prefix, std::uint32_t known,
                               std::size_t at) const {
  KnownText text;
  if (known > 0) {
    const Block& block = blocks_[at];
    const bool departs =
        known < prefix.size() && block.child != 0 && block.child != static_cast<std::uint32_t>(prefix[known]);
    text.shared_blocks = departs && block.departures + 1 >= kDepartures ? known : block.fork;
  }
  text.name = prefix[std::min<std::size_t>(text.shared_blocks, prefix.size() - 1)];
  text.shared_blocks = blocks_at(text.shared_blocks);
  return text;
}

KnownText PrefixIndex::match(std::span<const std::uint64_t> whole, std::span<PrefixMatch> out) {
  HENG_ASSERT(out.size() == workers_.size());
  std::ranges::fill(out, PrefixMatch{});
  if (whole.empty() || sets_.empty()) return {};
  const std::span<const std::uint64_t> prefix = thin(whole);
  // The deepest block of `limit` that is known, and in whose place `enough` sees what it looks for.
  const auto search = [&](std::uint32_t limit, auto enough) {
    Level found{0, 0, 0};
    std::uint32_t unknown = limit + 1;
    while (unknown - found.blocks > 1) {
      const std::uint32_t blocks = found.blocks + (unknown - found.blocks) / 2;
      const std::size_t at = find(prefix[blocks - 1]);
      if (at != capacity() && enough(at)) {
        found = {blocks, at, 0};
      } else {
        unknown = blocks;
      }
    }
    return found;
  };
  Level deepest = search(static_cast<std::uint32_t>(prefix.size()), [](std::size_t) { return true; });
  const KnownText text = text_of(prefix, deepest.blocks, deepest.at);
  if (deepest.blocks > 0 && count(deepest.at) == 0)  // known, but everybody has lost it
    deepest = search(deepest.blocks - 1, [this](std::size_t at) { return count(at) > 0; });
  if (deepest.blocks == 0) return text;
  deepest.workers = count(deepest.at);
  // Shallow levels first, so that each worker keeps its deepest.
  const std::size_t first = find(prefix[0]);
  if (deepest.blocks > 1 && first != capacity()) {
    const Level shallow{1, first, count(first)};
    assign(shallow, out);
    refine(prefix, shallow, deepest, out);
  }
  assign(deepest, out);
  return text;
}

void PrefixIndex::hold(std::size_t at, Slot slot) {
  const std::span<Holder> all = holders(at);
  auto place = std::ranges::find_if(
      all, [slot](const Holder& holder) { return holder.slot == slot && holder.stamp != 0; });
  if (place == all.end()) {
    // Who has lost it, or used it longest ago.
    const auto age = [this](const Holder& holder) {
      return holds(holder) ? workers_[holder.slot].clock - holder.stamp : kUnlimited;
    };
    place = std::ranges::max_element(all, {}, age);
  }
  *place = {slot, workers_[slot].clock};
}

void PrefixIndex::insert(std::span<const std::uint64_t> whole, Slot slot, std::uint32_t had) {
  Worker& worker = workers_[slot];
  const auto taken = static_cast<std::uint32_t>(whole.size());
  worker.clock += taken - std::min(had, taken);
  const std::span<const std::uint64_t> prefix = thin(whole);
  const auto blocks = static_cast<std::uint32_t>(prefix.size());
  ++turns_;
  std::uint32_t fork = 0, done = 0;
  // All places are random. A batch of them is asked for before the first is used: memory then answers once,
  // not once for each.
  std::array<std::size_t, 32> places;
  while (done < blocks) {
    const std::span batch = prefix.subspan(done, std::min<std::size_t>(places.size(), blocks - done));
    for (const std::uint64_t key : batch) {
      __builtin_prefetch(&sets_[set_of(key)], 1);
      __builtin_prefetch(sets_[set_of(key)].used.data(), 1);
    }
    for (std::size_t i = 0; i < batch.size(); ++i) {
      places[i] = place_for(batch[i]);
      __builtin_prefetch(&blocks_[places[i]], 1);
      for (std::size_t line = 0; line < stride_; line += 64 / sizeof(Holder))
        __builtin_prefetch(&holders_[places[i] * stride_ + line], 1);
    }
    for (std::size_t i = 0; i < batch.size(); ++i) {
      Block& block = blocks_[places[i]];
      if (++done < blocks) {
        const auto child = static_cast<std::uint32_t>(prefix[done]);
        if (block.child != 0 && block.child != child && ++block.departures >= kDepartures) block.fork = done;
        block.child = child;
      }
      fork = block.fork = std::max(fork, block.fork);
      hold(places[i], slot);
    }
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
