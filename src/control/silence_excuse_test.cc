// What a waiting request explains: by assumption, by experience, and no longer than that.
#include "control/silence_excuse.h"

#include <gtest/gtest.h>

namespace heng {
namespace {

constexpr Instant kStart{100s};

RequestView request(std::uint64_t id, double tokens, bool stream = true) {
  RequestView view;
  view.id = id;
  view.prompt_tokens = tokens;
  view.stream = stream;
  return view;
}

/// `count` requests, one after the other, that took so long.
void learn(SilenceExcuse& excuse, int count, const RequestView& view, Duration took) {
  for (int i = 0; i < count; ++i) {
    excuse.on_started(view, kStart);
    EXPECT_TRUE(excuse.on_done(view.id, true, kStart + took));
  }
}

double excuse_s(const SilenceExcuse& excuse, const RequestView& view) {
  return to_seconds(excuse.explained_until(view, kStart) - kStart);
}

TEST(SilenceExcuse, BelievesAnUnknownEngineToBeSlow) { EXPECT_DOUBLE_EQ(excuse_s({}, request(1, 1000)), 16); }

TEST(SilenceExcuse, NeverBelievesMoreThanAThousandTokensASecond) {
  SilenceExcuse excuse;
  learn(excuse, 200, request(1, 8000), 50ms);  // found in the prefix cache
  EXPECT_NEAR(excuse_s(excuse, request(2, 60000)), 60, 0.01);
}

TEST(SilenceExcuse, GoesByTheSlowestOfLateAndForgetsIt) {
  SilenceExcuse excuse;
  learn(excuse, 200, request(1, 100), 50ms);
  EXPECT_NEAR(excuse_s(excuse, request(2, 1000)), 1, 0.01);
  learn(excuse, 1, request(1, 1000), 5100ms);
  EXPECT_NEAR(excuse_s(excuse, request(2, 1000)), 20, 0.01);
  learn(excuse, 100, request(1, 100), 50ms);
  EXPECT_LT(excuse_s(excuse, request(2, 1000)), 1.2);
}

TEST(SilenceExcuse, LearnsNothingFromFailures) {
  SilenceExcuse excuse;
  excuse.on_started(request(1, 10), kStart);
  EXPECT_TRUE(excuse.on_done(1, false, kStart + 100s));
  EXPECT_FALSE(excuse.on_done(1, true, kStart + 100s)) << "ended already";
  EXPECT_DOUBLE_EQ(excuse_s(excuse, request(1, 1000)), 16);
}

TEST(SilenceExcuse, LatestOfThoseWaitingCounts) {
  SilenceExcuse excuse;
  EXPECT_EQ(excuse.explained_until(), Instant{});
  excuse.on_started(request(1, 1000), kStart);
  excuse.on_started(request(2, 10), kStart + 10s);
  EXPECT_EQ(excuse.explained_until(), kStart + 16s);
  excuse.on_done(1, false, kStart + 10s);
  EXPECT_EQ(excuse.explained_until(), kStart + 10s + 160ms);
}

TEST(SilenceExcuse, WholeAnswersTakeTheirTimeUnlessProbesPassThem) {
  SilenceExcuse excuse;
  learn(excuse, 1, request(1, 10, false), 20s);
  EXPECT_DOUBLE_EQ(excuse_s(excuse, request(2, 10, false)), 40);
  EXPECT_DOUBLE_EQ(excuse_s(excuse, request(2, 10, true)), 0.16) << "streams begin sooner";
  for (int i = 0; i < 3; ++i) excuse.on_probe_answered_in_silence();
  EXPECT_DOUBLE_EQ(excuse_s(excuse, request(2, 10, false)), 0.16);
  excuse.on_probe_blocked();
  EXPECT_DOUBLE_EQ(excuse_s(excuse, request(2, 10, false)), 40);
}

}  // namespace
}  // namespace heng
