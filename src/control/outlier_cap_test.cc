// Which workers of a pool are used, by what is known of all of them.
#include "control/outlier_cap.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace heng {
namespace {

/// "fdox" = fine, doubted, outlier, dead. -> who may be given requests, in the same order.
std::string used(const std::string& pool, double max_ejected_share = 0.5) {
  std::vector<Standing> members;
  for (const char c : pool) members.push_back(static_cast<Standing>(std::string("fdox").find(c)));
  const Standing worst = worst_in_use(members, max_ejected_share);
  std::string list;
  for (std::size_t i = 0; i < pool.size(); ++i) {
    if (members[i] <= worst) list += pool[i];
  }
  return list;
}

TEST(OutlierCap, LeavesOutTheDoubtfulWhileMostAreFine) {
  EXPECT_EQ(used("ffd"), "ff");
  EXPECT_EQ(used("fo"), "f");
  EXPECT_EQ(used("fd"), "f");
  EXPECT_EQ(used("fffoox"), "fff");
  EXPECT_EQ(used(""), "");
}

TEST(OutlierCap, UsesAllThatLiveWhenMoreThanTheShareWouldBeOut) {
  EXPECT_EQ(used("o"), "o") << "three 500s do not take the last worker out";
  EXPECT_EQ(used("oo"), "oo");
  EXPECT_EQ(used("foo"), "foo");
  EXPECT_EQ(used("fdo"), "fdo");
  EXPECT_EQ(used("ffffffffoo", 0.1), "ffffffffoo");
  EXPECT_EQ(used("fffffffffo", 0.1), "fffffffff");
}

TEST(OutlierCap, TheDeadAreNeitherUsedNorCounted) {
  EXPECT_EQ(used("xx"), "");
  EXPECT_EQ(used("fxxxxx"), "f");
  EXPECT_EQ(used("foxxxx"), "f");
  EXPECT_EQ(used("dox"), "do");
}

RC_GTEST_PROP(OutlierCapProperty, BoundsHoldForAnyPool, (const std::vector<std::uint8_t>& codes)) {
  std::vector<Standing> members;
  for (const std::uint8_t code : codes) members.push_back(static_cast<Standing>(code % 4));
  const double share = *rc::gen::inRange(0, 101) / 100.0;
  const Standing worst = worst_in_use(members, share);
  const auto alive = members.size() - static_cast<std::size_t>(std::ranges::count(members, Standing::dead));
  const auto used = static_cast<std::size_t>(
      std::ranges::count_if(members, [&](Standing standing) { return standing <= worst; }));
  RC_ASSERT(worst != Standing::dead);
  RC_ASSERT(used <= alive);
  RC_ASSERT((used == 0) == (alive == 0));
  RC_ASSERT(static_cast<double>(alive - used) <= share * static_cast<double>(alive) + 1e-6);
}

}  // namespace
}  // namespace heng
