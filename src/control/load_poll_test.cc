// When workers are asked for their load: the rhythm, the phases, and the patience with those that say
// nothing.
#include "control/load_poll.h"

#include <gtest/gtest.h>

#include <vector>

namespace heng {
namespace {

/// The moments at which a gateway that looks every 100 ms asks, each answered after `takes`.
std::vector<Duration> asked(LoadPoll& poll, LoadAnswer answer, Duration from, Duration until,
                            Duration takes = 0s) {
  std::vector<Duration> moments;
  Instant answer_at = Instant::max();
  for (Instant now(from); now < Instant(until); now += 100ms) {
    if (now >= answer_at) poll.on_answer(answer, std::exchange(answer_at, Instant::max()));
    if (!poll.due(now)) continue;
    moments.push_back(now.time_since_epoch());
    poll.on_sent(now);
    answer_at = now + takes;
    if (takes == 0s) poll.on_answer(answer, std::exchange(answer_at, Instant::max()));
  }
  if (answer_at != Instant::max()) poll.on_answer(answer, answer_at);
  return moments;
}

TEST(LoadPoll, NeverAsksUnlessStarted) {
  LoadPoll poll;
  EXPECT_FALSE(poll.on());
  EXPECT_FALSE(poll.due(Instant::max()));
  poll.start(1s, 0, Instant{});
  EXPECT_TRUE(poll.due(Instant{}));
  poll.start(0s, 0, Instant{});
  EXPECT_FALSE(poll.due(Instant::max()));
}

TEST(LoadPoll, AsksOnceAnIntervalFromItsPhaseOn) {
  LoadPoll poll;
  poll.start(1s, 0.25, Instant(10s));
  EXPECT_EQ(asked(poll, LoadAnswer::load, 10s, 14s),
            (std::vector<Duration>{10'300ms, 11'300ms, 12'300ms, 13'300ms}));
}

TEST(LoadPoll, SlowAnswersDoNotShiftTheRhythmAndAreAwaited) {
  LoadPoll poll;
  poll.start(1s, 0, Instant{});
  EXPECT_EQ(asked(poll, LoadAnswer::load, 0s, 3s, 600ms), (std::vector<Duration>{0s, 1s, 2s}));
  LoadPoll slow;
  slow.start(1s, 0, Instant{});
  EXPECT_EQ(asked(slow, LoadAnswer::load, 0s, 5s, 1500ms), (std::vector<Duration>{0s, 1500ms, 3s, 4500ms}));
}

TEST(LoadPoll, FailuresAreAskedLessAndLess) {
  LoadPoll poll;
  poll.start(1s, 0, Instant{});
  EXPECT_EQ(asked(poll, LoadAnswer::failed, 0s, 40s), (std::vector<Duration>{0s, 2s, 6s, 14s, 24s, 34s}));
  // One good answer, and the interval holds again.
  EXPECT_EQ(asked(poll, LoadAnswer::load, 40s, 47s), (std::vector<Duration>{44s, 45s, 46s}));
  // An interval longer than the longest wait is kept.
  poll.start(30s, 0, Instant(47s));
  EXPECT_EQ(asked(poll, LoadAnswer::failed, 47s, 110s), (std::vector<Duration>{47s, 77s, 107s}));
}

TEST(LoadPoll, WorkersThatSayNothingAreAskedOnceAMinute) {
  LoadPoll poll;
  poll.start(1s, 0, Instant{});
  EXPECT_EQ(asked(poll, LoadAnswer::absent, 0s, 150s), (std::vector<Duration>{0s, 60s, 120s}));
}

TEST(LoadPoll, TheSameIntervalAgainChangesNothing) {
  LoadPoll poll;
  poll.start(1s, 0, Instant{});
  asked(poll, LoadAnswer::absent, 0s, 100ms);
  poll.start(1s, 0, Instant(1s));  // as a reload does
  EXPECT_FALSE(poll.due(Instant(59s)));
  poll.start(2s, 0, Instant(1s));
  EXPECT_TRUE(poll.due(Instant(1s)));
}

}  // namespace
}  // namespace heng
