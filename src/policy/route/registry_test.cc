// Tests of the table of policies, the checks of options, and the reference page.
#include "policy/route/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

namespace heng {
namespace {

TEST(Registry, EntriesAreComplete) {
  std::set<std::string_view> names;
  for (const RoutePolicyEntry& entry : route_policies()) {
    EXPECT_TRUE(names.insert(entry.name).second) << entry.name;
    EXPECT_EQ(find_route_policy(entry.name), &entry);
    EXPECT_FALSE(entry.summary.empty());
    EXPECT_GT(entry.details.size(), 100u) << entry.name;
    EXPECT_TRUE(check_values(entry, default_values(entry))) << entry.name;
    EXPECT_NE(entry.make(default_values(entry)), nullptr);
    std::set<std::string_view> keys;
    for (const OptionField& field : entry.fields) {
      EXPECT_TRUE(keys.insert(field.key).second) << field.key;
      EXPECT_FALSE(field.doc.empty());
    }
  }
  EXPECT_THAT(names, testing::IsSupersetOf({"round_robin", "weighted_round_robin", "least_connections",
                                            "response_time", "two_choices", "hash", "dynamic_weight"}));
  EXPECT_EQ(find_route_policy("nonsense"), nullptr);
}

TEST(Registry, ValuesOutsideTheirRangeAreNamed) {
  for (const RoutePolicyEntry& entry : route_policies()) {
    for (std::size_t i = 0; i < entry.fields.size(); ++i) {
      const OptionField& field = entry.fields[i];
      for (const double wrong : {field.min - 1, field.max * 2 + 1, std::nan("")}) {
        OptionValues values = default_values(entry);
        values[i] = wrong;
        const Result<void> checked = check_values(entry, values);
        ASSERT_FALSE(checked) << entry.name << " " << field.key;
        EXPECT_THAT(checked.error().message, testing::HasSubstr(std::string(field.key)));
      }
      OptionValues values = default_values(entry);
      values[i] = 0.5;
      EXPECT_TRUE(!field.is_flag || !check_values(entry, values)) << field.key;
    }
  }
}

/// Runs in the source folder, as ctest sets it up.
TEST(Registry, ReferencePageIsUpToDate) {
  const char* path = "docs/reference/policies.md";
  std::stringstream page;
  page << std::ifstream(path).rdbuf();
  EXPECT_EQ(page.str(), route_policy_reference())
      << path << " differs from the program: regenerate it with build/release/heng docs --write";
}

}  // namespace
}  // namespace heng
