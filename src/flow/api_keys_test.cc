// API keys: who is let in, and that the time it takes tells nothing.
#include "flow/api_keys.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

namespace heng {
namespace {

constexpr const char* kSecret = "0123456789abcdef0123456789abcdef01234567";

ApiKey make_key(std::string id, std::string_view secret, std::vector<std::string> models = {}) {
  ApiKey key;
  for (std::size_t i = 0; i < key.salt.size(); ++i) key.salt[i] = hmac_sha256({}, id)[i];
  key.hash = hmac_sha256(key.salt, secret);
  Tenant tenant;
  tenant.key_id = tenant.name = std::move(id);
  tenant.models = std::move(models);
  key.tenant = std::make_shared<const Tenant>(std::move(tenant));
  return key;
}

std::string id_of(const ApiKeys::Login& login) { return login.tenant ? login.tenant->key_id : ""; }

TEST(ApiKeys, LetsInWhoHasTheKey) {
  const ApiKeys keys({make_key("alice-1", kSecret), make_key("bob", "other")});
  EXPECT_EQ(id_of(keys.check(std::string("hk_alice-1_") + kSecret, 0)), "alice-1");
  EXPECT_EQ(id_of(keys.check("hk_bob_other", 0)), "bob");
}

TEST(ApiKeys, RefusesEverythingElse) {
  const ApiKeys keys({make_key("alice", kSecret), make_key("bob", "other")});
  const std::string right = std::string("hk_alice_") + kSecret;
  for (const std::string& key : {std::string(),
                                 std::string("hk_"),
                                 std::string("hk__"),
                                 std::string("hk_alice"),
                                 std::string("hk_alice_"),
                                 std::string("hk_bob_") + kSecret,
                                 std::string("hk_carol_") + kSecret,
                                 std::string("hk__") + kSecret,
                                 std::string("HK_alice_") + kSecret,
                                 std::string("alice_") + kSecret,
                                 std::string(kSecret),
                                 right + "x",
                                 right.substr(0, right.size() - 1),
                                 right + std::string(1, '\0'),
                                 " " + right,
                                 std::string("hk_Alice_") + kSecret,
                                 right + std::string(1 << 20, 'x'),
                                 std::string(1 << 20, '_'),
                                 std::string("hk_alice' OR '1'='1_x"),
                                 std::string("hk_alice\r\n_\x1b[31m%n"),
                                 std::string("hk_alice_") + std::string(32, '\0')}) {
    const auto login = keys.check(key, 0);
    EXPECT_EQ(id_of(login), "") << key.substr(0, 80);
    EXPECT_FALSE(login.expired);
  }
  EXPECT_FALSE(ApiKeys({}).check(right, 0).tenant);
}

TEST(ApiKeys, TheIdEndsAtTheFirstUnderscore) {
  EXPECT_EQ(id_of(ApiKeys({make_key("a", "b_c")}).check("hk_a_b_c", 0)), "a");
}

TEST(ApiKeys, OldAndNewKeyOfATenantAreValidTogether) {
  const ApiKeys keys({make_key("alice-1", "a"), make_key("alice-2", "b")});
  EXPECT_EQ(id_of(keys.check("hk_alice-1_a", 0)), "alice-1");
  EXPECT_EQ(id_of(keys.check("hk_alice-2_b", 0)), "alice-2");
  EXPECT_EQ(id_of(keys.check("hk_alice-1_b", 0)), "");
}

TEST(ApiKeys, ExpireAndSayItOnlyToWhoHasTheSecret) {
  ApiKey key = make_key("alice", kSecret);
  key.expires_s = 1000;
  const ApiKeys keys({key});
  const std::string right = std::string("hk_alice_") + kSecret;
  EXPECT_TRUE(keys.check(right, 999.9).tenant);
  EXPECT_FALSE(keys.check(right, 1000).tenant);
  EXPECT_TRUE(keys.check(right, 1000).expired);
  EXPECT_FALSE(keys.check("hk_alice_wrong", 2000).expired);
}

int hashes = 0;
std::size_t hashed_bytes_max = 0;
Digest counting_hash(std::span<const std::uint8_t> salt, std::string_view secret) {
  ++hashes;
  hashed_bytes_max = std::max(hashed_bytes_max, secret.size());
  return hmac_sha256(salt, secret);
}

RC_GTEST_PROP(ApiKeysProperty, AnyKeyCostsOneHashOfItsOwnLength, (const std::string& noise)) {
  const ApiKeys keys({make_key("alice", kSecret), make_key("bob", "other")}, counting_hash);
  for (const std::string& key : {noise, "hk_alice_" + noise, "hk_nobody_" + noise, "hk_" + noise,
                                 std::string("hk_alice_") + kSecret, std::string("hk_nobody_") + kSecret}) {
    hashes = 0;
    static_cast<void>(keys.check(key, 0));
    RC_ASSERT(hashes == 1);
    RC_ASSERT(hashed_bytes_max <= 256);
  }
}

TEST(ApiKeys, AVeryLongKeyCostsNoMoreThanALongOne) {
  const ApiKeys keys({make_key("alice", kSecret)}, counting_hash);
  for (const char* start : {"", "hk_alice_", "hk_nobody_"}) {
    hashes = 0;
    hashed_bytes_max = 0;
    static_cast<void>(keys.check(start + std::string(1 << 20, 'x'), 0));
    EXPECT_EQ(hashes, 1);
    EXPECT_LE(hashed_bytes_max, 256u);
  }
}

RC_GTEST_PROP(ApiKeysProperty, NoKeyWithOneByteChangedIsLetIn, ()) {
  const ApiKeys keys({make_key("alice", kSecret), make_key("alicf", "other")});
  std::string key = std::string("hk_alice_") + kSecret;
  const auto at = *rc::gen::inRange<std::size_t>(0, key.size());
  const char before = key[at];
  key[at] = *rc::gen::suchThat(rc::gen::arbitrary<char>(), [&](char c) { return c != before; });
  RC_ASSERT(!keys.check(key, 0).tenant);
}

RC_GTEST_PROP(ApiKeysProperty, EachKeyOpensForItsOwnTenantOnly, ()) {
  const auto count = *rc::gen::inRange(1, 20);
  std::vector<ApiKey> stored;
  std::vector<std::string> secrets;
  for (int i = 0; i < count; ++i) {
    secrets.push_back(*rc::gen::container<std::string>(20, rc::gen::inRange('a', 'z')) + std::to_string(i));
    stored.push_back(make_key("key" + std::to_string(i), secrets.back()));
  }
  const ApiKeys keys(stored);
  const auto a = *rc::gen::inRange(0, count), b = *rc::gen::inRange(0, count);
  const auto login = keys.check("hk_key" + std::to_string(a) + "_" + secrets[b], 0);
  RC_ASSERT(id_of(login) == (a == b ? "key" + std::to_string(a) : ""));
}

TEST(AllowsModel, ByNameOrBeginning) {
  const auto tenant = make_key("a", "s", {"llama-3-8b", "qwen-*", "gpt*"}).tenant;
  for (const char* model : {"llama-3-8b", "qwen-", "qwen-2", "gpt", "gpt-4o"})
    EXPECT_TRUE(allows_model(*tenant, model)) << model;
  for (const char* model : {"", "*", "llama-3-8", "llama-3-8b2", "Llama-3-8b", "qwen", "qwen*", "xgpt"})
    EXPECT_FALSE(allows_model(*tenant, model)) << model;
  EXPECT_TRUE(allows_model(*make_key("a", "s").tenant, "anything"));
  EXPECT_TRUE(allows_model(*make_key("a", "s", {"*"}).tenant, "anything"));
  EXPECT_FALSE(allows_model(*make_key("a", "s", {""}).tenant, "anything"));
}

}  // namespace
}  // namespace heng
