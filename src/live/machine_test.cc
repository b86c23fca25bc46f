// Limits follow from what the machine gives: clients from descriptors, buffered bytes from memory.
#include "live/machine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>

namespace heng {
namespace {

Config with_workers(std::size_t workers) {
  Config config;
  config.pools.emplace_back().workers.resize(workers);
  return config;
}

constexpr MachineLimits kAmple{.descriptors = 1 << 20, .memory_bytes = 64ull << 30};

TEST(Machine, AmpleOneCutsNothing) {
  Config config = with_workers(8);
  EXPECT_TRUE(fit_to_machine(config, kAmple).empty());
  EXPECT_EQ(config.limits.connections, LimitConfig{}.connections);
  EXPECT_EQ(config.limits.buffered_bytes, 16ull << 30) << "a quarter, unless it is given";
  config.limits.buffered_bytes = 1 << 30;
  EXPECT_TRUE(fit_to_machine(config, kAmple).empty());
  EXPECT_EQ(config.limits.buffered_bytes, 1u << 30);
}

TEST(Machine, ConnectionsFollowFromDescriptors) {
  Config config = with_workers(4);
  const std::vector<std::string> cuts =
      fit_to_machine(config, {.descriptors = 1024, .memory_bytes = 64ull << 30});
  EXPECT_EQ(config.limits.connections, (1024u - 32 - 3 * 4) / 2) << "one for a client and one for its worker";
  ASSERT_EQ(cuts.size(), 1u);
  EXPECT_TRUE(cuts[0].contains("limits.connections is 20000")) << cuts[0];
  EXPECT_TRUE(cuts[0].contains("LimitNOFILE")) << cuts[0];
}

TEST(Machine, SomebodyIsAlwaysLetIn) {
  Config config = with_workers(100);
  fit_to_machine(config, {.descriptors = 64, .memory_bytes = 64ull << 30});
  EXPECT_EQ(config.limits.connections, 1u);
}

TEST(Machine, LittleMemoryIsTold) {
  Config config = with_workers(1);
  const std::vector<std::string> cuts =
      fit_to_machine(config, {.descriptors = 1 << 20, .memory_bytes = 64 << 20});
  EXPECT_EQ(config.limits.buffered_bytes, 16u << 20);
  ASSERT_EQ(cuts.size(), 1u);
  EXPECT_TRUE(cuts[0].contains("limits.buffered_bytes")) << cuts[0];
}

TEST(Machine, OfSeveralTenantsNoneHasAllMemory) {
  Config config = with_workers(1);
  config.limits.buffered_bytes = config.limits.body_bytes;
  EXPECT_TRUE(fit_to_machine(config, kAmple).empty());
  config.keys_file = "keys.yaml";
  const std::vector<std::string> cuts = fit_to_machine(config, kAmple);
  ASSERT_EQ(cuts.size(), 1u);
  EXPECT_TRUE(cuts[0].contains("longer than 33554432")) << cuts[0];
}

TEST(Machine, MemoryOfAControlGroupIsTheLeastOnTheWayToTheRoot) {
  std::string pattern = (std::filesystem::temp_directory_path() / "heng_groups_XXXXXX").string();
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  const std::filesystem::path root = pattern;
  std::filesystem::create_directories(root / "a/b/c");
  std::ofstream(root / "a/memory.max") << "1000\n";
  std::ofstream(root / "a/b/memory.max") << "2000\n";
  std::ofstream(root / "a/b/c/memory.max") << "max\n";
  EXPECT_EQ(group_memory_bytes(pattern, "0::/a/b/c\n"), 1000u);
  EXPECT_EQ(group_memory_bytes(pattern, "0::/a/b\n"), 1000u);
  EXPECT_EQ(group_memory_bytes(pattern, "0::/\n"), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(group_memory_bytes(pattern, "0::/gone/away\n"), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(group_memory_bytes(pattern, "4:memory:/a\n"), std::numeric_limits<std::uint64_t>::max());
  std::ofstream(root / "memory.max") << "500\n";  // as a container sees its own
  EXPECT_EQ(group_memory_bytes(pattern, "0::/\n"), 500u);
  EXPECT_EQ(group_memory_bytes(pattern, "0::/a\n"), 500u);
  std::filesystem::remove_all(root);
}

TEST(Machine, IsAskedForAllTheDescriptorsThereAre) {
  const MachineLimits machine = claim_machine_limits();
  EXPECT_GT(machine.descriptors, 0u);
  EXPECT_GT(machine.memory_bytes, 0u);
  EXPECT_EQ(claim_machine_limits().descriptors, machine.descriptors);
}

}  // namespace
}  // namespace heng
