// Logging in: which fields carry the key, what the refusals say, and how many of them there are.
#include "gateway/access.h"

#include <gtest/gtest.h>

namespace heng {
namespace {

constexpr const char* kRight = "hk_alice_s3cret";
const Instant kNow = Instant{} + 1000s;

HttpHead head_with(std::initializer_list<HeaderField> fields) {
  HttpHead head;
  head.fields = fields;
  return head;
}

Config config_with_key() {
  Config config;
  config.keys_file = "keys.yaml";
  config.limits.failed_logins_per_minute = 3;
  Tenant tenant;
  tenant.key_id = tenant.name = "alice";
  ApiKey key;
  key.hash = hmac_sha256(key.salt, "s3cret");
  key.expires_s = 5000;
  key.tenant = std::make_shared<const Tenant>(tenant);
  config.keys.push_back(key);
  return config;
}

struct Login : testing::Test {
  Login() { access.configure(config_with_key()); }
  int status(std::initializer_list<HeaderField> fields, std::uint64_t source = 1) {
    const auto login = access.login(head_with(fields), source, kNow, 1000);
    return login ? 200 : login.error().status;
  }
  MetricRegistry metrics;
  Access access{metrics, 7};
};

TEST_F(Login, TakesTheKeyWhereClientsPutIt) {
  EXPECT_EQ(status({{"Authorization", "Bearer hk_alice_s3cret"}}), 200);
  EXPECT_EQ(status({{"authorization", "bearer   hk_alice_s3cret"}}), 200);
  EXPECT_EQ(status({{"api-key", kRight}}), 200);
  EXPECT_EQ(status({{"X-API-Key", kRight}}), 200);
}

TEST_F(Login, NowhereElse) {
  for (std::uint64_t source = 1;
       const HttpHead& head :
       {head_with({}), head_with({{"Authorization", kRight}}), head_with({{"Authorization", "Bearer"}}),
        head_with({{"Authorization", "Bearer "}}), head_with({{"Authorization", "Basic aGs6aGs="}}),
        head_with({{"Authorization", "Bearer x"}, {"api-key", kRight}}), head_with({{"Cookie", kRight}}),
        head_with({{"api-key", "Bearer hk_alice_s3cret"}})}) {
    const auto login = access.login(head, source++, kNow, 1000);
    ASSERT_FALSE(login);
    EXPECT_EQ(login.error().status, 401);
    EXPECT_EQ(login.error().code, "invalid_api_key");
    EXPECT_EQ(login.error().message.find("s3cret"), std::string::npos);
  }
}

TEST_F(Login, TooManyFailuresOfOneAddressAre429ButARightKeyStaysRight) {
  for (int i = 0; i < 3; ++i) EXPECT_EQ(status({{"api-key", "hk_alice_wrong"}}), 401);
  const auto login = access.login(head_with({{"api-key", "hk_alice_wrong"}}), 1, kNow, 1000);
  EXPECT_EQ(login.error().status, 429);
  EXPECT_EQ(login.error().retry_after, Duration(20s));
  EXPECT_EQ(status({{"api-key", kRight}}), 200);
  EXPECT_EQ(status({{"api-key", "hk_alice_wrong"}}), 429);
  EXPECT_EQ(status({{"api-key", "hk_alice_wrong"}}, 2), 401);
}

TEST_F(Login, OfAnExpiredKeySaysSo) {
  const auto login = access.login(head_with({{"api-key", kRight}}), 1, kNow, 6000);
  ASSERT_FALSE(login);
  EXPECT_EQ(login.error().status, 401);
  EXPECT_NE(login.error().message.find("expired"), std::string::npos);
}

TEST_F(Login, AKeyTakenAwayIsRefusedButWhoIsInStaysIn) {
  const auto login = access.login(head_with({{"api-key", kRight}}), 1, kNow, 1000);
  Config config = config_with_key();
  config.keys.clear();
  access.configure(config);
  EXPECT_FALSE(access.is_open()) << "a file without keys lets nobody in";
  EXPECT_EQ(status({{"api-key", kRight}}), 401);
  EXPECT_EQ((*login)->key_id, "alice");
  config.keys_file.clear();
  access.configure(config);
  EXPECT_TRUE(access.is_open());
}

}  // namespace
}  // namespace heng
