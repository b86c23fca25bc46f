// Limits of keys: no minute exceeds them, nothing leaks, and clients are told when to come back.
#include "flow/rate_limit.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <deque>
#include <map>

namespace heng {
namespace {

using Limit = RateRefusal::Limit;

TEST(RateLimit, RequestsPerMinuteRefillSteadily) {
  KeyUse use({.requests_per_minute = 60}, Instant{});
  for (int i = 0; i < 60; ++i) ASSERT_FALSE(use.admit(0, Instant{}));
  const auto refusal = use.admit(0, Instant{});
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->limit, Limit::requests);
  EXPECT_TRUE(refusal->ever);
  EXPECT_EQ(refusal->retry_after, 1s);
  EXPECT_TRUE(use.admit(0, Instant(999ms)));
  EXPECT_FALSE(use.admit(0, Instant(1s)));
}

TEST(RateLimit, TokensAreReservedAndSettled) {
  KeyUse use({.tokens_per_minute = 1000}, Instant{});
  ASSERT_FALSE(use.admit(900, Instant{}));
  const auto refusal = use.admit(200, Instant{});
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->limit, Limit::tokens);
  EXPECT_NEAR(to_seconds(refusal->retry_after), 6, 1e-6);
  use.end(900, 100, Instant{});
  EXPECT_FALSE(use.admit(900, Instant{})) << "what was not used is back";
  use.end(900, 2900, Instant{});
  EXPECT_NEAR(to_seconds(use.admit(1, Instant{})->retry_after), 120.06, 0.01) << "overdrawn";
}

TEST(RateLimit, DebtsAreBounded) {
  KeyUse use({.tokens_per_minute = 1000}, Instant{});
  ASSERT_FALSE(use.admit(1, Instant{}));
  use.end(1, 1e12, Instant{});
  EXPECT_TRUE(use.admit(1, Instant(60min)));
  EXPECT_FALSE(use.admit(1, Instant(61min)));
}

TEST(RateLimit, WhatCanNeverFitIsToldSo) {
  KeyUse use({.tokens_per_minute = 1000}, Instant{});
  const auto refusal = use.admit(1001, Instant{});
  ASSERT_TRUE(refusal);
  EXPECT_FALSE(refusal->ever);
  EXPECT_NE(refusal->message.find("max_tokens"), std::string::npos);
}

TEST(RateLimit, ConcurrentRequestsEndOnce) {
  KeyUse use({.concurrent = 2}, Instant{});
  EXPECT_FALSE(use.admit(5, Instant{}));
  EXPECT_FALSE(use.admit(5, Instant{}));
  EXPECT_EQ(use.admit(5, Instant{})->limit, Limit::concurrent);
  use.end(5, 5, Instant{});
  EXPECT_FALSE(use.admit(5, Instant{}));
}

TEST(RateLimit, ARefusedRequestCostsNothing) {
  KeyUse use({.requests_per_minute = 10, .tokens_per_minute = 100, .concurrent = 9}, Instant{});
  ASSERT_FALSE(use.admit(60, Instant{}));
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(use.admit(60, Instant{}));
  EXPECT_EQ(use.requests().level(Instant{}), 9);
  EXPECT_EQ(use.concurrent(), 1u);
}

TEST(RateLimit, AReloadKeepsWhatIsUsed) {
  KeyUse use({.requests_per_minute = 100}, Instant{});
  for (int i = 0; i < 90; ++i) ASSERT_FALSE(use.admit(0, Instant{}));
  use.set_limits({.requests_per_minute = 100}, Instant{});
  EXPECT_EQ(use.requests().level(Instant{}), 10);
  use.set_limits({.requests_per_minute = 200, .concurrent = 50}, Instant{});
  EXPECT_EQ(use.requests().level(Instant{}), 110);
  EXPECT_EQ(use.admit(0, Instant{})->limit, Limit::concurrent) << "those under way count";
  use.set_limits({}, Instant{});
  EXPECT_FALSE(use.admit(1e12, Instant{}));
}

TEST(RateLimit, ASleepOfHoursIsOneMinutesWorth) {
  KeyUse use({.requests_per_minute = 60}, Instant{});
  for (int i = 0; i < 60; ++i) ASSERT_FALSE(use.admit(0, Instant{}));
  int taken = 0;
  while (!use.admit(0, Instant(5h))) ++taken;
  EXPECT_EQ(taken, 60);
}

TEST(RateLimit, SpansAreWrittenAsOpenAiWritesThem) {
  EXPECT_EQ(format_reset(0ms), "0ms");
  EXPECT_EQ(format_reset(19500us), "20ms");
  EXPECT_EQ(format_reset(1s), "1s");
  EXPECT_EQ(format_reset(1100ms), "2s");
  EXPECT_EQ(format_reset(59900ms), "1m0s");
  EXPECT_EQ(format_reset(6min), "6m0s");
  EXPECT_EQ(format_reset(3661s), "1h1m1s");
}

TEST(RateLimit, FieldsTellWhatIsLeft) {
  KeyUse use({.requests_per_minute = 60, .tokens_per_minute = 6000}, Instant{});
  ASSERT_FALSE(use.admit(100, Instant{}));
  std::map<std::string, std::string, std::less<>> fields;
  rate_limit_fields(use, Instant{},
                    [&](std::string_view name, std::string value) { fields.emplace(name, value); });
  const std::map<std::string, std::string, std::less<>> expected{
      {"x-ratelimit-limit-requests", "60"},     {"x-ratelimit-remaining-requests", "59"},
      {"x-ratelimit-reset-requests", "1s"},     {"x-ratelimit-limit-tokens", "6000"},
      {"x-ratelimit-remaining-tokens", "5900"}, {"x-ratelimit-reset-tokens", "1s"}};
  EXPECT_EQ(fields, expected);
}

TEST(RateLimitProperty, NoSpanOfTimeExceedsItsShareAndRetryAfterIsHonest) {
  EXPECT_TRUE(rc::check("admitted in any span <= limit + limit x span; after retry_after it goes", [] {
    const double limit = *rc::gen::inRange(1, 50) * 10;
    KeyUse use({.tokens_per_minute = static_cast<std::uint64_t>(limit)}, Instant{});
    Instant now{};
    std::deque<std::pair<Instant, double>> taken;
    const auto steps = *rc::gen::container<std::vector<std::pair<int, int>>>(
        rc::gen::pair(rc::gen::inRange(0, 20'000), rc::gen::inRange(1, 100)));
    for (const auto& [wait_ms, tokens] : steps) {
      now += std::chrono::milliseconds(wait_ms);
      if (const auto refusal = use.admit(tokens, now)) {
        RC_ASSERT(refusal->ever == (tokens <= limit));
        if (!refusal->ever) continue;
        now += refusal->retry_after + 1us;
        RC_ASSERT(!use.admit(tokens, now));
      }
      taken.emplace_back(now, tokens);
      double sum = 0;
      for (auto one = taken.rbegin(); one != taken.rend(); ++one) {
        sum += one->second;
        RC_ASSERT(sum <= limit + limit * to_seconds(now - one->first) / 60 + 1e-3);
      }
    }
  }));
}

}  // namespace
}  // namespace heng
