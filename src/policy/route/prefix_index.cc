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
  if (stride_ < std::min(kHoldersMax, slots)) divide(slots);
  workers_.resize(slots);
  for (Slot slot = 0; slot < slots; ++slot) {
    Worker& worker = workers_[slot];
    if (worker.identity == pool.identity[slot]) continue;
    // The clock goes on, so that what the slot's former worker left is older than anything of the new one.
    worker = {.identity = pool.identity[slot], .clock = worker.clock + 1, .forgotten = worker.clock};
  }
}

void PrefixIndex::divide(std::size_t slots) {
  if (stride_ != 0) memory_.clear();
  stride_ = std::clamp<std::size_t>(std::bit_ceil(slots), 4, kHoldersMax);
  const std::size_t set = sizeof(Set) + kWays * sizeof(Holder) * stride_;
  const std::size_t sets = std::max<std::size_t>(1, bytes_ / set);
  auto* const begin = reinterpret_cast<Set*>(memory_.data());
  sets_ = {begin, sets};
  holders_ = {reinterpret_cast<Holder*>(begin + sets), sets * kWays * stride_};
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
  const Set& set = set_of(key);
  for (std::size_t way = 0; way < kWays; ++way) {
    if (set.keys[way] == key) return static_cast<std::size_t>(&set - sets_.data()) * kWays + way;
  }
  return capacity();
}

/// Where the block is, or where it is to be from now on: then nobody holds it yet.
PrefixIndex::Place PrefixIndex::place_for(std::uint64_t key) {
  Set& set = set_of(key);
  const auto base = static_cast<std::size_t>(&set - sets_.data()) * kWays;
  for (std::size_t way = 0; way < kWays; ++way) {
    if (set.keys[way] != key) continue;
    set.used[way] = turns_;
    return {base + way, false};
  }
  std::uint64_t longest_ago = 0;  // with the way in its low bits, so that no branch has to be guessed
  for (std::size_t way = 0; way < kWays; ++way)
    longest_ago = std::max<std::uint64_t>(longest_ago, std::uint64_t{turns_ - set.used[way]} * kWays + way);
  const std::size_t oldest = longest_ago % kWays;
  set.keys[oldest] = key;
  set.used[oldest] = turns_;
  set.continuations[oldest] = {};
  return {base + oldest, true};
}

bool PrefixIndex::holds(const Holder& holder) const {
  if (holder.stamp == 0) return false;
  const Worker& worker = workers_[holder.slot];
  const std::uint32_t age = worker.clock - holder.stamp;  // the clock may go round
  return age < worker.clock - worker.forgotten && age < worker.window;
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
    const Continuation& next = continuation(at);
    const bool departs = known < prefix.size() && next.departs_with(prefix[known]);
    text.shared_blocks = departs && next.departures + 1U >= kDepartures ? known : next.fork;
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
  // All places are random. They are asked for before the first is used, here and in `insert`: memory then
  // answers once, not once for each.
  for (const std::uint64_t key : prefix) {
    const Set& set = set_of(key);
    __builtin_prefetch(set.keys.data(), 1);
    __builtin_prefetch(set.used.data(), 1);
  }
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

void PrefixIndex::hold(const Place& place, Slot slot) {
  const std::span<Holder> all = holders(place.at);
  const Holder now{slot, workers_[slot].clock};
  if (place.fresh) {
    std::ranges::fill(all, Holder{});
    all.front() = now;
    return;
  }
  auto holder = std::ranges::find_if(
      all, [slot](const Holder& other) { return other.slot == slot && other.stamp != 0; });
  if (holder == all.end()) {
    // Who has lost it, or used it longest ago.
    const auto age = [this](const Holder& other) {
      return holds(other) ? workers_[other.slot].clock - other.stamp : kUnlimited;
    };
    holder = std::ranges::max_element(all, {}, age);
  }
  *holder = now;
}

void PrefixIndex::insert(std::span<const std::uint64_t> whole, Slot slot, std::uint32_t had) {
  Worker& worker = workers_[slot];
  const auto taken = static_cast<std::uint32_t>(whole.size());
  worker.clock += taken - std::min(had, taken);
  if (worker.clock - worker.forgotten > kUnlimited) worker.forgotten = worker.clock - kUnlimited;
  const std::span<const std::uint64_t> prefix = thin(whole);
  const auto blocks = static_cast<std::uint32_t>(prefix.size());
  ++turns_;
  std::uint32_t fork = 0, done = 0;
  std::array<Place, 32> places;
  while (done < blocks) {
    const std::span batch = prefix.subspan(done, std::min<std::size_t>(places.size(), blocks - done));
    for (std::size_t i = 0; i < batch.size(); ++i) {
      places[i] = place_for(batch[i]);
      const std::span<Holder> all = holders(places[i].at);
      for (std::size_t line = 0; line < all.size(); line += 64 / sizeof(Holder))
        __builtin_prefetch(&all[line], 1);
    }
    for (std::size_t i = 0; i < batch.size(); ++i) {
      Continuation& next = continuation(places[i].at);
      if (++done < blocks) {
        if (next.departs_with(prefix[done])) {
          if (next.departures < kDepartures) ++next.departures;
          if (next.departures == kDepartures) next.part_at(done);
        }
        next.go_on_with(prefix[done]);
      }
      fork = std::max<std::uint32_t>(fork, next.fork);
      next.part_at(fork);
      hold(places[i], slot);
    }
  }
}

void PrefixIndex::learn(Slot slot, const PrefixMatch& expected, std::uint32_t actual_blocks) {
  Worker& worker = workers_[slot];
  if (expected.blocks == 0) return;
  // All gone, and much younger than what it usually keeps. Once may be chance, or another prompt than it
  // seemed; again and again it was started anew, or this is what it keeps.
  if (actual_blocks == 0 && expected.age < worker.window / 2) {
    if (++worker.misses < kMissesUntilForgotten) return;
    if (worker.window != kUnlimited) {
      worker.forgotten = worker.clock;
      worker.misses = 0;
      return;
    }
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
    worker.window = std::min(kUnlimited, worker.window + worker.window / 400 + 1);
  }
}

}  // namespace heng
