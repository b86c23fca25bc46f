// Tests of the table of attempts in flight, against a map.
#include "policy/route/attempt_table.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>

namespace heng {
namespace {

RC_GTEST_PROP(AttemptTableProperty, BehavesAsAMap, ()) {
  AttemptTable<int> table;
  std::map<std::pair<std::uint64_t, Slot>, int> map;
  const auto steps = *rc::gen::container<std::vector<std::uint32_t>>(rc::gen::arbitrary<std::uint32_t>());
  int value = 0;
  for (int round = 0; round < 20; ++round) {
    for (const std::uint32_t step : steps) {
      const std::uint64_t request = mix(step + round) % 60;
      const Slot worker = static_cast<Slot>(mix(request) % 3);
      if (mix(step * 31 + round) % 3 != 0) {
        table.put(request, worker, ++value);
        map[{request, worker}] = value;
      } else {
        const auto found = map.extract({request, worker});
        const std::optional<int> taken = table.take(request, worker);
        RC_ASSERT(taken.has_value() == !found.empty());
        if (taken) RC_ASSERT(*taken == found.mapped());
      }
      RC_ASSERT(table.size() == map.size());
      const std::uint64_t asked = mix(step + 7 * round) % 60;
      const auto known = map.find({asked, static_cast<Slot>(mix(asked) % 3)});
      const int* const value_of = table.at(asked, static_cast<Slot>(mix(asked) % 3));
      RC_ASSERT((value_of != nullptr) == (known != map.end()));
      if (value_of != nullptr) RC_ASSERT(*value_of == known->second);
    }
  }
}

TEST(AttemptTable, GrowsAndKeepsEverything) {
  AttemptTable<std::uint64_t> table;
  for (std::uint64_t i = 0; i < 5000; ++i) table.put(i, static_cast<Slot>(i % 7), i);
  EXPECT_FALSE(table.take(3, 4));
  for (std::uint64_t i = 0; i < 5000; ++i) EXPECT_EQ(table.take(i, static_cast<Slot>(i % 7)), i);
  EXPECT_EQ(table.size(), 0u);
}

}  // namespace
}  // namespace heng
