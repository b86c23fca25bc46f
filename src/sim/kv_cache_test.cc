// The block bookkeeping against a plain model of it, and its rules one by one.
#include "sim/kv_cache.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <deque>
#include <map>

namespace heng {
namespace {

TEST(KvCache, EvictsTheLeastRecentlyFreedFirst) {
  KvCache cache(3);
  const auto a = *cache.allocate();
  const auto b = *cache.allocate();
  const auto c = *cache.allocate();
  EXPECT_FALSE(cache.allocate().has_value());
  cache.publish(a, 1);
  cache.publish(b, 2);
  cache.publish(c, 3);
  cache.release(b);
  cache.release(a);
  cache.release(c);
  EXPECT_EQ(*cache.allocate(), b);
  const std::uint64_t hashes[] = {1, 2, 3};
  EXPECT_EQ(cache.match(std::span(hashes).subspan(0)).blocks, 1u);
  EXPECT_EQ(cache.match(std::span(hashes).subspan(1)).blocks, 0u);
  EXPECT_EQ(cache.match(std::span(hashes).subspan(2)).blocks, 1u);
}

TEST(KvCache, ReferencedBlocksAreSharedAndNotEvicted) {
  KvCache cache(2);
  const auto a = *cache.allocate();
  cache.publish(a, 7);
  EXPECT_EQ(cache.acquire(7), a);
  cache.release(a);
  EXPECT_EQ(cache.used(), 1u);
  EXPECT_NE(*cache.allocate(), a);
  EXPECT_FALSE(cache.allocate().has_value());
  cache.release(a);
  EXPECT_EQ(cache.acquire(7), a);  // found again after it was free
}

TEST(KvCache, TheFirstBlockPublishedUnderAHashKeepsIt) {
  KvCache cache(3);
  const auto a = *cache.allocate();
  const auto b = *cache.allocate();
  cache.publish(a, 7);
  cache.publish(b, 7);
  EXPECT_EQ(cache.acquire(7), a);
}

TEST(KvCacheDeathTest, ADoubleFreeIsABug) {
  KvCache cache(1);
  const auto a = *cache.allocate();
  cache.release(a);
  EXPECT_DEATH(cache.release(a), "references > 0");
}

/// The same rules with standard containers.
struct PlainCache {
  std::vector<int> references;
  std::vector<std::optional<std::uint64_t>> hash;
  std::deque<std::uint32_t> free;

  std::optional<std::uint32_t> holder(std::uint64_t wanted) const {
    for (std::uint32_t i = 0; i < hash.size(); ++i) {
      if (hash[i] == wanted) return i;
    }
    return std::nullopt;
  }
};

RC_GTEST_PROP(KvCacheProperty, BehavesAsThePlainModel, ()) {
  const auto total = *rc::gen::inRange<std::uint32_t>(1, 12);
  KvCache cache(total);
  PlainCache plain{std::vector<int>(total), std::vector<std::optional<std::uint64_t>>(total), {}};
  for (std::uint32_t i = 0; i < total; ++i) plain.free.push_back(i);
  std::vector<std::uint32_t> held;
  const auto steps = *rc::gen::container<std::vector<std::pair<int, std::uint32_t>>>(
      rc::gen::pair(rc::gen::inRange(0, 4), rc::gen::inRange<std::uint32_t>(0, 20)));
  for (const auto& [kind, number] : steps) {
    if (kind == 0) {
      const auto block = cache.allocate();
      RC_ASSERT(block.has_value() == !plain.free.empty());
      if (!block) continue;
      RC_ASSERT(*block == plain.free.front());
      plain.free.pop_front();
      plain.references[*block] = 1;
      plain.hash[*block].reset();
      held.push_back(*block);
    } else if (kind == 1 && !held.empty()) {
      const auto block = held[number % held.size()];
      if (plain.hash[block]) continue;
      cache.publish(block, number);
      if (!plain.holder(number)) plain.hash[block] = number;
    } else if (kind == 2 && !held.empty()) {
      const auto at = held.begin() + number % held.size();
      cache.release(*at);
      if (--plain.references[*at] == 0) plain.free.push_back(*at);
      held.erase(at);
    } else if (kind == 3 && plain.holder(number)) {
      const auto block = *plain.holder(number);
      RC_ASSERT(cache.acquire(number) == block);
      if (plain.references[block]++ == 0) std::erase(plain.free, block);
      held.push_back(block);
    }
    RC_ASSERT(cache.free() == plain.free.size());
    for (std::uint64_t wanted = 0; wanted < 20; ++wanted) {
      const auto match = cache.match(std::span(&wanted, 1));
      const auto block = plain.holder(wanted);
      RC_ASSERT(match.blocks == (block ? 1u : 0u));
      RC_ASSERT(match.free_blocks == (block && plain.references[*block] == 0 ? 1u : 0u));
    }
  }
}

}  // namespace
}  // namespace heng
