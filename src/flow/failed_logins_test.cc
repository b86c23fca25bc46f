// The allowance for failed logins: bounded for everybody, and nobody pays for another.
#include "flow/failed_logins.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

namespace heng {
namespace {

const Instant kStart = Instant{} + 1000s;

TEST(FailedLogins, AllowsSoManyAtOnceThenSaysHowLong) {
  FailedLogins logins(7);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(logins.count(1, 20, kStart), Duration(0)) << i;
  EXPECT_EQ(logins.count(1, 20, kStart), Duration(3s));
  EXPECT_EQ(logins.count(1, 20, kStart + 1s), Duration(2s));
  EXPECT_EQ(logins.count(1, 20, kStart + 3s), Duration(0)) << "one has come back";
  EXPECT_EQ(logins.count(1, 20, kStart + 3s), Duration(3s));
}

TEST(FailedLogins, DoesNotCountOneAgainstAnother) {
  FailedLogins logins(7);
  for (int i = 0; i < 100; ++i) logins.count(1, 20, kStart);
  EXPECT_EQ(logins.count(2, 20, kStart), Duration(0));
  // So many that some share a place in memory.
  for (std::uint64_t source = 3; source < 3000; ++source)
    EXPECT_EQ(logins.count(source, 1, kStart), Duration(0)) << source;
}

TEST(FailedLogins, AQuietSourceGetsNoMoreThanItsAllowance) {
  FailedLogins logins(7);
  static_cast<void>(logins.count(1, 20, kStart));
  int allowed = 0;
  for (int i = 0; i < 100; ++i) allowed += logins.count(1, 20, kStart + 24h) == Duration(0) ? 1 : 0;
  EXPECT_EQ(allowed, 20);
}

RC_GTEST_PROP(FailedLoginsProperty, NeverMoreThanTheBurstAndTheRate, ()) {
  FailedLogins logins(*rc::gen::arbitrary<std::uint64_t>());
  const int per_minute = *rc::gen::inRange(1, 100);
  Instant now = kStart;
  int allowed = 0;
  for (int i = 0; i < 500; ++i) {
    now += std::chrono::milliseconds(*rc::gen::inRange(0, 500));
    const Duration wait = logins.count(1, per_minute, now);
    RC_ASSERT(wait >= Duration(0));
    RC_ASSERT(to_seconds(wait) <= 60.0 / per_minute);
    allowed += wait == Duration(0) ? 1 : 0;
  }
  RC_ASSERT(allowed <= per_minute * (1 + to_seconds(now - kStart) / 60) + 1e-6);
}

}  // namespace
}  // namespace heng
