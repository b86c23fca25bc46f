// The configuration reader: what it accepts, and that every mistake is found, placed and explained.
#include "config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "config/schema.h"
#include "config/yaml_tree.h"

namespace heng {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr const char* kPool = "pools: [{model: m, workers: [http://w1:8000]}]\n";

class TempFolder {
 public:
  TempFolder() : path_(std::filesystem::temp_directory_path() / ("heng_config_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::string write(const std::string& name, const std::string& text, mode_t mode) const {
    const std::string file = (path_ / name).string();
    std::ofstream(file) << text;
    EXPECT_EQ(chmod(file.c_str(), mode), 0);
    return file;
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

std::string issues_of(std::string_view yaml, const std::string& directory = "") {
  return format_issues("f", parse_config(yaml, directory).issues);
}

/// The file with one worker written in place of `worker`.
std::string with_worker(const std::string& worker) {
  return "pools:\n  - workers:\n      - " + worker + "\n";
}

TEST(Config, SmallestFileGetsTheDefaults) {
  const ConfigLoad load = parse_config(kPool, "");
  ASSERT_EQ(format_issues("f", load.issues), "");
  const Config& config = load.config;
  EXPECT_EQ(config.listen.host, "127.0.0.1");
  EXPECT_EQ(config.listen.port, 8080);
  ASSERT_TRUE(config.admin.has_value());
  EXPECT_EQ(config.admin->port, 8081);
  EXPECT_EQ(config.timeouts.first_byte, 600s);
  ASSERT_EQ(config.pools.size(), 1u);
  EXPECT_EQ(config.pools[0].model, "m");
  ASSERT_NE(config.pools[0].policy, nullptr);
  EXPECT_EQ(config.pools[0].policy->name, "least_time");
  EXPECT_EQ(config.pools[0].policy_options, default_values(*config.pools[0].policy));
  ASSERT_EQ(config.pools[0].workers.size(), 1u);
  EXPECT_EQ(config.pools[0].workers[0].url, "http://w1:8000");
  EXPECT_EQ(config.pools[0].workers[0].name, "w1:8000");
}

TEST(Config, ReadsEveryKindOfValue) {
  const ConfigLoad load = parse_config(R"(
listen: "[::1]:9000"
admin: off
default_model: m
worker_header: false
seed: 7
timeouts: {connect: 200ms, first_byte: 2m, total: 1h, idle: 1.5s}
limits: {head_bytes: 64KiB, body_bytes: 1MiB, target_bytes: 500, json_depth: 12}
health: {active: false, path: /ping, fall: 5}
retry: {budget_ratio: 0.25}
pools:
  - model: m
    aliases: [a, "b c"]
    hash_on: header:X-User
    session_header: x-session
    max_in_flight: 100
    worker_max_in_flight: adaptive
    workers:
      - {url: "HTTPS://W2.Example/base//", name: two, model: other, capacity: 200, weight: 2.5,
         max_in_flight: 8, tls: {verify: false}}
      - http://[::1]/
)",
                                       "");
  ASSERT_EQ(format_issues("f", load.issues), "");
  const Config& config = load.config;
  EXPECT_EQ(config.listen.host, "::1");
  EXPECT_FALSE(config.admin.has_value());
  EXPECT_FALSE(config.worker_header);
  EXPECT_EQ(config.seed, 7u);
  EXPECT_EQ(config.timeouts.connect, 200ms);
  EXPECT_EQ(config.timeouts.first_byte, 120s);
  EXPECT_EQ(config.timeouts.total, 1h);
  EXPECT_EQ(config.timeouts.idle, 1500ms);
  EXPECT_EQ(config.limits.head_bytes, 65536u);
  EXPECT_EQ(config.limits.body_bytes, 1048576u);
  EXPECT_EQ(config.limits.target_bytes, 500u);
  EXPECT_EQ(config.limits.json_depth, 12u);
  EXPECT_FALSE(config.health.active);
  EXPECT_EQ(config.health.path, "/ping");
  EXPECT_EQ(config.health.fall, 5u);
  EXPECT_DOUBLE_EQ(config.retry.budget_ratio, 0.25);
  const PoolConfig& pool = config.pools[0];
  EXPECT_THAT(pool.aliases, ElementsAre("a", "b c"));
  EXPECT_EQ(pool.hash_on, AffinitySource::header);
  EXPECT_EQ(pool.hash_header, "X-User");
  EXPECT_EQ(pool.session_header, "x-session");
  const WorkerConfig& worker = pool.workers[0];
  EXPECT_EQ(worker.url, "https://w2.example:443/base");
  EXPECT_TRUE(worker.tls);
  EXPECT_FALSE(worker.tls_verify);
  EXPECT_EQ(worker.endpoint.host, "w2.example");
  EXPECT_EQ(worker.endpoint.port, 443);
  EXPECT_EQ(worker.base_path, "/base");
  EXPECT_EQ(worker.name, "two");
  EXPECT_EQ(worker.model, "other");
  EXPECT_EQ(worker.capacity, 200);
  EXPECT_EQ(worker.weight, 2.5);
  EXPECT_EQ(pool.max_in_flight, 100u);
  EXPECT_EQ(pool.worker_max_in_flight, kAdaptive);
  EXPECT_EQ(worker.max_in_flight, 8u);
  EXPECT_EQ(pool.workers[1].url, "http://[::1]:80");
  EXPECT_EQ(pool.workers[1].endpoint.host, "::1");
}

TEST(Config, NamesWorkersByAddressAndByPathOnlyWhereNeeded) {
  const ConfigLoad load = parse_config(
      "pools: [{workers: [http://a:1/x, http://a:1/y, http://b:1/z, http://c:443, https://c:443]}]", "");
  ASSERT_EQ(format_issues("f", load.issues), "");
  std::vector<std::string> names;
  for (const auto& worker : load.config.pools[0].workers) names.push_back(worker.name);
  EXPECT_THAT(names, ElementsAre("a:1/x", "a:1/y", "b:1", "c:443", "https://c:443"));
}

TEST(Config, EmptyGroupsAreFine) {
  EXPECT_EQ(issues_of(std::string("limits:\n") + kPool), "");
  EXPECT_EQ(issues_of(with_worker("{url: https://a, tls: }")), "");
}

struct Mistake {
  std::string yaml;
  std::string message;  // a part of the printed issue, place included
};

class ConfigMistake : public testing::TestWithParam<Mistake> {};

TEST_P(ConfigMistake, IsFoundAndExplained) {
  EXPECT_THAT(issues_of(GetParam().yaml), HasSubstr(GetParam().message));
}

const std::string kTail = kPool;

INSTANTIATE_TEST_SUITE_P(
    Shape, ConfigMistake,
    testing::Values(
        Mistake{"", "f: nothing configured: needs at least `pools`"},
        Mistake{"# comment\n", "nothing configured"}, Mistake{"---\n", "nothing configured"},
        Mistake{"- a\n", "f:1:1: expected lines like `key: value`, found a list"},
        Mistake{"just text\n", "found a single value"},
        Mistake{"lisen: 127.0.0.1:80\n" + kTail,
                "f:1:1: unknown key 'lisen'. Did you mean `listen`? Keys of the file: "},
        Mistake{"zzzzzz: 1\n" + kTail, "f:1:1: unknown key 'zzzzzz'. Keys of the file: `listen`, `admin`"},
        Mistake{"timeouts:\n  conect: 5s\n" + kTail, "f:2:3: unknown key 'conect'. Did you mean `connect`?"},
        Mistake{"timeouts:\n  first-byte: 5s\n" + kTail, "Did you mean `first_byte`?"},
        Mistake{"seed: 1\nseed: 2\n" + kTail, "f:2:1: `seed` is here twice, first on line 1; keep one"},
        Mistake{"pools: []\n" + kTail, "f:2:1: `pools` is here twice"},
        Mistake{"{[a]: 1, pools: [{workers: [http://a]}]}", "f:1:2: a key must be a word"},
        Mistake{"seed:\n" + kTail, "`seed` has no value"},
        Mistake{"seed: [1]\n" + kTail, "expected `seed` to be: whole number, found a list"},
        Mistake{"timeouts: 5s\n" + kTail,
                "f:1:11: expected `timeouts` to be a map of keys, found a single value"},
        Mistake{"a: 1\n---\nb: 1\n", "f:2:1: a second document begins here"},
        Mistake{"pools:\n\t- model: x\n", "f:2:1: a tab in the indentation; YAML wants spaces"},
        Mistake{"pools: [1\nx: 2\n", "not valid YAML: "},
        Mistake{"a: b: c\n", "f:1:5: not valid YAML: a `:` does not fit here"},
        Mistake{"default_model: \"x\npools: []\n", "f:1:16: the quote that opens here is never closed"},
        Mistake{"default_model: 'it''s\n", "f:1:16: the quote that opens here is never closed"},
        Mistake{"seed: &a 1\n" + kTail, "f:1:7: anchors (`&name`) are not supported"},
        Mistake{"seed: &a 1\ndefault_model: *a\n" + kTail, "f:2:16: aliases (`*name`) are not supported"},
        Mistake{"seed: *a\n" + kTail, "aliases (`*name`) are not supported"},
        Mistake{"seed: !!int 1\n" + kTail, "tags (`!type`) are not supported"},
        Mistake{std::string("a: \x01\n"), "f:1:4: control character 0x01"},
        Mistake{"a: \xff\n", "f:1:4: this is not UTF-8"},
        Mistake{"\xff\xfe"
                "a",
                "f:1:1: this is not UTF-8"},
        Mistake{"a: \xed\xa0\x80\n", "not UTF-8"}, Mistake{"a: \xc3", "not UTF-8"},
        Mistake{std::string("a: b\0c\n", 7), "control character 0x00"}));

TEST(Config, EngineLoadIsReadForPoliciesThatGoByItUnlessToldOtherwise) {
  RoutePolicyEntry blind{}, seeing{};
  seeing.uses_engine_load = true;
  EngineLoadConfig config;
  EXPECT_TRUE(config.wanted_by(seeing));
  EXPECT_FALSE(config.wanted_by(blind));
  config.always = true;
  EXPECT_TRUE(config.wanted_by(blind));
  config.interval = Duration(0);
  EXPECT_FALSE(config.wanted_by(blind));
  EXPECT_FALSE(config.wanted_by(seeing));
}

INSTANTIATE_TEST_SUITE_P(
    Scalars, ConfigMistake,
    testing::Values(
        Mistake{"timeouts: {connect: 5}\n" + kTail,
                "f:1:21: `connect`: a duration needs a unit: write 5s for seconds"},
        Mistake{"timeouts: {connect: 5 sec}\n" + kTail, "is not a duration; write it like 5s"},
        Mistake{"timeouts: {connect: 5min}\n" + kTail, "unknown unit 'min'; durations end in ms, s, m or h"},
        Mistake{"timeouts: {connect: -1s}\n" + kTail, "'-1s' is out of range; allowed: 1ms to 1h"},
        Mistake{"timeouts: {total: 1e300h}\n" + kTail, "is out of range; allowed: 0s to 168h"},
        Mistake{"timeouts: {connect: soon}\n" + kTail, "'soon' is not a duration"},
        Mistake{"limits: {head_bytes: 1KB}\n" + kTail, "unknown unit 'KB'; sizes end in KiB, MiB or GiB"},
        Mistake{"limits: {head_bytes: big}\n" + kTail, "'big' is not a size"},
        Mistake{"limits: {head_bytes: 1}\n" + kTail, "out of range; allowed: 1KiB to 16MiB"},
        Mistake{"limits: {head_bytes: 1024.5}\n" + kTail, "is not a whole number of bytes"},
        Mistake{"limits: {json_depth: 0}\n" + kTail, "'0' is out of range; allowed: 1 to 1024"},
        Mistake{"limits: {json_depth: 1.5}\n" + kTail, "'1.5' is not a whole number"},
        Mistake{"adaptive_limit: {min: 10, max: 9}\n" + kTail, "`min` 10 is above `max` 9"},
        Mistake{"pools: [{model: m, worker_max_in_flight: many, workers: [http://w1:8000]}]\n",
                "'many' is neither a whole number nor `adaptive`"},
        Mistake{"pools: [{model: m, max_in_flight: adaptive, workers: [http://w1:8000]}]\n",
                "'adaptive' is not a whole number"},
        Mistake{"limits: {json_depth: many}\n" + kTail, "'many' is not a whole number"},
        Mistake{"limits: {json_depth: \"5\"}\n" + kTail, "`json_depth` is a whole number; remove the quotes"},
        Mistake{"retry: {budget_ratio: .nan}\n" + kTail, "'.nan' is not a number"},
        Mistake{"retry: {budget_ratio: nan}\n" + kTail, "'nan' is not a number"},
        Mistake{"retry: {budget_ratio: inf}\n" + kTail, "'inf' is not a number"},
        Mistake{"retry: {enabled: yes}\n" + kTail, "'yes' is neither true nor false"},
        Mistake{"seed: -1\n" + kTail, "'-1' is out of range; allowed: from 0"},
        Mistake{"health: {path: ping}\n" + kTail, "'ping' is not a path; write it like /health"},
        Mistake{"default_model: \"a\\nb\"\n" + kTail, "'a\\x0ab' has a control character"},
        Mistake{"default_model: " + std::string(5000, 'x') + "\n" + kTail, "longer than 4096 bytes"},
        Mistake{"listen: 8080\n" + kTail,
                "f:1:9: `listen`: the host is missing; write 127.0.0.1:8080 for this machine"},
        Mistake{"listen: \":8080\"\n" + kTail,
                "the host is missing; write 127.0.0.1:8080 for this machine only or"},
        Mistake{"listen: localhost\n" + kTail, "the port is missing; write it like 127.0.0.1:8080"},
        Mistake{"listen: localhost:0\n" + kTail, "port '0' is not between 1 and 65535"},
        Mistake{"listen: localhost:70000\n" + kTail, "port '70000' is not between 1 and 65535"},
        Mistake{"listen: http://localhost:80\n" + kTail, "this is a URL; write only host:port"},
        Mistake{"listen: ::1:80\n" + kTail, "the host is missing"},
        Mistake{"listen: fe80::1:80\n" + kTail, "an IPv6 address needs brackets"},
        Mistake{"listen: \"[::1\"\n" + kTail, "is never closed"},
        Mistake{"listen: \"[zz]:80\"\n" + kTail, "'zz' is not an IPv6 address"},
        Mistake{"listen: 1.2.3:80\n" + kTail, "'1.2.3' is not a host name or address"},
        Mistake{"listen: \"a b:80\"\n" + kTail, "'a b' is not a host name or address"},
        Mistake{"admin: nowhere\n" + kTail, "or `off`"},
        Mistake{"admin: 0.0.0.0:8081\n" + kTail,
                "f:1:8: `admin` on 0.0.0.0:8081 can be reached by other machines"},
        Mistake{"admin: 127.evil.example:1\n" + kTail, "set `admin_token_file`, or use 127.0.0.1:1"},
        Mistake{"listen: 127.0.0.1:8081\n" + kTail, "f:1:9: `listen` and `admin` are both 127.0.0.1:8081"}));

INSTANTIATE_TEST_SUITE_P(
    Pools, ConfigMistake,
    testing::Values(
        Mistake{"seed: 1\n", "f:1:1: `pools` is missing"}, Mistake{"pools: []\n", "f:1:8: `pools` is empty"},
        Mistake{"pools:\n", "f:1:1: `pools` is empty"},
        Mistake{"pools: {model: m}\n", "expected `pools` to be a list"},
        Mistake{"pools: [x]\n", "expected a pool with `model` and `workers`, found a single value"},
        Mistake{"pools: [{model: m}]\n", "f:1:9: this pool has no `workers`"},
        Mistake{"pools: [{workers: []}]\n", "`workers` is empty; add at least one URL"},
        Mistake{"pools: [{workers: }]\n", "`workers` has no value"},
        Mistake{"pools: [{workers: http://a}]\n", "expected `workers` to be a list"},
        Mistake{"pools: [{workers: [[a]]}]\n", "expected a worker: a URL, or a map with `url`, found a list"},
        Mistake{"pools:\n- {model: m, workers: [http://a]}\n- {model: m, workers: [http://b]}\n",
                "f:3:11: 'm' is already served, see line 2; put the workers into one pool"},
        Mistake{
            "pools:\n- {model: m, workers: [http://a]}\n- {model: n, aliases: [m], workers: [http://b]}\n",
            "f:3:24: 'm' is already served, see line 2"},
        Mistake{"pools:\n- {model: m, aliases: [x, x], workers: [http://a]}\n", "'x' is already served"},
        Mistake{"pools:\n- {model: \"*\", workers: [http://a]}\n- {model: \"*\", workers: [http://b]}\n",
                "f:3:11: a second pool for \"*\", the first is on line 2"},
        Mistake{"pools: [{aliases: [x], workers: [http://a]}]\n", "aliases need a `model` of their own"},
        Mistake{"pools: [{model: m, aliases: x, workers: [http://a]}]\n",
                "expected `aliases` to be a list of names"},
        Mistake{"pools: [{model: m, aliases: [\"*\"], workers: [http://a]}]\n", "an alias must be a name"},
        Mistake{"pools: [{model: m, aliases: [[]], workers: [http://a]}]\n",
                "expected an alias to be a name"},
        Mistake{"pools: [{hash_on: ip, workers: [http://a]}]\n",
                "'ip' is not allowed; write prompt, user or header:"},
        Mistake{"pools: [{hash_on: \"header:\", workers: [http://a]}]\n",
                "`hash_on`: 'header:' is not allowed"},
        Mistake{"pools: [{session_header: a b, workers: [http://a]}]\n", "'a b' is not a header name"},
        Mistake{"pools: [{policy: round_robbin, workers: [http://a]}]\n",
                "f:1:18: unknown policy 'round_robbin'. Did you mean `round_robin`? Policies: "},
        Mistake{"pools: [{policy: [a], workers: [http://a]}]\n", "expected a policy's name, or a map"},
        Mistake{"pools: [{policy: {alpha: 1}, workers: [http://a]}]\n", "this policy has no `name`"},
        Mistake{"pools: [{policy: {name: [x]}, workers: [http://a]}]\n",
                "expected the policy's name, found a list"},
        Mistake{"pools: [{policy: {name: dynamic_weight, bta: 1}, workers: [http://a]}]\n",
                "f:1:41: unknown key 'bta'. Did you mean `beta`? Keys of policy `dynamic_weight`: `name`"},
        Mistake{"pools: [{policy: {name: dynamic_weight, beta: -1}, workers: [http://a]}]\n",
                "`beta`: '-1' is out of range"},
        Mistake{"pools: [{policy: {name: dynamic_weight, beta: x}, workers: [http://a]}]\n",
                "`beta`: 'x' is not a number"},
        Mistake{"pools: [{policy: {name: dynamic_weight, beta: [1]}, workers: [http://a]}]\n",
                "expected `beta` to be a number"},
        Mistake{"pools: [{policy: {name: dynamic_weight, interval_s: 5s}, workers: [http://a]}]\n",
                "write the seconds without a unit"},
        Mistake{"pools: [{policy: {name: dynamic_weight, normalise: 1}, workers: [http://a]}]\n",
                "neither true nor false"},
        Mistake{"pools: [{policy: {name: dynamic_weight, beta: 1, beta: 2}, workers: [http://a]}]\n",
                "`beta` is here twice"}));

INSTANTIATE_TEST_SUITE_P(
    Workers, ConfigMistake,
    testing::Values(
        Mistake{with_worker("w1:8000"),
                "f:3:9: `url`: 'w1:8000' has no scheme; write it like http://10.0.0.1:8000"},
        Mistake{with_worker("ftp://a"), "scheme 'ftp' is not http or https"},
        Mistake{with_worker("file:///etc/passwd"), "scheme 'file' is not http or https"},
        Mistake{with_worker("http://u:p@h"), "carries no user or password; use api_key_file"},
        Mistake{with_worker("http://h?x=1"), "has no query (?) or fragment (#)"},
        Mistake{with_worker("\"http://h/#x\""), "has no query (?) or fragment (#)"},
        Mistake{with_worker("http://h:0"), "port '0' is not between 1 and 65535"},
        Mistake{with_worker("http://h:65536"), "port '65536' is not between"},
        Mistake{with_worker("\"http://h:\""), "port '' is not between"},
        Mistake{with_worker("http://"), "the host is missing"},
        Mistake{with_worker("http:///x"), "the host is missing"},
        Mistake{with_worker("http://-x"), "'-x' is not a host name"},
        Mistake{with_worker("http://a..b"), "is not a host name"},
        Mistake{with_worker("http://h/a/../b"), "'/a/../b' is not a plain path"},
        Mistake{with_worker("http://h/a//b"), "is not a plain path"},
        Mistake{with_worker("\"http://h/a b\""), "plain path"},
        Mistake{with_worker("{name: x}"), "f:3:9: this worker has no `url`; add it"},
        Mistake{with_worker("{url: [a]}"), "expected `url` to be a URL"},
        Mistake{with_worker("{url: http://a, capacity: -1}"), "'-1' is out of range; allowed: 0 to"},
        Mistake{with_worker("{url: http://a, weight: 0}"), "'0' is out of range"},
        Mistake{with_worker("{url: http://a, wieght: 1}"), "Did you mean `weight`? Keys of a worker: `url`"},
        Mistake{with_worker("{url: http://a, name: \"\"}"), "`name` goes into a header"},
        Mistake{with_worker("{url: http://a, api_key: \"a\\tb\"}"),
                "`api_key`: the value, which is not shown here, has a control character, 0x09, as byte 2"},
        Mistake{with_worker("{url: http://a, api_key: \"é\"}"), "`api_key` must be plain ASCII"},
        Mistake{with_worker("{url: http://a, api_key: k, api_key_file: f}"),
                "f:3:34: both `api_key` and `api_key_file`"},
        Mistake{with_worker("{url: http://a, api_key_file: \"\"}"), "names no file"},
        Mistake{with_worker("{url: http://a, tls: {verify: true}}"), "`tls` is only for https"},
        Mistake{with_worker("{url: https://a, tls: true}"), "expected `tls` to be a map of keys"},
        Mistake{with_worker("{url: https://a, tls: {ca: x}}"), "unknown key 'ca'"},
        Mistake{with_worker("http://a\n      - HTTP://A:80/"),
                "f:4:9: 'http://a:80' is in this pool twice, first on line 3"},
        Mistake{with_worker("{url: http://a, name: x}\n      - {url: http://b, name: x}"),
                "two workers of this pool are called 'x'"}));

TEST(Config, ReportsEveryMistakeInFileOrder) {
  const ConfigLoad load = parse_config("pools: []\nsede: 1\ntimeouts: {connect: 5}\nlisten: 1\n", "");
  std::vector<int> lines;
  for (const auto& issue : load.issues) lines.push_back(issue.line);
  EXPECT_THAT(lines, ElementsAre(1, 2, 3, 4));
}

TEST(Config, PolicyOptionsAndTheirCombinations) {
  const ConfigLoad load = parse_config(
      "pools: [{policy: {name: dynamic_weight, alpha: 0.5, beta: 0.25}, workers: [http://a]}]", "");
  ASSERT_EQ(format_issues("f", load.issues), "");
  const PoolConfig& pool = load.config.pools[0];
  ASSERT_EQ(pool.policy->name, "dynamic_weight");
  OptionValues expected = default_values(*pool.policy);
  const auto at = [&](std::string_view key) {
    return std::ranges::find(pool.policy->fields, key, &OptionField::key) - pool.policy->fields.begin();
  };
  expected[at("alpha")] = 0.5;
  expected[at("beta")] = 0.25;
  EXPECT_EQ(pool.policy_options, expected);
}

TEST(Config, ManyMistakesAreCutShort) {
  std::string yaml;
  for (int i = 0; i < 5000; ++i) yaml += "key" + std::to_string(i) + ": 1\n";
  const ConfigLoad load = parse_config(yaml, "");
  EXPECT_EQ(load.issues.size(), 101u);
  EXPECT_THAT(load.issues.back().message, HasSubstr("more mistakes are not shown"));
}

TEST(Config, LongAndStrangeTextsAreShortenedInMessages) {
  const std::string issues = issues_of("\"" + std::string(3000, 'k') + "\\e[31m\": 1\n" + kPool);
  EXPECT_LT(issues.size(), 600u);
  EXPECT_THAT(issues_of("\"\\e[31m\": 1\n" + std::string(kPool)),
              AllOf(HasSubstr("'\\x1b[31m'"), Not(HasSubstr("\x1b"))));
}

// Reliability target: empty, truncated, huge and hostile files are refused within a second.
TEST(Config, HostileFilesAreRefusedQuickly) {
  const auto nested = [](const std::string& piece, std::size_t count) {
    std::string out = "pools: ";
    for (std::size_t i = 0; i < count; ++i) out += piece;
    return out;
  };
  std::vector<std::string> files = {std::string(kConfigBytesMax + 1, 'a'),
                                    nested("[", 100'000),
                                    nested("{a: ", 100'000),
                                    nested("- ", 100'000),
                                    nested("&a ", 10'000),
                                    nested("? ", 100'000),
                                    nested("a,", 1'000'000),
                                    nested("\"", 1'000'001),
                                    nested("[a, ", 30),
                                    "a: [" + nested("x, ", 1'000'000) + "]",
                                    nested("!a ", 100'000)};
  std::string wide;
  for (int i = 0; i < 150'000; ++i) wide += "k" + std::to_string(i) + ": {}\n";
  files.push_back(wide);
  for (const std::string& file : files) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_THAT(parse_config(file, "").issues, Not(IsEmpty())) << file.substr(0, 40);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    EXPECT_LT(seconds, 10) << file.substr(0, 40) << ": generous, for sanitizers on a busy machine";
  }
}

TEST(Config, DeepNestingIsNamedAndKeysStayInStep) {
  std::string deep = "x";
  for (int i = 0; i < 40; ++i) deep = "{a: " + deep + ", b: 1}";
  const std::string issues = issues_of("retry: " + deep + "\nsede: 1\n" + kPool);
  EXPECT_THAT(issues, AllOf(HasSubstr("nested deeper than 32 levels"), HasSubstr("unknown key 'sede'")));
}

TEST(Secrets, AreReadFromFilesNotOpenToOthers) {
  const TempFolder folder;
  folder.write("key", "sk-123\n", 0600);
  folder.write("token", "t0ken", 0640);
  const ConfigLoad load = parse_config("admin: 0.0.0.0:8081\nadmin_token_file: token\ninsecure_bind: true\n" +
                                           with_worker("{url: http://a, api_key_file: key}"),
                                       folder.path());
  ASSERT_EQ(format_issues("f", load.issues), "");
  EXPECT_EQ(load.config.admin_token, "t0ken");
  EXPECT_EQ(load.config.pools[0].workers[0].api_key, "sk-123");
}

TEST(Secrets, CarelessOrBrokenFilesAreRefused) {
  const TempFolder folder;
  folder.write("open", "sk-123", 0644);
  folder.write("empty", "\n", 0600);
  folder.write("two_lines", "a\nb\n", 0600);
  folder.write("huge", std::string(20000, 'k'), 0600);
  const auto said = [&](const std::string& name) {
    return issues_of(with_worker("{url: http://a, api_key_file: " + name + "}"), folder.path());
  };
  EXPECT_THAT(said("open"), AllOf(HasSubstr("f:3:39: `api_key_file`: the secret in "),
                                  HasSubstr("run: chmod 600 "), Not(HasSubstr("sk-123"))));
  EXPECT_THAT(said("missing"), HasSubstr("No such file"));
  EXPECT_THAT(said("empty"), HasSubstr("is empty; put the secret in it"));
  EXPECT_THAT(said("two_lines"), HasSubstr("one line of plain ASCII"));
  EXPECT_THAT(said("huge"), HasSubstr("larger than 16 KiB"));
  EXPECT_THAT(said("."), HasSubstr("is not a regular file"));
}

TEST(Secrets, MissingCertificateAuthorityIsNamed) {
  const TempFolder folder;
  folder.write("ca.pem", "x", 0644);
  const auto said = [&](const std::string& name) {
    return issues_of(with_worker("{url: https://a, tls: {ca_file: " + name + "}}"), folder.path());
  };
  EXPECT_EQ(said("ca.pem"), "");
  EXPECT_THAT(said("missing.pem"),
              AllOf(HasSubstr("f:3:41: `ca_file`: cannot read"), HasSubstr("No such file")));
}

TEST(Secrets, CertificatesAndTheirKeysAreLookedAt) {
  const TempFolder folder;
  folder.write("crt", "x", 0644);
  folder.write("key", "x", 0640);
  folder.write("open.key", "x", 0644);
  const auto said = [&](const std::string& tls) {
    return issues_of("tls: {" + tls + "}\n" + kTail, folder.path());
  };
  EXPECT_EQ(said("cert_file: crt, key_file: key, client_ca_file: crt, min_version: 1.3, admin: true"), "");
  EXPECT_THAT(said("cert_file: crt, key_file: open.key"),
              AllOf(HasSubstr("f:1:33: `key_file`: the secret in "), HasSubstr("run: chmod 600 ")));
  EXPECT_THAT(said("cert_file: no, key_file: key"), HasSubstr("f:1:18: `cert_file`: cannot read "));
  EXPECT_THAT(said("cert_file: crt"), HasSubstr("f:1:6: `tls`: `cert_file` and `key_file` belong together"));
  EXPECT_THAT(said("client_ca_file: crt"), HasSubstr("`tls` has no `cert_file`"));
  EXPECT_THAT(said("cert_file: crt, key_file: key, min_version: 1.1"), HasSubstr("must be 1.2 or 1.3"));
  const ConfigLoad load = parse_config("tls: {cert_file: crt, key_file: /key}\n" + kTail, "");
  EXPECT_EQ(format_issues("f", load.issues), "");
  EXPECT_EQ(load.config.tls.cert_file, "crt");
  EXPECT_TRUE(load.config.tls.enabled());
  EXPECT_THAT(issues_of(with_worker("{url: https://a, tls: {cert_file: crt}}"), folder.path()),
              HasSubstr("`cert_file` and `key_file` belong together"));
}

TEST(Addresses, UnixSocketsAreAddressesToo) {
  const ConfigLoad load = parse_config("listen: unix:/run/a\nadmin: unix:/run/b\n" + kTail, "");
  EXPECT_EQ(format_issues("f", load.issues), "");
  EXPECT_TRUE(load.config.listen.is_unix());
  EXPECT_EQ(load.config.admin->host, "/run/b");
  EXPECT_THAT(issues_of("listen: unix:/run/a\nadmin: unix:/run/a\n" + kTail),
              HasSubstr("`listen` and `admin` are both unix:/run/a"));
  for (const std::string& path : {std::string("unix:run/a"), std::string("unix:/"), std::string("\"unix:\""),
                                  "unix:/" + std::string(107, 'x')}) {
    EXPECT_THAT(issues_of("admin: " + path + "\n" + kTail), HasSubstr("is not an absolute path")) << path;
  }
}

TEST(Secrets, UnreadableTokenIsOneMistakeNotTwo) {
  const TempFolder folder;
  const ConfigLoad load =
      parse_config("admin: 0.0.0.0:8081\nadmin_token_file: missing\n" + kTail, folder.path());
  EXPECT_EQ(load.issues.size(), 1u);
}

TEST(LoadConfig, ReadsAFileAndItsNeighbours) {
  const TempFolder folder;
  folder.write("key", "sk-123\n", 0600);
  const std::string file = folder.write("heng.yaml", with_worker("{url: http://a, api_key_file: key}"), 0644);
  const ConfigLoad load = load_config(file);
  ASSERT_EQ(format_issues(file, load.issues), "");
  EXPECT_EQ(load.config.pools[0].workers[0].api_key, "sk-123");
}

TEST(LoadConfig, KeyInsideAFileOpenToOthersIsRefused) {
  const TempFolder folder;
  const std::string text = with_worker("{url: http://a, api_key: sk-123}");
  EXPECT_THAT(
      format_issues("f", load_config(folder.write("open.yaml", text, 0644)).issues),
      AllOf(HasSubstr("f:3:34: every user of this machine can read this file"), Not(HasSubstr("sk-123"))));
  const ConfigLoad load = load_config(folder.write("closed.yaml", text, 0600));
  ASSERT_EQ(format_issues("f", load.issues), "");
  EXPECT_EQ(load.config.pools[0].workers[0].api_key, "sk-123");
}

TEST(LoadConfig, UnreadableFilesAreOneIssue) {
  const TempFolder folder;
  EXPECT_EQ(format_issues("x.yaml", load_config(folder.path() + "/missing.yaml").issues),
            "x.yaml: cannot read the file: No such file or directory\n");
  EXPECT_THAT(format_issues("f", load_config(folder.path()).issues), HasSubstr("cannot read the file"));
  const std::string huge = folder.write("huge.yaml", std::string(5 << 20, 'a'), 0600);
  EXPECT_THAT(format_issues("f", load_config(huge).issues), HasSubstr("f: larger than 4 MiB"));
}

TEST(Discover, AloneIsEnoughForAPool) {
  const ConfigLoad load = parse_config(
      "pools: [{model: m, discover: {dns: 'llama.internal:8000', file: w.yaml, every: 1s}}]\n", "/etc/heng");
  EXPECT_EQ(format_issues("f", load.issues), "");
  const DiscoverConfig& discover = load.config.pools.at(0).discover;
  EXPECT_EQ(discover.dns, (Endpoint{"llama.internal", 8000}));
  EXPECT_EQ(discover.file, "/etc/heng/w.yaml");
  EXPECT_EQ(discover.every, std::chrono::seconds(1));
  EXPECT_THAT(issues_of("pools: [{model: m, discover: {every: 1s}}]\n"), HasSubstr("needs `dns` or `file`"));
  EXPECT_THAT(issues_of("pools: [{model: m, discover: {dns: 'llama'}}]\n"), HasSubstr("port is missing"));
}

TEST(WorkerList, IsReadLikeAPoolsWorkers) {
  const WorkerListLoad load =
      parse_worker_list("- http://10.0.0.1:8000\n- {url: http://10.0.0.2:8000, name: big, weight: 2}\n");
  EXPECT_EQ(format_issues("f", load.issues), "");
  ASSERT_EQ(load.workers.size(), 2u);
  EXPECT_EQ(load.workers[0].name, "10.0.0.1:8000");
  EXPECT_EQ(load.workers[1].name, "big");
  EXPECT_EQ(load.workers[1].weight, 2);
  EXPECT_EQ(parse_worker_list(R"([{"url":"http://a:1","capacity":5}])").workers.at(0).capacity, 5);
}

TEST(WorkerList, EmptyTextIsAMistakeAndAnEmptyListIsNot) {
  const auto issues = [](std::string_view yaml) {
    return format_issues("f", parse_worker_list(yaml).issues);
  };
  EXPECT_EQ(issues("[]\n"), "");
  for (const char* text : {"", "\n", "# nothing\n", "~\n"}) EXPECT_THAT(issues(text), HasSubstr("write []"));
  EXPECT_THAT(issues("workers: []\n"), HasSubstr("a list of workers"));
  EXPECT_THAT(issues("- {url: http://a:1, api_key_file: /etc/shadow}\n"),
              HasSubstr("is for the configuration file"));
  EXPECT_THAT(issues("- http://a:1\n- http://a:1/\n"), HasSubstr("twice"));
  EXPECT_THAT(format_issues("f", parse_worker_list("- {url: http://a:1, api_key: k}\n", true).issues),
              HasSubstr("chmod 600 it"));
}

TEST(WorkerAllowKey, ReplacesTheDefault) {
  const std::string pool = kPool;
  const ConfigLoad load = parse_config("worker_allow: [10.1.0.0/16, '*.example.com']\n" + pool, "");
  EXPECT_EQ(format_issues("f", load.issues), "");
  EXPECT_EQ(load.config.worker_allow.ranges.size(), 1u);
  EXPECT_THAT(load.config.worker_allow.hosts, ElementsAre("*.example.com"));
  EXPECT_EQ(parse_config("worker_allow: []\n" + pool, "").config.worker_allow, WorkerAllow());
  EXPECT_THAT(issues_of("worker_allow: [10.1.0.0/8]\n" + pool), HasSubstr("10.0.0.0/8"));
  EXPECT_THAT(issues_of("dns_server: resolver:53\n" + pool), HasSubstr("is a name"));
  // The reference page shows the default as text.
  const std::string page = config_reference();
  const std::size_t at = page.find("| `worker_allow` |");
  const std::size_t open = page.find("`[", at) + 1, close = page.find("]`", at) + 1;
  const ConfigLoad shown = parse_config("worker_allow: " + page.substr(open, close - open) + "\n" + pool, "");
  EXPECT_EQ(shown.config.worker_allow, default_worker_allow());
}

TEST(Options, SetScalarKeysByTheSameRules) {
  Config config;
  ASSERT_TRUE(set_option(config, "timeouts.first_byte", "300s"));
  EXPECT_EQ(config.timeouts.first_byte, 300s);
  ASSERT_TRUE(set_option(config, "listen", "0.0.0.0:9090"));
  EXPECT_EQ(config.listen.host, "0.0.0.0");
  ASSERT_TRUE(set_option(config, "admin", "off"));
  EXPECT_FALSE(config.admin.has_value());
  EXPECT_THAT(set_option(config, "timeouts.first_byte", "300").error().message,
              HasSubstr("`timeouts.first_byte`: a duration needs a unit"));
  EXPECT_THAT(set_option(config, "timeout.first_byte", "3s").error().message,
              HasSubstr("Did you mean `timeouts.first_byte`?"));
  EXPECT_FALSE(set_option(config, "pools", "x"));
  EXPECT_FALSE(set_option(config, "timeouts", "x"));
  EXPECT_FALSE(set_option(config, "", "x"));
  EXPECT_EQ(config.timeouts.first_byte, 300s);
}

TEST(Options, EveryListedKeyCanBeSetToItsDefault) {
  Config config;
  EXPECT_THAT(option_keys(), testing::Contains("health.slow_start"));
  const auto check = [&](const std::string& key, const Field& field, void* object) {
    if (describe_type(field) == "file") return;  // "" names none
    const std::string value = format_field(field, object);
    EXPECT_TRUE(set_option(config, key, value)) << key << "=" << value;
    EXPECT_EQ(format_field(field, object), value) << key;
  };
  for (const Field& field : root_fields()) {
    if (field.type != FieldType::structure) check(std::string(field.key), field, &config);
  }
  for (const Section& section : sections()) {
    for (const Field& field : section.fields) {
      check(std::string(section.key) + "." + std::string(field.key), field, section.at(config));
    }
  }
}

TEST(Options, OverridesAreStrongerThanTheFileAndCheckedTogether) {
  const TempFolder folder;
  const std::string token = folder.write("token", "t0ken\n", 0600);
  const std::string yaml = "admin: 0.0.0.0:8081\ninsecure_bind: true\n" + kTail;
  ConfigLoad load = parse_config(yaml, "", {{"admin_token_file", token, "HENG_ADMIN_TOKEN_FILE"}});
  EXPECT_EQ(format_issues("f", load.issues), "");
  EXPECT_EQ(load.config.admin_token, "t0ken");
  load = parse_config(kTail, "", {{"admin", "0.0.0.0:1", "--admin"}, {"seed", "x", "HENG_SEED"}});
  EXPECT_THAT(format_issues("f", load.issues),
              AllOf(HasSubstr("f: `admin` on 0.0.0.0:1 can be reached"),
                    HasSubstr("f: HENG_SEED: `seed`: 'x' is not a whole number")));
}

TEST(Options, CheckConfigFindsWhatKeysDoTogether) {
  Config config;
  EXPECT_TRUE(check_config(config));
  for (const char* host : {"127.0.0.1", "127.8.9.1", "::1", "localhost"}) {
    config.admin = Endpoint{host, 1};
    EXPECT_TRUE(check_config(config)) << host;
  }
  config.admin = Endpoint{"10.0.0.1", 1};
  EXPECT_FALSE(check_config(config));
  config.admin_token = "t";
  EXPECT_THAT(check_config(config).error().message, HasSubstr("in the clear, and so can its token"));
  config.insecure_bind = true;
  EXPECT_TRUE(check_config(config));
  config.insecure_bind = false;
  config.tls.admin = true;
  config.tls.cert_file = config.tls.key_file = "f";
  EXPECT_TRUE(check_config(config));
  config.admin = config.listen;
  EXPECT_FALSE(check_config(config));
}

TEST(Options, AnAddressOthersCanReachIsRefusedUnlessAskedFor) {
  Config config;
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "example.org"}) {
    config.listen = Endpoint{host, 1};
    const auto refused = check_config(config);
    ASSERT_FALSE(refused) << host;
    EXPECT_THAT(refused.error().message, AllOf(HasSubstr("can be reached by other machines"),
                                               HasSubstr("`keys_file`"), HasSubstr("`insecure_bind: true`")));
    config.insecure_bind = true;
    EXPECT_TRUE(check_config(config)) << host;
    config.insecure_bind = false;
    config.keys_file = "keys.yaml";
    EXPECT_FALSE(check_config(config)) << "keys, but in the clear";
    config.tls.cert_file = config.tls.key_file = "f";
    EXPECT_TRUE(check_config(config)) << host;
    config.keys_file.clear();
    EXPECT_FALSE(check_config(config)) << "TLS, but nobody is asked who they are";
    config.tls = {};
  }
  EXPECT_THAT(issues_of("listen: 0.0.0.0:8080\n" + kTail),
              HasSubstr("f:1:9: `listen` on 0.0.0.0:8080 can be"));
  EXPECT_EQ(issues_of("listen: 0.0.0.0:8080\ninsecure_bind: true\n" + kTail), "");
}

TEST(Options, ClientsKeysAreNotHandedToWorkers) {
  EXPECT_THAT(issues_of("keys_file: k\nforward_authorization: true\n" + kTail),
              HasSubstr("f:2:24: `forward_authorization` would hand the keys of `keys_file` to the workers"));
}

std::string content_of(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// All lines that are commented-out keys become keys.
std::string uncomment(const std::string& text) {
  std::istringstream lines(text);
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t at = line.find_first_not_of(' ');
    if (at != std::string::npos && line[at] == '#' && at + 1 < line.size() && line[at + 1] != ' ')
      line.erase(at, 1);
    out += line + "\n";
  }
  return out;
}

TEST(Documents, ExampleIsCleanAndSetsNothingButDefaults) {
  const ConfigLoad load = parse_config(config_example(), "");
  EXPECT_EQ(format_issues("example", load.issues), "");
  EXPECT_EQ(load.config.timeouts.connect, TimeoutConfig().connect);
}

TEST(Documents, ExampleMentionsEveryKeyAndEachIsValid) {
  std::string text = uncomment(config_example());
  for (const auto fields :
       {root_fields(), pool_fields(), discover_fields(), worker_fields(), worker_tls_fields()}) {
    for (const Field& field : fields) EXPECT_THAT(text, HasSubstr(std::string(field.key) + ":"));
  }
  for (const Section& section : sections()) {
    for (const Field& field : section.fields)
      EXPECT_THAT(text, HasSubstr("  " + std::string(field.key) + ": "));
  }
  // Of the two ways to give a key only one may be used.
  const std::string issues = issues_of(text);
  EXPECT_EQ(std::ranges::count(issues, '\n'), 1) << issues;
  EXPECT_THAT(issues, HasSubstr("both `api_key` and `api_key_file`"));
}

TEST(Documents, ReferenceNamesEveryKeyAndPolicy) {
  const std::string page = config_reference();
  for (const std::string& key : option_keys())
    EXPECT_THAT(page, HasSubstr("| `" + key.substr(key.find('.') + 1) + "` |"));
  for (const RoutePolicyEntry& entry : route_policies()) {
    EXPECT_THAT(page, HasSubstr("### `" + std::string(entry.name) + "`"));
    for (const OptionField& option : entry.fields)
      EXPECT_THAT(page, HasSubstr("| `" + std::string(option.key) + "` |"));
  }
}

TEST(Documents, FilesAreUpToDate) {
  constexpr const char* kHow = " is out of date; run: build/release/heng docs --write";
  EXPECT_TRUE(content_of("docs/reference/configuration.md") == config_reference())
      << "docs/reference/configuration.md" << kHow;
  EXPECT_TRUE(content_of("docs/heng.example.yaml") == config_example()) << "docs/heng.example.yaml" << kHow;
}

RC_GTEST_PROP(ConfigProperty, DamagedExampleNeverCrashesAndIssuesHavePlaces, ()) {
  std::string text = uncomment(config_example());
  const int edits = *rc::gen::inRange(1, 6);
  for (int i = 0; i < edits; ++i) {
    const auto at = *rc::gen::inRange<std::size_t>(0, text.size());
    switch (*rc::gen::inRange(0, 3)) {
      case 0:
        text.erase(at, *rc::gen::inRange<std::size_t>(1, 30));
        break;
      case 1:
        text.insert(at, 1, *rc::gen::elementOf(std::string(":-[]{}#&*!|>'\"%@`,\n\t x0")));
        break;
      default:
        text[at] = *rc::gen::arbitrary<char>();
    }
  }
  for (const ConfigIssue& issue : parse_config(text, "").issues) {
    RC_ASSERT(!issue.message.empty());
    RC_ASSERT((issue.line == 0) == (issue.column == 0) && issue.line >= 0);
  }
}

RC_GTEST_PROP(ConfigProperty, DurationsAndSizesSurviveWritingAndReading, ()) {
  Config config;
  const auto milliseconds = *rc::gen::inRange(1, 3'600'000);
  const auto head_bytes = *rc::gen::inRange(1024, 16 << 20);
  config.timeouts.connect = milliseconds * 1ms;
  config.limits.head_bytes = static_cast<std::uint32_t>(head_bytes);
  for (const Section& section : sections()) {
    for (const Field& field : section.fields) {
      if (describe_type(field) == "file") continue;
      const std::string written = format_field(field, section.at(config));
      Config again;
      RC_ASSERT(
          set_option(again, std::string(section.key) + "." + std::string(field.key), written).has_value());
      RC_ASSERT(format_field(field, section.at(again)) == written);
    }
  }
}

}  // namespace
}  // namespace heng
