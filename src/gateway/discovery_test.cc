// Workers out of a watched file: every way in which files are replaced, and that mistakes take nobody away.
#include "gateway/discovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace heng {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class FileDiscovery : public testing::Test {
 protected:
  FileDiscovery() {
    std::filesystem::create_directories(folder_);
    write("list.yaml", "[http://10.0.0.1:8000]");
  }
  ~FileDiscovery() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path path(const char* name) const { return folder_ / name; }
  void write(const char* name, const std::string& text) const { std::ofstream(path(name)) << text; }
  /// So many looks at the file.
  void look(Discovery& discovery, int times = 2) {
    for (int i = 0; i < times; ++i) discovery.tick(now_ += std::chrono::seconds(1));
  }
  static std::vector<std::string> names(const Discovery& discovery) {
    std::vector<std::string> list;
    for (const WorkerConfig& worker : discovery.workers()) {
      EXPECT_EQ(worker.origin, WorkerOrigin::discovery_file);
      list.push_back(worker.name);
    }
    return list;
  }

  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("heng_discovery_" + std::to_string(getpid()));
  Loop loop_;
  Resolver resolver_{loop_};
  DiscoverConfig config_{.dns = {}, .file = path("list.yaml").string()};
  Instant now_{};
};

TEST_F(FileDiscovery, IsReadAtOnce) {
  const Discovery discovery(resolver_, "m", config_);
  EXPECT_THAT(names(discovery), ElementsAre("10.0.0.1:8000"));
}

TEST_F(FileDiscovery, FollowsEditsInPlaceRenamesAndLinks) {
  Discovery discovery(resolver_, "m", config_);
  const auto version = discovery.version();
  look(discovery);
  EXPECT_EQ(discovery.version(), version);
  write("list.yaml", "[http://10.0.0.2:8000, http://10.0.0.3:8000]");
  look(discovery);
  EXPECT_THAT(names(discovery), ElementsAre("10.0.0.2:8000", "10.0.0.3:8000"));
  EXPECT_NE(discovery.version(), version);

  write("new.yaml", "[http://10.0.0.4:8000, http://10.0.0.5:8000]");  // of the same size
  std::filesystem::rename(path("new.yaml"), path("list.yaml"));
  look(discovery);
  EXPECT_THAT(names(discovery), ElementsAre("10.0.0.4:8000", "10.0.0.5:8000"));

  // As Kubernetes replaces a ConfigMap: list.yaml -> data/list.yaml, data -> a folder that is swapped.
  for (const char* folder : {"one", "two"}) std::filesystem::create_directory(path(folder));
  write("one/list.yaml", "[http://10.0.0.6:8000]");
  write("two/list.yaml", "[http://10.0.0.7:8000]");
  std::filesystem::create_directory_symlink("one", path("data"));
  std::filesystem::remove(path("list.yaml"));
  std::filesystem::create_symlink("data/list.yaml", path("list.yaml"));
  look(discovery);
  EXPECT_THAT(names(discovery), ElementsAre("10.0.0.6:8000"));
  std::filesystem::create_directory_symlink("two", path("data_new"));
  std::filesystem::rename(path("data_new"), path("data"));
  look(discovery);
  EXPECT_THAT(names(discovery), ElementsAre("10.0.0.7:8000"));
}

TEST_F(FileDiscovery, MistakesKeepTheLastGoodListAndAnEmptyListIsObeyed) {
  Discovery discovery(resolver_, "m", config_);
  for (const char* text : {"", "# nothing", "- {url: ", "workers: []", "- ftp://10.0.0.1", "\x01\xff"}) {
    write("list.yaml", text);
    look(discovery);
    EXPECT_THAT(names(discovery), ElementsAre("10.0.0.1:8000")) << text;
  }
  std::filesystem::remove(path("list.yaml"));
  look(discovery);
  EXPECT_THAT(names(discovery), ElementsAre("10.0.0.1:8000"));
  std::filesystem::create_directory(path("list.yaml"));
  look(discovery);
  EXPECT_THAT(names(discovery), ElementsAre("10.0.0.1:8000"));
  std::filesystem::remove(path("list.yaml"));
  write("list.yaml", "[]");
  look(discovery);
  EXPECT_THAT(names(discovery), IsEmpty());
  write("list.yaml", "[http://10.0.0.9:8000]");
  look(discovery);
  EXPECT_THAT(names(discovery), ElementsAre("10.0.0.9:8000"));
}

TEST_F(FileDiscovery, AFileThatIsBeingWrittenIsLeftAlone) {
  Discovery discovery(resolver_, "m", config_);
  for (const char* text : {"- http://10.0.0.2:8000\n", "- http://10.0.0.2:8000\n- http://10.0.0.3:8000\n"}) {
    write("list.yaml", text);
    look(discovery, 1);
    EXPECT_THAT(names(discovery), ElementsAre("10.0.0.1:8000"));
  }
  look(discovery, 1);
  EXPECT_THAT(names(discovery), ElementsAre("10.0.0.2:8000", "10.0.0.3:8000"));
}

TEST_F(FileDiscovery, WaitsForAFileThatIsNotThereYet) {
  std::filesystem::remove(path("list.yaml"));
  Discovery discovery(resolver_, "m", config_);
  look(discovery);
  EXPECT_THAT(names(discovery), IsEmpty());
  write("list.yaml", "[http://10.0.0.2:8000]");
  look(discovery);
  EXPECT_THAT(names(discovery), ElementsAre("10.0.0.2:8000"));
}

}  // namespace
}  // namespace heng
