// The loop's order: urgent callbacks before bulk ones, bulk ones in turn, and none after a stop.
#include "live/loop.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <memory>
#include <vector>

namespace heng {
namespace {

/// A pair of connected sockets whose near end is watched.
class Watched {
 public:
  Watched(Loop& loop, std::function<void()> call) : call_(std::move(call)) {
    HENG_ASSERT(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends_.data()) == 0);
    watch_.start(
        loop, ends_[0],
        [](void* self, FdWatch::Ready ready) {
          if (ready.read) static_cast<Watched*>(self)->call_();
        },
        this);
  }
  ~Watched() {
    watch_.stop();
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  void feed() { HENG_ASSERT(::write(ends_[1], "x", 1) == 1); }
  FdWatch& watch() { return watch_; }

 private:
  std::array<int, 2> ends_{};
  std::function<void()> call_;
  FdWatch watch_;
};

TEST(Loop, UrgentCallbacksOvertakeBulkOnes) {
  Loop loop;
  constexpr int kBulk = 300;
  int bulk_done = 0;
  int bulk_before_urgent = -1;
  std::vector<std::unique_ptr<Watched>> bulk;
  Watched urgent(loop, [&] { bulk_before_urgent = bulk_done; });
  for (int i = 0; i < kBulk; ++i) {
    bulk.push_back(std::make_unique<Watched>(loop, [&] {
      if (++bulk_done == 1) urgent.feed();  // comes while 299 wait
      if (bulk_done == kBulk) loop.stop();
    }));
    bulk.back()->watch().set_bulk(true);
    bulk.back()->feed();
  }
  loop.run();
  EXPECT_EQ(bulk_done, kBulk);
  EXPECT_GT(bulk_before_urgent, 0);
  EXPECT_LT(bulk_before_urgent, kBulk);
}

TEST(Loop, BulkIsServedUnderAFloodOfUrgentEvents) {
  Loop loop;
  int bulk_done = 0;
  std::unique_ptr<Watched> flood;
  flood = std::make_unique<Watched>(loop, [&] { flood->feed(); });  // always ready again
  Watched bulk(loop, [&] {
    ++bulk_done;
    loop.stop();
  });
  bulk.watch().set_bulk(true);
  flood->feed();
  bulk.feed();
  loop.run();
  EXPECT_EQ(bulk_done, 1);
}

TEST(Loop, AStoppedWatchIsNotCalledFromTheQueue) {
  Loop loop;
  int calls = 0;
  std::vector<std::unique_ptr<Watched>> bulk;
  for (int i = 0; i < 3; ++i) {
    bulk.push_back(std::make_unique<Watched>(loop, [&] {
      ++calls;
      for (auto& other : bulk) other->watch().stop();  // the first to be called stops all, itself included
      loop.defer([&] { loop.stop(); });
    }));
    bulk.back()->watch().set_bulk(true);
    bulk.back()->feed();
  }
  loop.run();
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace heng
