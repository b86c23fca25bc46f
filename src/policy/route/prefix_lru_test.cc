// Tests of what is remembered of the prompts sent to each worker, against a plain list.
#include "policy/route/prefix_lru.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <list>

#include "policy/route/test_pool.h"

namespace heng {
namespace {

/// The same by searching lists from end to end. Every block is one token.
class PlainLru {
 public:
  PlainLru(const PrefixLruOptions& options, std::size_t workers) : options_(options), workers_(workers) {}

  void insert(std::vector<std::uint64_t> prefix, Slot slot) {
    if (!options_.heads_first) std::ranges::reverse(prefix);
    for (const std::uint64_t hash : prefix) {
      blocks_.remove({hash, slot});
      const auto counts = [&](const Block& block) { return options_.shared || block.second == slot; };
      if (std::ranges::count_if(blocks_, counts) >= static_cast<std::ptrdiff_t>(options_.tokens)) {
        blocks_.erase(std::ranges::find_if(blocks_, counts));
      }
      blocks_.emplace_back(hash, slot);
    }
  }
  void leave(Slot slot) {
    std::erase_if(blocks_, [&](const Block& block) { return block.second == slot; });
  }
  std::vector<std::uint32_t> match(const std::vector<std::uint64_t>& prefix) const {
    std::vector<std::uint32_t> result(workers_);
    for (Slot slot = 0; slot < workers_; ++slot) {
      for (const std::uint64_t hash : prefix) {
        const bool here = std::ranges::find(blocks_, Block(hash, slot)) != blocks_.end();
        if (here) ++result[slot];
        if (!here && !options_.after_gaps) break;
        if (std::ranges::none_of(blocks_, [&](const Block& block) { return block.first == hash; })) break;
      }
    }
    return result;
  }

 private:
  using Block = std::pair<std::uint64_t, Slot>;
  PrefixLruOptions options_;
  std::size_t workers_;
  std::list<Block> blocks_;  // oldest first
};

/// Prompts that share beginnings: a path in a tree in which each block has two that can follow it.
std::vector<std::uint64_t> prompt(Rng& rng) {
  std::vector<std::uint64_t> blocks;
  std::uint64_t hash = 0;
  for (std::uint64_t left = rng.below(7); left > 0; --left) {
    blocks.push_back(hash = combine(hash, 1 + rng.below(2)));
  }
  return blocks;
}

RC_GTEST_PROP(PrefixLruProperty, IsAListForEachWorkerOrForAll, ()) {
  const PrefixLruOptions options{.tokens = *rc::gen::inRange(1, 40) * 1.0,
                                 .shared = *rc::gen::arbitrary<bool>(),
                                 .heads_first = *rc::gen::arbitrary<bool>(),
                                 .after_gaps = *rc::gen::arbitrary<bool>()};
  Rng rng(*rc::gen::arbitrary<std::uint64_t>());
  TestPool pool(3);
  PrefixLru index(options);
  PlainLru plain(options, 3);
  index.sync(pool.view());
  for (int step = 0; step < 300; ++step) {
    const auto slot = static_cast<Slot>(rng.below(3));
    const std::vector<std::uint64_t> blocks = prompt(rng);
    if (rng.below(40) == 0) {
      pool.remove(slot);
      pool.add();
      plain.leave(slot);
      index.sync(pool.view());
    } else if (rng.below(2) == 0) {
      index.insert(blocks, 1, slot);
      plain.insert(blocks, slot);
    }
    const std::span<const std::uint32_t> found = index.match(blocks);
    RC_ASSERT(std::ranges::equal(found, plain.match(blocks)));
  }
}

TEST(PrefixLru, BlocksCountByTheirTokens) {
  TestPool pool(2);
  PrefixLru index({.tokens = 100});
  index.sync(pool.view());
  const std::vector<std::uint64_t> one{11, 12}, two{21};
  index.insert(one, 40, 0);
  index.insert(two, 20, 0);
  EXPECT_THAT(index.match(one), testing::ElementsAre(2, 0));
  index.insert(two, 20, 1);
  index.insert(std::vector<std::uint64_t>{31}, 30, 0);  // the last block of the oldest prompt makes room
  EXPECT_THAT(index.match(one), testing::ElementsAre(1, 0));
  EXPECT_THAT(index.match(two), testing::ElementsAre(1, 1));
}

}  // namespace
}  // namespace heng
