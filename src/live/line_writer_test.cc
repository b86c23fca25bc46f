// Lines reach the file in order, across threads and rotations.
#include "live/line_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "live/loopback_test_peer.h"

namespace heng {
namespace {

class Lines : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "heng_lines_XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const char* name) const { return (folder_ / name).string(); }
  static std::string text_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  std::filesystem::path folder_;
  TurnedLoop loop_;
};

TEST_F(Lines, AreAppendedInOrder) {
  std::string expected = "before\n";
  std::ofstream(path("log")) << expected;
  {
    auto writer = LineWriter::open(loop_.loop(), path("log"), "log");
    ASSERT_TRUE(writer.has_value());
    for (int i = 0; i < 50'000; ++i) {
      const std::string line = "line " + std::to_string(i);
      (*writer)->append(line);
      expected += line + '\n';
    }
    EXPECT_EQ((*writer)->dropped(), 0u);
  }  // writes out what is left
  EXPECT_TRUE(text_of(path("log")) == expected);
}

TEST_F(Lines, AreWrittenWithoutBeingAskedFor) {
  auto writer = LineWriter::open(loop_.loop(), path("log"), "log");
  ASSERT_TRUE(writer.has_value());
  (*writer)->append("one");
  EXPECT_TRUE(loop_.until([&] { return text_of(path("log")) == "one\n"; }));
}

TEST_F(Lines, GoToTheNewFileAfterARotation) {
  auto writer = LineWriter::open(loop_.loop(), path("log"), "log");
  ASSERT_TRUE(writer.has_value());
  (*writer)->append("old");
  ASSERT_TRUE(loop_.until([&] { return text_of(path("log")) == "old\n"; }));
  std::filesystem::rename(path("log"), path("log.1"));
  (*writer)->reopen();
  ASSERT_TRUE(loop_.until([&] { return std::filesystem::exists(path("log")); }));
  (*writer)->append("new");
  EXPECT_TRUE(loop_.until([&] { return text_of(path("log")) == "new\n"; }));
  EXPECT_EQ(text_of(path("log.1")), "old\n");
}

TEST_F(Lines, GoOnIntoTheOldFileIfThereCanBeNoNewOne) {
  std::filesystem::create_directory(path("logs"));
  auto writer = LineWriter::open(loop_.loop(), path("logs/log"), "log");
  ASSERT_TRUE(writer.has_value());
  std::filesystem::rename(path("logs"), path("moved"));
  (*writer)->reopen();
  (*writer)->append("still here");
  EXPECT_TRUE(loop_.until([&] { return text_of(path("moved/log")) == "still here\n"; }));
  EXPECT_EQ((*writer)->dropped(), 0u);
}

TEST_F(Lines, AreCountedWhenTheDiskIsFull) {
  auto writer = LineWriter::open(loop_.loop(), "/dev/full", "log");
  ASSERT_TRUE(writer.has_value());
  (*writer)->append("one");
  (*writer)->append("two");
  EXPECT_TRUE(loop_.until([&] { return (*writer)->dropped() == 2; }));
  (*writer)->append("three");
  EXPECT_TRUE(loop_.until([&] { return (*writer)->dropped() == 3; }));
}

TEST_F(Lines, EndAtTheFirstLossIfAGapWouldDoHarm) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit full = before;
  full.rlim_cur = 10;
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  auto writer = LineWriter::open(loop_.loop(), path("log"), "log", AfterLoss::stop);
  ASSERT_TRUE(writer.has_value());
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
  for (const char* line : {"fits", "fits not"}) (*writer)->append(line);
  EXPECT_FALSE((*writer)->stopped());
  EXPECT_TRUE(loop_.until([&] { return (*writer)->stopped(); }));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, ignored);
  (*writer)->append("after");
  writer->reset();
  EXPECT_EQ(text_of(path("log")), "fits\nfits ");
}

TEST_F(Lines, BeginAnewAfterOneThatSomebodyLeftUnfinished) {
  std::ofstream(path("log")) << "whole\nbroken o";
  auto writer = LineWriter::open(loop_.loop(), path("log"), "log");
  ASSERT_TRUE(writer.has_value());
  (*writer)->append("next");
  EXPECT_TRUE(loop_.until([&] { return text_of(path("log")) == "whole\nbroken o\nnext\n"; }));
}

TEST_F(Lines, GoOnWholeWhenTheDiskHasRoomAgain) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit full = before;
  full.rlim_cur = 10;
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  auto writer = LineWriter::open(loop_.loop(), path("log"), "log");
  ASSERT_TRUE(writer.has_value());
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
  for (const char* line : {"fits", "fits not", "nor this"}) (*writer)->append(line);
  EXPECT_TRUE(loop_.until([&] { return (*writer)->dropped() == 2; }));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, ignored);
  EXPECT_EQ(text_of(path("log")), "fits\nfits ");
  (*writer)->append("after");
  EXPECT_TRUE(loop_.until([&] { return text_of(path("log")) == "fits\nfits \nafter\n"; }));
  EXPECT_EQ((*writer)->dropped(), 2u);
}

TEST_F(Lines, PipeThatNobodyReadsDoesNotHoldUpTheEnd) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  auto writer = LineWriter::open(loop_.loop(), "/proc/self/fd/" + std::to_string(ends[1]), "log");
  ASSERT_TRUE(writer.has_value());
  const std::string line(1000, 'x');
  for (int i = 0; i < 200; ++i) (*writer)->append(line);  // more than a pipe holds
  writer->reset();
  ::close(ends[1]);
  std::string got(1 << 20, '\0');
  const ssize_t bytes = ::read(ends[0], got.data(), got.size());
  EXPECT_GT(bytes, 0);
  EXPECT_EQ(bytes % 1001, 0) << "lines are whole";
  ::close(ends[0]);
}

TEST_F(Lines, FileThatCannotBeWrittenIsNamed) {
  const auto writer = LineWriter::open(loop_.loop(), path("absent/log"), "log");
  ASSERT_FALSE(writer.has_value());
  EXPECT_TRUE(writer.error().message.contains(path("absent/log"))) << writer.error().message;
}

}  // namespace
}  // namespace heng
