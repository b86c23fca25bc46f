// The file of API keys: what it accepts, that every mistake is found and placed, that what we write we read.
#include "config/keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

namespace heng {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const std::string kHash =
    "hmac-sha256:000102030405060708090a0b0c0d0e0f:"
    "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";

std::string issues_of(const std::string& yaml) { return format_issues("k", parse_keys(yaml).issues); }

std::string with_key(const std::string& lines) {
  return "keys:\n  - id: a\n    hash: " + kHash + "\n" + lines;
}

TEST(Keys, ReadsAllThatAKeyHas) {
  const KeyLoad load = parse_keys("keys:\n  - id: alice-1\n    hash: " + kHash +
                                  "\n    tenant: alice\n    models: [llama-3, 'qwen-*']\n    priority: 7\n"
                                  "    limits: {requests_per_minute: 60, tokens_per_minute: 5000000000, "
                                  "concurrent: 4}\n    expires: 2027-01-31\n  - {id: b, hash: '" +
                                  kHash + "'}\n");
  ASSERT_EQ(format_issues("k", load.issues), "");
  ASSERT_EQ(load.keys.size(), 2u);
  const ApiKey& key = load.keys[0];
  EXPECT_EQ(key.tenant->key_id, "alice-1");
  EXPECT_EQ(key.tenant->name, "alice");
  EXPECT_THAT(key.tenant->models, ElementsAre("llama-3", "qwen-*"));
  EXPECT_EQ(key.tenant->priority, 7u);
  EXPECT_EQ(key.tenant->limits.requests_per_minute, 60u);
  EXPECT_EQ(key.tenant->limits.tokens_per_minute, 5000000000u);
  EXPECT_EQ(key.tenant->limits.concurrent, 4u);
  EXPECT_EQ(key.salt[15], 15);
  EXPECT_EQ(key.hash[0], 0xb0);
  EXPECT_EQ(format_expiry(key.expires_s), "2027-02-01T00:00:00Z") << "to the end of the day";
  const Tenant& plain = *load.keys[1].tenant;
  EXPECT_EQ(plain.name, "b") << "a key of its own is a tenant of its own";
  EXPECT_EQ(plain.priority, 5u);
  EXPECT_EQ(plain.limits.concurrent, 0u);
  EXPECT_TRUE(std::isinf(load.keys[1].expires_s));
}

TEST(Keys, NoKeysAtAllLetsNobodyIn) {
  EXPECT_EQ(issues_of("keys: []"), "");
  EXPECT_EQ(issues_of("keys:\n"), "");
  EXPECT_THAT(issues_of(""), HasSubstr("k: no keys in it"));
}

TEST(Keys, EveryMistakeHasAPlaceAndSaysWhatToDo) {
  const struct {
    std::string yaml, issue;
  } cases[] = {
      {"keys:\n  - id: a\n", "k:2:5: this key has no `hash`; `heng key new` makes"},
      {"keys:\n  - hash: " + kHash, "k:2:5: this key has no `id`"},
      {"keys: 5", "k:1:7: expected `keys` to be a list"},
      {"key: []", "k:1:1: unknown key 'key'. Did you mean `keys`?"},
      {"[1]", "k:1:1: expected `keys:` and a list, found a list"},
      {"keys: [5]", "k:1:8: expected a key with `id` and `hash`, found a single value"},
      {with_key("    hashh: x\n"), "k:4:5: unknown key 'hashh'. Did you mean `hash`?"},
      {with_key("    priority: 10\n"), "k:4:15: `priority`: '10' is out of range; allowed: 0 to 9"},
      {with_key("    priority: high\n"), "`priority`: 'high' is not a whole number"},
      {with_key("    limits: {concurrent: -1}\n"), "`concurrent`: '-1' is out of range"},
      {with_key("    limits: 5\n"), "expected `limits` to be a map"},
      {with_key("    limits:\n"), "k:4:5: `limits` has no value"},
      {with_key("    models: []\n"), "`models` is empty; leave it out to allow all"},
      {with_key("    models: ['*llama']\n"), "k:4:14: a model must be a name, or the beginning of one"},
      {with_key("    models: ['']\n"), "a model must be a name"},
      {with_key("    models: llama\n"), "expected `models` to be a list"},
      {with_key("    tenant: a b\n"), "`tenant`: 'a b' is not a name"},
      {with_key("    tenant: ''\n"), "`tenant`: '' is not a name"},
      {with_key("    expires: tomorrow\n"), "k:4:14: `expires`: 'tomorrow' is no date; write it like"},
      {with_key("    expires: [1]\n"), "expected `expires` to be a single value"},
      {with_key("  - id: a\n    hash: " + kHash), "k:4:9: a second key 'a', the first is on line 2"},
      {"keys: [{id: a_b, hash: '" + kHash + "'}]", "k:1:13: `id`: 'a_b' is not a name of letters"},
      {"keys: [{id: '', hash: '" + kHash + "'}]", "`id`: '' is not a name of letters"},
      {"keys: [{id: " + std::string(65, 'a') + ", hash: '" + kHash + "'}]", "at most 64"},
  };
  for (const auto& [yaml, issue] : cases) EXPECT_THAT(issues_of(yaml), HasSubstr(issue)) << yaml;
}

TEST(Keys, AWrongHashIsNotRepeated) {
  for (const std::string& hash :
       {std::string("hk_a_0123456789abcdef"), std::string("secret-in-the-wrong-place"), kHash + "0",
        kHash.substr(1), kHash.substr(0, kHash.size() - 1), "HMAC-SHA256" + kHash.substr(11),
        "hmac-sha256:000102030405060708090A0B0C0D0E0F" + kHash.substr(44), std::string("''")}) {
    const std::string issues = issues_of("keys: [{id: a, hash: " + hash + "}]");
    EXPECT_THAT(issues, AllOf(HasSubstr("k:1:"), HasSubstr("`hash`"), HasSubstr("heng key new"))) << hash;
    EXPECT_THAT(issues, AllOf(Not(HasSubstr("0123456789abcdef")), Not(HasSubstr("wrong-place"))));
  }
}

TEST(Keys, AFileOpenToEverybodyIsRefused) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("heng_keys_" + std::to_string(getpid()))).string();
  std::ofstream(path) << with_key("");
  for (const mode_t mode : {0644, 0602, 0604}) {
    chmod(path.c_str(), mode);
    EXPECT_THAT(format_issues(path, load_keys(path).issues), HasSubstr("open to every user of this machine"));
  }
  chmod(path.c_str(), 0640);
  EXPECT_EQ(load_keys(path).keys.size(), 1u);
  // The configuration names it, relative to itself; its mistakes carry its name.
  const std::string folder = std::filesystem::temp_directory_path().string();
  const std::string name = std::filesystem::path(path).filename().string();
  const std::string yaml = "keys_file: " + name + "\npools: [{model: m, workers: [http://w:1]}]\n";
  EXPECT_EQ(parse_config(yaml, folder).config.keys.size(), 1u);
  EXPECT_EQ(parse_config(yaml, "").config.keys.size(), 0u) << "opens no files";
  std::ofstream(path) << "keys: [{id: a}]\n";
  EXPECT_THAT(format_issues("c", parse_config(yaml, folder).issues), HasSubstr(path + ":1:8: this key has"));
  std::filesystem::remove(path);
  EXPECT_THAT(format_issues("c", parse_config(yaml, folder).issues),
              HasSubstr(path + ": cannot read the file"));
}

TEST(Expiry, OnlyRealDates) {
  EXPECT_EQ(*parse_expiry("1970-01-01"), 86400);
  EXPECT_EQ(*parse_expiry("1970-01-01T00:00:01Z"), 1);
  EXPECT_EQ(*parse_expiry("2024-02-29T23:59:59Z"), 1709251199);
  for (const char* text : {"", "2027", "2027-1-1", "2027-13-01", "2027-02-29", "2027-00-10", "2027-01-00",
                           "2027-01-32", "2027/01/01", "2027-01-01T24:00:00Z", "2027-01-01T00:60:00Z",
                           "2027-01-01T00:00:60Z", "2027-01-01T00:00:00", "2027-01-01T00:00:00+",
                           "2027-01-01 00:00:00Z", "-027-01-01", "2027-0a-01", "2027-01-01 "}) {
    EXPECT_FALSE(parse_expiry(text)) << text;
  }
}

RC_GTEST_PROP(KeysProperty, WhatIsWrittenIsRead, ()) {
  const auto name =
      rc::gen::suchThat(rc::gen::container<std::string>(rc::gen::elementOf(std::string("aZ09-.n"))),
                        [](const std::string& text) { return is_key_id(text); });
  const auto model =
      rc::gen::nonEmpty(rc::gen::container<std::string>(rc::gen::elementOf(std::string("a\"\\: #/"))));
  ApiKey key;
  Tenant tenant;
  tenant.key_id = *name;
  tenant.name = *rc::gen::oneOf(rc::gen::just(tenant.key_id), name);
  for (std::string& text : *rc::gen::container<std::vector<std::string>>(3, model)) {
    tenant.models.push_back(text + "*");
  }
  tenant.priority = *rc::gen::inRange(0u, 10u);
  tenant.weight = *rc::gen::element(1.0, 0.25, 3.0);
  tenant.limits.requests_per_minute = *rc::gen::inRange(0u, 1000001u);
  tenant.limits.tokens_per_minute = *rc::gen::inRange<std::uint64_t>(0, 1000000000001);
  tenant.limits.concurrent = *rc::gen::inRange(0u, 1000001u);
  if (*rc::gen::arbitrary<bool>())
    key.expires_s = static_cast<double>(*rc::gen::inRange<std::int64_t>(0, 250000000000));
  for (std::uint8_t& byte : key.salt) byte = *rc::gen::arbitrary<std::uint8_t>();
  for (std::uint8_t& byte : key.hash) byte = *rc::gen::arbitrary<std::uint8_t>();
  key.tenant = std::make_shared<const Tenant>(tenant);
  const KeyLoad load = parse_keys("keys:\n" + key_entry(key));
  RC_ASSERT(format_issues("k", load.issues) == "");
  const ApiKey& again = load.keys.at(0);
  RC_ASSERT(again.salt == key.salt && again.hash == key.hash && again.expires_s == key.expires_s);
  RC_ASSERT(again.tenant->key_id == tenant.key_id && again.tenant->name == tenant.name);
  RC_ASSERT(again.tenant->models == tenant.models && again.tenant->priority == tenant.priority);
  RC_ASSERT(again.tenant->weight == tenant.weight);
  RC_ASSERT(again.tenant->limits.requests_per_minute == tenant.limits.requests_per_minute);
  RC_ASSERT(again.tenant->limits.tokens_per_minute == tenant.limits.tokens_per_minute);
  RC_ASSERT(again.tenant->limits.concurrent == tenant.limits.concurrent);
}

}  // namespace
}  // namespace heng
