// Scenarios: what a file may say, the mistakes in it, and that the ones with faults keep within their bounds.
#include "sim/scenario.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "sim/measures.h"
#include "sim/run.h"

namespace heng {
namespace {

std::vector<std::string> mistakes(std::string_view yaml) {
  std::vector<std::string> lines;
  for (const ConfigIssue& issue : parse_scenario(yaml, "").issues) {
    std::string line = std::to_string(issue.line) + ":" + std::to_string(issue.column) + " " + issue.message;
    lines.push_back(line.substr(0, line.find('.')));
  }
  return lines;
}

TEST(Scenario, SaysEverything) {
  const ScenarioLoad load = parse_scenario(R"(
name: all
seed: 7
gateways: 2
network: 1ms
warmup: 10s
objective: {ttft: 1s, tpot: 50ms}
traffic: {trace: x.csv, rate: 5, start: 1m, duration: 10m, sample: 0.5, streamed: 0.7, resample: 60s}
workers: [{count: 2, speed: 2}, {joins: 1m, kv_blocks: 500, weight: 3, max_in_flight: 9}]
engine: {max_num_seqs: 64, kv_blocks: 1000}
gateway:
  retry: {budget_ratio: 0.5}
  timeouts: {first_byte: 10s}
  engine_load: {interval: 200ms}
  worker_max_in_flight: adaptive
  max_in_flight: 100
  queue: {length: 7}
faults:
  - {worker: 3, at: 2m, do: slow, factor: 4, for: 5s, times: 2, every: 20s}
policies: [hash, {name: dynamic_weight, beta: 0.2}]
expect: [{measure: failed, max: 0}]
)",
                                           "/data");
  ASSERT_TRUE(load.issues.empty()) << load.issues[0].message;
  const Scenario& scenario = load.scenario;
  EXPECT_EQ(scenario.traffic.trace, "/data/x.csv");
  EXPECT_EQ(scenario.traffic.shape.resample, 60s);
  EXPECT_EQ(scenario.traffic.shape.streamed, 0.7);
  EXPECT_EQ(scenario.tpot_objective, 50ms);
  ASSERT_EQ(scenario.workers.size(), 3u);
  EXPECT_EQ(scenario.workers[1].engine.speed, 2);
  EXPECT_EQ(scenario.workers[1].engine.max_num_seqs, 64u);
  EXPECT_EQ(scenario.workers[1].engine.kv_blocks, 1000u);
  EXPECT_EQ(scenario.workers[2].engine.kv_blocks, 500u);
  EXPECT_EQ(scenario.workers[2].joins, 1min);
  ASSERT_EQ(scenario.faults.size(), 2u);
  EXPECT_EQ(scenario.faults[1].at, 140s);
  EXPECT_EQ(scenario.faults[1].worker, 2u);
  EXPECT_EQ(scenario.gateway.timeouts.first_byte, 10s);
  EXPECT_EQ(scenario.gateway.engine_load.interval, 200ms);
  EXPECT_EQ(scenario.pool.worker_max_in_flight, kAdaptive);
  EXPECT_EQ(scenario.pool.max_in_flight, 100u);
  EXPECT_EQ(scenario.gateway.queue.length, 7u);
  EXPECT_EQ(scenario.workers[1].max_in_flight, 0u);
  EXPECT_EQ(scenario.workers[2].max_in_flight, 9u);
  ASSERT_EQ(scenario.policies.size(), 2u);
  EXPECT_EQ(scenario.policies[1].label, "dynamic_weight:beta=0.2");
}

TEST(Scenario, MistakesHaveTheirPlace) {
  EXPECT_EQ(mistakes("polices: [hash]\n").at(0), "1:1 unknown key 'polices'");
  EXPECT_EQ(mistakes("policies: [hush]\n").at(0), "1:12 unknown policy 'hush'");
  EXPECT_EQ(mistakes("workers: 2\nfaults:\n  - {worker: 3, do: die, at: 1s}\n").at(0),
            "3:14 `worker`: write a number from 1 to 2");
  EXPECT_EQ(mistakes("faults: [{worker: 1, do: explode}]\n").at(0),
            "1:26 `do`: 'explode' is unknown; write die, hang, slow or mute");
  EXPECT_EQ(mistakes("workers: [{count: 2, joins: 1s}]\n").at(0),
            "1:10 nobody is there at the start; let at least one worker join at 0s");
  EXPECT_EQ(mistakes("traffic: {trace: x, sessions: {turns: 2}}\n").at(0),
            "1:31 `sessions` is for made-up traffic; a trace has its own");
  EXPECT_EQ(mistakes("traffic: {trace: x, rate: 2, scale: 2}\n").at(0),
            "1:37 `rate` says how fast the trace passes; leave out `scale`, or `rate`");
  EXPECT_EQ(mistakes("traffic: {bursts: {every: 3s}}\n").at(0),
            "1:19 a burst of 5 s every 3 s never ends; make `lasts` shorter");
  EXPECT_EQ(mistakes("gateway: {timeouts: {idle: 2s, total: 1s}}\n").at(0),
            "1:39 `total` of `timeouts` is not simulated; leave it out");
  EXPECT_EQ(mistakes("gateway: {adaptive_limit: {min: 9, max: 8}}\n").size(), 1u);
  EXPECT_EQ(mistakes("gateway: {max_in_flight: adaptive}\n").size(), 1u);
  EXPECT_EQ(mistakes("gateway: {retry: {hedge_after: 1s}}\n").at(0),
            "1:32 `hedge_after` of `retry` is not simulated; leave it out");
  EXPECT_EQ(mistakes("expect: [{measure: ttft_p99, max: 3}]\n").at(0), "1:20 'ttft_p99' is no measure");
  EXPECT_EQ(mistakes("expect: [{measure: failed, max: 3, policy: hush}]\n").at(0),
            "1:44 unknown policy 'hush'");
  EXPECT_EQ(mistakes("engine: {max_num_seqs: 300, max_num_batched_tokens: 200}\n").at(0),
            "1:1 max_num_batched_tokens must be at least max_num_seqs, or some sequences would never run");
  EXPECT_EQ(mistakes("").size(), 1u);
  EXPECT_EQ(mistakes("- a\n").size(), 1u);
}

TEST(Scenario, PoliciesOnTheCommandLine) {
  EXPECT_EQ(parse_policy("dynamic_weight:beta=0.2:normalise=false")->label,
            "dynamic_weight:beta=0.2:normalise=0");
  EXPECT_EQ(parse_policy("hash")->label, "hash");
  EXPECT_FALSE(parse_policy("hash:nonsense=1").has_value());
  EXPECT_FALSE(parse_policy("dynamic_weight:beta=-1").has_value());
  EXPECT_FALSE(parse_policy("").has_value());
}

std::vector<std::filesystem::path> scenario_files() {
  std::vector<std::filesystem::path> files;
  std::error_code absent;  // run from elsewhere: the suite then fails for having no files
  for (const auto& entry : std::filesystem::directory_iterator("scenarios", absent))
    files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

class Scenarios : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(Scenarios, KeepWithinTheirBounds) {
  ScenarioLoad load = load_scenario(GetParam());
  ASSERT_TRUE(load.issues.empty()) << format_issues(GetParam(), load.issues);
  ASSERT_FALSE(load.scenario.expect.empty());
  complete(load.scenario);
  EXPECT_TRUE(unanswered_expectations(load.scenario).empty());
  for (const ScenarioPolicy& policy : load.scenario.policies) {
    const auto tally = run_scenario(load.scenario, policy);
    ASSERT_TRUE(tally.has_value()) << tally.error().message;
    for (const std::string& line : unmet_expectations(load.scenario, policy, *tally)) ADD_FAILURE() << line;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, Scenarios, testing::ValuesIn(scenario_files()),
                         [](const auto& one) { return one.param.stem().string(); });

TEST(Expectations, ABoundThatIsNotKeptIsTold) {
  ScenarioLoad load = parse_scenario(
      "traffic: {requests: 50}\nworkers: 1\npolicies: [hash]\nexpect:\n  - {measure: completed, max: 49}\n"
      "  - {measure: completed, max: 3, policy: round_robin}\n",
      "");
  const auto tally = run_scenario(load.scenario, load.scenario.policies.at(0));
  ASSERT_TRUE(tally.has_value());
  const auto unmet = unmet_expectations(load.scenario, load.scenario.policies[0], *tally);
  EXPECT_EQ(unmet, std::vector<std::string>{"line 5: completed of hash is 50, expected at most 49"});
}

TEST(Expectations, BoundsFindTheirPolicyByNameOrLabel) {
  ScenarioLoad load = parse_scenario(R"(
traffic: {requests: 50}
policies: [hash, {name: dynamic_weight, beta: 0.2}]
expect:
  - {measure: completed, max: 1, policy: dynamic_weight}
  - {measure: completed, max: 2, policy: "dynamic_weight:beta=0.20"}
  - {measure: completed, max: 3, policy: "dynamic_weight:beta=0.3"}
  - {measure: completed, max: 4, policy: round_robin}
)",
                                     "");
  ASSERT_TRUE(load.issues.empty()) << load.issues[0].message;
  complete(load.scenario);
  const auto tally = run_scenario(load.scenario, load.scenario.policies.at(1));
  ASSERT_TRUE(tally.has_value());
  EXPECT_EQ(
      unmet_expectations(load.scenario, load.scenario.policies[1], *tally),
      (std::vector<std::string>{"line 5: completed of dynamic_weight:beta=0.2 is 50, expected at most 1",
                                "line 6: completed of dynamic_weight:beta=0.2 is 50, expected at most 2"}));
  EXPECT_EQ(
      unanswered_expectations(load.scenario),
      (std::vector<std::string>{"line 7: a bound on completed of dynamic_weight:beta=0.3, which is not run",
                                "line 8: a bound on completed of round_robin, which is not run"}));
}

std::string outcome(std::string_view yaml) {
  ScenarioLoad load = parse_scenario(yaml, "");
  EXPECT_TRUE(load.issues.empty());
  complete(load.scenario);
  const auto tally = run_scenario(load.scenario, load.scenario.policies.at(0));
  return tally ? fmt::format("{} requests", tally->counted()) : tally.error().message;
}

TEST(Run, ThatCountsNoRequestFails) {
  EXPECT_EQ(outcome("traffic: {requests: 20}\nwarmup: 10h\n"),
            "no request is counted: all 20 come within the warm-up of 36000 s; shorten it");
  EXPECT_EQ(outcome("traffic: {start: 1h, duration: 1ms, rate: 0.001}\n"),
            "there is no request in the made-up traffic from 3600 s on for 0.001 s");
}

TEST(Run, MadeUpRequestsCountFromTheStartOfTheCut) {
  EXPECT_EQ(outcome("traffic: {start: 60s, requests: 20}\n"), "20 requests");
  EXPECT_EQ(outcome("traffic: {start: 60s, requests: 20, duration: 10h}\n"), "20 requests");
}

TEST(LatencyHistogram, AQuantileIsWhatItsShareOfAllDoesNotExceed) {
  for (int n = 1; n <= 200; ++n) {
    LatencyHistogram histogram;
    for (int i = 1; i <= n; ++i) histogram.add(Duration(i));
    for (int percent = 1; percent <= 100; ++percent)
      EXPECT_EQ(histogram.quantile(percent / 100.0).count(), (percent * n + 99) / 100)
          << percent << "% of " << n;
  }
}

TEST(LatencyHistogram, QuantilesAreWithinHalfABucket) {
  LatencyHistogram histogram;
  for (int i = 1; i <= 100'000; ++i) histogram.add(i * 1us);
  for (const double q : {0.001, 0.1, 0.5, 0.9, 0.99, 1.0})
    EXPECT_NEAR(to_seconds(histogram.quantile(q)), q * 0.1, q * 0.1 * 0.005 + 1e-6) << q;
  EXPECT_EQ(histogram.count(), 100'000u);
  EXPECT_NEAR(histogram.mean_s(), 0.0500005, 1e-9);
  EXPECT_EQ(LatencyHistogram().quantile(0.5), 0ns);
  LatencyHistogram small;
  for (const Duration value : {0ns, 1ns, 255ns, 256ns}) small.add(value);
  EXPECT_EQ(small.quantile(0), 0ns);
  EXPECT_EQ(small.quantile(0.5), 1ns);
  EXPECT_EQ(small.quantile(0.51), 255ns);
  EXPECT_EQ(small.quantile(0.75), 255ns);
  EXPECT_EQ(small.quantile(1), 256ns);
  EXPECT_EQ(small.distribution().back().second, 1);
}

}  // namespace
}  // namespace heng
