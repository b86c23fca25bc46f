// The index finds what was put in, as a table of everything would, and learns how much a worker keeps.
#include "policy/route/prefix_index.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "base/hash.h"
#include "policy/route/test_pool.h"

namespace heng {
namespace {

using Chain = std::vector<std::uint64_t>;

/// Hashes of a prompt given as its blocks' contents.
Chain chain_of(const std::vector<int>& blocks) {
  Chain chain;
  std::uint64_t hash = 1;
  for (const int block : blocks) chain.push_back(hash = combine(hash, static_cast<std::uint64_t>(block)));
  return chain;
}

std::vector<std::uint32_t> matches(PrefixIndex& index, const Chain& chain, std::size_t slots) {
  std::vector<PrefixMatch> found(slots);
  index.match(chain, found);
  std::vector<std::uint32_t> blocks;
  for (const PrefixMatch& match : found) blocks.push_back(match.blocks);
  return blocks;
}

RC_GTEST_PROP(PrefixIndexProperty, FindsTheLongestMatchOfEachWorker, ()) {
  TestPool pool(*rc::gen::inRange<std::size_t>(1, 9));
  PrefixIndex index(16 << 20);  // so large that no set of the table is ever full
  index.sync(pool.view());
  const std::size_t slots = pool.identity.size();
  std::vector<std::set<std::uint64_t>> everything(slots);
  const auto prompts = rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 3));
  for (int i = *rc::gen::inRange(1, 60); i > 0; --i) {
    const Chain chain = chain_of(*prompts);
    std::vector<std::uint32_t> expected(slots, 0);
    for (std::size_t slot = 0; slot < slots; ++slot) {
      while (expected[slot] < chain.size() && everything[slot].contains(chain[expected[slot]]))
        ++expected[slot];
    }
    RC_ASSERT(matches(index, chain, slots) == expected);
    const auto slot = static_cast<Slot>(*rc::gen::inRange<std::size_t>(0, slots));
    index.insert(chain, slot, expected[slot]);
    everything[slot].insert(chain.begin(), chain.end());
  }
}

TEST(PrefixIndex, ForgetsLeastRecentlyUsedFirstWithinItsMemory) {
  TestPool pool(2);
  PrefixIndex index(16 << 10);
  index.sync(pool.view());
  ASSERT_LT(index.capacity(), 1000U);
  const Chain hot = chain_of({1, 2, 3, 4});
  for (int i = 0; i < 5000; ++i) {
    index.insert(hot, 0, 4);
    index.insert(chain_of({1000 + i}), 1, 0);
  }
  EXPECT_EQ(matches(index, hot, 2)[0], 4U);
  EXPECT_EQ(matches(index, chain_of({1000}), 2)[1], 0U);
}

TEST(PrefixIndex, ATextIsNamedByWhereItPartsFromOthers) {
  TestPool pool(1);
  PrefixIndex index(1 << 20);
  index.sync(pool.view());
  std::vector<PrefixMatch> found(1);
  const auto name = [&](const Chain& chain) { return index.match(chain, found).name; };
  // Unknown, or one text only: by its first block.
  EXPECT_EQ(name(chain_of({1, 2, 3})), chain_of({1})[0]);
  index.insert(chain_of({1, 2, 3}), 0, 0);
  EXPECT_EQ(name(chain_of({1, 2, 3, 4})), chain_of({1})[0]);
  // Edited once or twice it is still one text.
  index.insert(chain_of({1, 2, 9}), 0, 0);
  EXPECT_EQ(name(chain_of({1, 2, 3})), chain_of({1})[0]);
  for (int text = 10; text < 14; ++text) index.insert(chain_of({1, 2, text}), 0, 0);
  // Now many begin with {1, 2}: what follows is the name, known or not, however far the text goes.
  EXPECT_EQ(name(chain_of({1, 2, 20})), chain_of({1, 2, 20})[2]);
  index.insert(chain_of({1, 2, 20, 21}), 0, 0);
  EXPECT_EQ(name(chain_of({1, 2, 20, 21, 22})), chain_of({1, 2, 20})[2]);
  EXPECT_EQ(index.match(chain_of({1, 2, 20, 21, 22}), found).shared_blocks, 2U);
  EXPECT_EQ(name(chain_of({1, 2})), chain_of({1, 2})[1]);
  EXPECT_EQ(name({}), 0U);
}

TEST(PrefixIndex, LongPromptsAreRememberedInEverGreaterSteps) {
  TestPool pool(2);
  PrefixIndex index(1 << 20);
  index.sync(pool.view());
  std::vector<int> text(3000);
  for (int i = 0; i < 3000; ++i) text[static_cast<std::size_t>(i)] = i;
  const Chain whole = chain_of(text);
  for (const std::size_t had : {60U, 64U, 65U, 66U, 127U, 128U, 131U, 1562U, 3000U}) {
    index.insert(std::span(whole).first(had), 0, 0);
    const std::uint32_t found = matches(index, whole, 2)[0];
    EXPECT_LE(found, had);
    EXPECT_GE(found, had - had / 32) << had;
  }
}

TEST(PrefixIndex, OfManyHoldersTheLatestAreRemembered) {
  TestPool pool(100);
  PrefixIndex index(1 << 20);
  index.sync(pool.view());
  const Chain chain = chain_of({1, 2, 3});
  for (Slot slot = 0; slot < 100; ++slot) {
    // The later, the less time passes for the worker after it took the prompt in.
    index.insert(chain, slot, 0);
    for (Slot other = 0; other <= slot; ++other)
      index.insert(chain_of({static_cast<int>(1000 + slot)}), other, 0);
  }
  const std::vector<std::uint32_t> blocks = matches(index, chain, 100);
  EXPECT_EQ(blocks[99], 3U);
  EXPECT_EQ(std::ranges::count(blocks, 3U), 16);
}

TEST(PrefixIndex, ASlotsNewWorkerHasNothing) {
  TestPool pool(2);
  PrefixIndex index(1 << 20);
  index.sync(pool.view());
  const Chain chain = chain_of({1, 2, 3});
  index.insert(chain, 0, 0);
  index.insert(chain, 1, 0);
  pool.remove(0);
  EXPECT_EQ(pool.add(), 0U);
  index.sync(pool.view());
  EXPECT_EQ(matches(index, chain, 2), (std::vector<std::uint32_t>{0, 3}));
}

/// A worker that keeps `capacity` blocks, least recently used out first.
class Cache {
 public:
  explicit Cache(std::size_t capacity) : capacity_(capacity) {}
  std::uint32_t use(const Chain& chain) {
    std::uint32_t had = 0;
    while (had < chain.size() && used_.contains(chain[had])) ++had;
    for (const std::uint64_t key : chain) used_[key] = ++clock_;
    while (used_.size() > capacity_)
      used_.erase(std::ranges::min_element(used_, {}, [](const auto& entry) { return entry.second; }));
    return had;
  }

 private:
  std::size_t capacity_;
  std::uint64_t clock_ = 0;
  std::map<std::uint64_t, std::uint64_t> used_;
};

TEST(PrefixIndex, LearnsHowMuchAWorkerKeeps) {
  TestPool pool(1);
  PrefixIndex index(1 << 22), untold(1 << 22);
  index.sync(pool.view());
  untold.sync(pool.view());
  Cache cache(400);
  Rng rng(3);
  std::vector<PrefixMatch> found(1), believed(1);
  double wrong = 0, wrong_untold = 0;
  for (int i = 0; i < 4000; ++i) {
    std::vector<int> blocks(10);
    const int prompt = static_cast<int>(rng.below(200));  // five times what fits
    for (int b = 0; b < 10; ++b) blocks[static_cast<std::size_t>(b)] = prompt * 10 + b;
    const Chain chain = chain_of(blocks);
    index.match(chain, found);
    untold.match(chain, believed);
    const std::uint32_t had = cache.use(chain);
    wrong += std::abs(static_cast<double>(found[0].blocks) - had) / 10;
    wrong_untold += std::abs(static_cast<double>(believed[0].blocks) - had) / 10;
    index.learn(0, found[0], had);
    index.insert(chain, 0, had);
    untold.insert(chain, 0, had);
  }
  EXPECT_LT(wrong / 4000, 0.1);
  EXPECT_GT(wrong_untold / 4000, 0.5);
}

TEST(PrefixIndex, AWorkerThatWasStartedAnewIsForgotten) {
  TestPool pool(2);
  PrefixIndex index(1 << 20);
  index.sync(pool.view());
  std::vector<PrefixMatch> found(2);
  for (int i = 0; i < 100; ++i) index.insert(chain_of({i, 1, 2, 3}), 0, 0);
  for (int i = 0; i < 3; ++i) {  // some are evicted; one alone would say nothing
    index.match(chain_of({i, 1, 2, 3}), found);
    EXPECT_EQ(found[0].blocks, 4U);
    index.learn(0, found[0], 0);
  }
  EXPECT_EQ(matches(index, chain_of({99, 1, 2, 3}), 2)[0], 4U);
  for (int i = 90; i < 93; ++i) {  // but none of so short ago
    index.match(chain_of({i, 1, 2, 3}), found);
    EXPECT_EQ(found[0].blocks, 4U);
    index.learn(0, found[0], 0);
  }
  EXPECT_EQ(matches(index, chain_of({99, 1, 2, 3}), 2)[0], 0U);
}

}  // namespace
}  // namespace heng
