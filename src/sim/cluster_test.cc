// The simulated cluster: conservation at every event, faults, staleness between gateways, determinism.
#include "sim/cluster.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <set>

#include "config/config.h"
#include "sim/traffic/shape.h"
#include "sim/traffic/synthetic.h"

namespace heng {
namespace {

/// Requests at given times.
class ListedTraffic final : public TrafficSource {
 public:
  explicit ListedTraffic(std::vector<TrafficRequest> requests) : requests_(std::move(requests)) {}
  Result<bool> next(TrafficRequest& out) override {
    if (at_ == requests_.size()) return false;
    out = requests_[at_++];
    return true;
  }

 private:
  std::vector<TrafficRequest> requests_;
  std::size_t at_ = 0;
};

/// Round numbers: 10 ms a step, nothing for tokens.
EngineParams plain() {
  EngineParams params;
  params.t_base = 10ms;
  params.t_prefill = 0ns;
  params.t_decode_seq = 0ns;
  params.t_kv_ns = 0;
  params.t_attention_ns = 0;
  params.kv_blocks = 4000;
  params.max_num_seqs = 8;
  return params;
}

ClusterOptions cluster_of(std::size_t workers, std::string_view policy = "round_robin") {
  ClusterOptions options;
  options.workers.assign(workers, {.engine = plain()});
  options.gateway.policy = find_route_policy(policy);
  options.gateway.policy_options = default_values(*options.gateway.policy);
  return options;
}

TallyOptions tally_of(const ClusterOptions& options) {
  TallyOptions tally;
  tally.workers = options.workers.size();
  for (const SimWorker& worker : options.workers) tally.speeds.push_back(worker.engine.speed);
  return tally;
}

/// Limits that are learned may fall below what is under way.
void expect_limits_kept(const ClusterOptions& options, const Cluster& cluster) {
  for (const SimGateway& gateway : cluster.gateways()) {
    const Pool& pool = gateway.pool();
    EXPECT_TRUE(pool.pool_limit() == 0 || pool.in_flight() <= pool.pool_limit());
    for (Slot slot = 0; slot < pool.slots(); ++slot) {
      const std::uint32_t limit = options.workers[slot].max_in_flight;
      EXPECT_TRUE(limit == 0 || limit == kAdaptive || pool.in_flight(slot) <= limit);
    }
  }
}

struct Outcomes {
  ClusterCounts counts;
  std::vector<RequestRecord> records;
  Duration ttft_p99{};
};

Outcomes run(const ClusterOptions& options, TrafficSource& traffic, bool checked = true) {
  Tally tally(tally_of(options));
  Cluster cluster(options, traffic, tally);
  Outcomes out;
  cluster.on_end([&](const RequestRecord& record) { out.records.push_back(record); });
  Instant last{};
  while (true) {
    const Result<bool> more = cluster.step();
    EXPECT_TRUE(more.has_value());
    if (!more || !*more) break;
    EXPECT_GE(cluster.now(), last);
    last = cluster.now();
    if (checked) cluster.check_books();
    if (checked) expect_limits_kept(options, cluster);
  }
  out.counts = cluster.counts();
  out.ttft_p99 = tally.ttft().quantile(0.99);
  return out;
}

TEST(Cluster, OneRequestTakesItsStepsAndTheNetwork) {
  ClusterOptions options = cluster_of(1);
  options.network = 3ms;
  ListedTraffic traffic({{.at = 1s, .prompt_tokens = 100, .output_tokens = 5}});
  const Outcomes out = run(options, traffic);
  ASSERT_EQ(out.records.size(), 1u);
  EXPECT_EQ(out.records[0].ttft, 16ms);  // there, one step, back
  EXPECT_EQ(out.records[0].duration, 56ms);
  EXPECT_EQ(out.records[0].tpot(), 10ms);
  EXPECT_EQ(out.records[0].worker, 0u);
}

TEST(Cluster, SharedPrefixesAreFoundInTheCacheOfTheSameWorkerOnly) {
  ListedTraffic traffic(
      {{.at = 0s, .prompt_tokens = 320, .output_tokens = 1, .pieces = {{7, 320}}},
       {.at = 1s, .prompt_tokens = 320, .output_tokens = 1, .pieces = {{7, 160}, {8, 160}}},
       {.at = 2s, .prompt_tokens = 320, .output_tokens = 1, .pieces = {{7, 160}, {9, 160}}}});
  const Outcomes out = run(cluster_of(2), traffic);
  ASSERT_EQ(out.records.size(), 3u);
  EXPECT_EQ(out.records[1].cached_tokens, 0u);    // round robin: the other worker
  EXPECT_EQ(out.records[2].cached_tokens, 160u);  // the first one again
}

TEST(Cluster, DeathBreaksWhatAnswersAndMovesWhatWaits) {
  ClusterOptions options = cluster_of(2);
  options.workers[0].engine.max_num_seqs = options.workers[1].engine.max_num_seqs = 1;
  options.faults = {{.kind = FaultKind::die, .worker = 0, .at = 55ms}};
  std::vector<TrafficRequest> requests;
  for (int i = 0; i < 4; ++i) requests.push_back({.at = 0s, .prompt_tokens = 10, .output_tokens = 20});
  requests.push_back({.at = 1s, .prompt_tokens = 10, .output_tokens = 20});
  ListedTraffic traffic(requests);
  const Outcomes out = run(options, traffic);
  ASSERT_EQ(out.records.size(), 5u);
  EXPECT_EQ(out.records[0].end, RequestEnd::failed);  // had its first token
  EXPECT_EQ(out.records[0].duration, 55ms);
  EXPECT_EQ(out.counts.failed, 1u);
  EXPECT_EQ(out.counts.completed, 4u);
  for (std::size_t i = 1; i < 5; ++i) EXPECT_EQ(out.records[i].worker, 1u);
}

TEST(Cluster, DeadWorkerComesBackColdAfterAProbe) {
  ClusterOptions options = cluster_of(1);
  options.faults = {{.kind = FaultKind::die, .worker = 0, .at = 1s, .lasts = 10s}};
  std::vector<TrafficRequest> requests;
  for (const Duration at : {Duration(0s), Duration(5s), Duration(20s)}) {
    requests.push_back({.at = at, .prompt_tokens = 320, .output_tokens = 1, .pieces = {{7, 320}}});
  }
  ListedTraffic traffic(requests);
  const Outcomes out = run(options, traffic);
  EXPECT_EQ(out.records[1].end, RequestEnd::refused);
  EXPECT_EQ(out.records[2].end, RequestEnd::completed);
  EXPECT_EQ(out.records[2].cached_tokens, 0u);
}

TEST(Cluster, NoWorkerMeansRefusal) {
  ClusterOptions options = cluster_of(1);
  options.faults = {{.kind = FaultKind::die, .worker = 0, .at = 0s}};
  std::vector<TrafficRequest> requests(20);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].at = 100ms * static_cast<int>(i + 1);
    requests[i].prompt_tokens = requests[i].output_tokens = 4;
  }
  ListedTraffic traffic(requests);
  const Outcomes out = run(options, traffic);
  EXPECT_EQ(out.counts.completed, 0u);
  EXPECT_EQ(out.counts.refused + out.counts.failed, 20u);
  EXPECT_GE(out.counts.refused, 18u);  // it is ejected with the first refused connection or probe
}

TEST(Cluster, PromptsThatFitNoEngineAreRefused) {
  ClusterOptions options = cluster_of(1);
  options.workers[0].engine.max_model_len = 100;
  ListedTraffic traffic({{.at = 0s, .prompt_tokens = 101, .output_tokens = 1}});
  EXPECT_EQ(run(options, traffic).counts.refused, 1u);
}

TEST(Cluster, AnswersBeyondTheContextAreCutAndCounted) {
  ClusterOptions options = cluster_of(1);
  options.workers[0].engine.max_model_len = 100;
  ListedTraffic traffic({{.at = 0s, .prompt_tokens = 95, .output_tokens = 6},
                         {.at = 0s, .prompt_tokens = 95, .output_tokens = 5}});
  const Outcomes out = run(options, traffic);
  ASSERT_EQ(out.counts.completed, 2u);
  for (const RequestRecord& record : out.records) {
    EXPECT_EQ(record.output_tokens, 5u);
    EXPECT_EQ(record.cut, record.id == 1);
  }
}

TEST(Cluster, HungWorkerFailsItsStreamsAfterTheIdleTimeout) {
  ClusterOptions options = cluster_of(1);
  options.idle_timeout = 3s;
  options.faults = {{.kind = FaultKind::hang, .worker = 0, .at = 100ms}};
  ListedTraffic traffic({{.at = 0s, .prompt_tokens = 10, .output_tokens = 100}});
  const Outcomes out = run(options, traffic);
  ASSERT_EQ(out.records.size(), 1u);
  EXPECT_EQ(out.records[0].end, RequestEnd::failed);
  EXPECT_NEAR(to_seconds(out.records[0].duration), 3.1, 0.11);
}

TEST(Cluster, HangThatEndsCostsItsOwnLength) {
  ClusterOptions options = cluster_of(1);
  options.faults = {{.kind = FaultKind::hang, .worker = 0, .at = 100ms, .lasts = 2s}};
  ListedTraffic traffic({{.at = 0s, .prompt_tokens = 10, .output_tokens = 100}});
  const Outcomes out = run(options, traffic);
  EXPECT_EQ(out.records.at(0).end, RequestEnd::completed);
  EXPECT_NEAR(to_seconds(out.records[0].duration), 3.0, 0.001);
}

TEST(Cluster, WithoutStreamTheFirstByteComesWithTheLast) {
  ClusterOptions options = cluster_of(1);
  options.network = 3ms;
  ListedTraffic traffic({{.at = 1s, .prompt_tokens = 100, .output_tokens = 5, .stream = false}});
  const Outcomes out = run(options, traffic);
  ASSERT_EQ(out.records.size(), 1u);
  EXPECT_FALSE(out.records[0].stream);
  EXPECT_EQ(out.records[0].ttft, 56ms);
  EXPECT_EQ(out.records[0].duration, 56ms);
}

TEST(Cluster, WithoutStreamAnAnswerThatBreaksIsTriedAgainAndTimedUntilItIsWhole) {
  // Twice 0.5 s of an answer of 1 s: a death before it is whole moves it, the time-out ends it.
  for (const bool stream : {true, false}) {
    ClusterOptions options = cluster_of(2);
    options.faults = {{.kind = FaultKind::die, .worker = 0, .at = 500ms}};
    const TrafficRequest request{.at = 0s, .prompt_tokens = 10, .output_tokens = 100, .stream = stream};
    ListedTraffic broken({request});
    EXPECT_EQ(run(options, broken).counts.failed, stream ? 1u : 0u);
    options.faults.clear();
    options.first_byte_timeout = 500ms;
    ListedTraffic slow({request});
    EXPECT_EQ(run(options, slow).counts.failed, stream ? 0u : 1u);
  }
}

/// Requests of one second each, for two workers that may have one at a time.
ClusterOptions one_at_a_time() {
  ClusterOptions options = cluster_of(2);
  for (SimWorker& worker : options.workers) worker.max_in_flight = 1;
  return options;
}

TEST(Cluster, WhoFindsNoRoomWaitsInTheGatewayInOrderOfArrival) {
  std::vector<TrafficRequest> requests;
  for (int i = 0; i < 6; ++i) requests.push_back({.at = i * 10ms, .prompt_tokens = 10, .output_tokens = 100});
  ListedTraffic traffic(requests);
  const Outcomes out = run(one_at_a_time(), traffic);
  ASSERT_EQ(out.counts.completed, 6u);
  for (std::size_t i = 0; i < 6; ++i) {
    const RequestRecord& record = out.records[i];
    EXPECT_EQ(record.id, i + 1);
    EXPECT_EQ(record.worker, i % 2);
    EXPECT_EQ(record.queued, i / 2 * 1s - i / 2 * 20ms);
    EXPECT_EQ(record.ttft, record.queued + 10ms);
  }
}

TEST(Cluster, WhoIsOneTooManyOrLateIsTurnedAway) {
  ClusterOptions options = one_at_a_time();
  options.gateway.queue_length = 3;
  options.gateway.queue_timeout = 1500ms;
  ListedTraffic traffic({8, {.at = 0s, .prompt_tokens = 10, .output_tokens = 100}});
  const Outcomes out = run(options, traffic);
  EXPECT_EQ(out.counts.completed, 4u);
  EXPECT_EQ(out.counts.refused, 4u);
  for (const RequestRecord& record : out.records) {
    EXPECT_EQ(record.turned_away, record.id <= 4   ? TurnedAway::no
                                  : record.id == 5 ? TurnedAway::queue_timeout
                                                   : TurnedAway::queue_full);
    if (record.id >= 5) {
      EXPECT_EQ(record.duration, record.id == 5 ? 1500ms : 0ms);
    }
  }
}

TEST(Cluster, WhoseWorkerDiedIsFirstInTheLine) {
  ClusterOptions options = one_at_a_time();
  options.faults = {{.kind = FaultKind::die, .worker = 0, .at = 0s}};
  ListedTraffic traffic({4, {.at = 0s, .prompt_tokens = 10, .output_tokens = 100}});
  const Outcomes out = run(options, traffic);
  ASSERT_EQ(out.counts.completed, 4u);
  std::vector<std::uint64_t> order;
  for (const RequestRecord& record : out.records) order.push_back(record.id);
  EXPECT_EQ(order, (std::vector<std::uint64_t>{2, 1, 3, 4}));
  EXPECT_EQ(out.records[1].attempts, 2u);
  EXPECT_EQ(out.records[1].queued, 1s);
}

TEST(Cluster, LimitOfAllWorkersIsEachGatewaysOwn) {
  for (const std::uint32_t gateways : {1u, 4u}) {
    ClusterOptions options = cluster_of(2);
    options.gateway.max_in_flight = 2;
    options.gateways = gateways;
    ListedTraffic traffic({40, {.at = 0s, .prompt_tokens = 10, .output_tokens = 100}});
    const Outcomes out = run(options, traffic);
    EXPECT_EQ(out.counts.completed, 40u);
    const Instant end = out.records.back().arrived + out.records.back().duration;
    EXPECT_TRUE(gateways == 1 ? end == Instant(20s) : end < Instant(9s))
        << to_seconds(end.time_since_epoch());
  }
}

TEST(Cluster, LateWorkersTakePart) {
  ClusterOptions options = cluster_of(2);
  options.workers[1].joins = 10s;
  std::vector<TrafficRequest> requests;
  for (int i = 0; i < 40; ++i) requests.push_back({.at = i * 1s, .prompt_tokens = 10, .output_tokens = 1});
  ListedTraffic traffic(requests);
  const Outcomes out = run(options, traffic);
  std::uint64_t late = 0;
  for (const RequestRecord& record : out.records) {
    late += record.worker == 1;
    EXPECT_TRUE(record.arrived >= Instant(10s) || record.worker == 0);
  }
  EXPECT_GE(late, 10u);
}

TEST(Cluster, EachGatewayKnowsOnlyItsOwnLoad) {
  // Two gateways, two workers, simultaneous arrivals: with one shared view least_connections would alternate
  // exactly; apart they sometimes pile up on one worker.
  ClusterOptions options = cluster_of(2, "least_connections");
  std::vector<TrafficRequest> requests(400);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].at = 1s * static_cast<int>(i / 2);
    requests[i].prompt_tokens = 10, requests[i].output_tokens = 10;
  }
  const auto collisions = [&](std::uint32_t gateways) {
    options.gateways = gateways;
    ListedTraffic traffic(requests);
    const Outcomes out = run(options, traffic);
    std::vector<int> on_first(200, 0);
    for (const RequestRecord& record : out.records) on_first[(record.id - 1) / 2] += record.worker == 0;
    return std::ranges::count_if(on_first, [](int n) { return n != 1; });
  };
  EXPECT_EQ(collisions(1), 0);
  EXPECT_GT(collisions(2), 20);
}

/// Twenty requests at once for an engine with eight places: it takes them in three rounds of a second each.
std::vector<TrafficRequest> three_rounds(Duration at) {
  return {20, {.at = at, .prompt_tokens = 10, .output_tokens = 100}};
}

struct Reading {
  EngineLoad load;
  EngineLoad truth;  // of the engine, one network's way before it was read
};

/// What each gateway reads of the first worker, and what was true.
std::vector<std::vector<Reading>> readings(const ClusterOptions& options,
                                           std::vector<TrafficRequest> requests) {
  ListedTraffic traffic(std::move(requests));
  Tally tally(tally_of(options));
  Cluster cluster(options, traffic, tally);
  std::vector<EngineLoad> truth;
  std::vector<std::vector<Reading>> all(options.gateways);
  while (true) {
    const Result<bool> more = cluster.step();
    EXPECT_TRUE(more.has_value());
    if (!more || !*more) return all;
    const Engine& engine = cluster.engine(0);
    truth.push_back({.at = cluster.now(),
                     .running = static_cast<float>(engine.running()),
                     .waiting = static_cast<float>(engine.waiting()),
                     .kv_used = static_cast<float>(engine.kv_usage())});
    for (std::uint32_t gateway = 0; gateway < options.gateways; ++gateway) {
      const EngineLoad& load = cluster.gateways()[gateway].pool().view().reported[0];
      std::vector<Reading>& list = all[gateway];
      if (!load.known() || (!list.empty() && list.back().load.at == load.at)) continue;
      auto then = truth.rbegin();
      while (then->at > load.at - options.network) ++then;
      list.push_back({load, *then});
    }
  }
}

TEST(Cluster, GatewaysReadEnginesAsTheyWereOneWayAgoAndKnowNothingNewer) {
  ClusterOptions options = cluster_of(1);
  options.network = 50ms;
  options.gateway.engine_load_interval = 400ms;
  options.gateways = 2;
  const auto all = readings(options, three_rounds(1003ms));
  for (const std::vector<Reading>& list : all) {
    ASSERT_GE(list.size(), 8u);
    bool queue_seen = false;
    for (std::size_t i = 0; i < list.size(); ++i) {
      EXPECT_EQ(list[i].load.running, list[i].truth.running) << i;
      EXPECT_EQ(list[i].load.waiting, list[i].truth.waiting) << i;
      EXPECT_EQ(list[i].load.kv_used, list[i].truth.kv_used) << i;
      EXPECT_EQ(list[i].load.at, list[0].load.at + static_cast<int>(i) * 400ms);
      queue_seen |= list[i].load.waiting == 12 && list[i].load.running == 8 && list[i].load.kv_used > 0;
    }
    EXPECT_TRUE(queue_seen);
  }
  EXPECT_NE(all[0].front().load.at, all[1].front().load.at) << "each gateway reads in its own rhythm";
}

TEST(Cluster, NothingIsReadUnlessAsked) {
  EXPECT_TRUE(readings(cluster_of(1), three_rounds(0s)).front().empty());
}

TEST(Cluster, LastReadingStaysWhileAWorkerGivesNone) {
  for (const FaultKind kind : {FaultKind::mute, FaultKind::hang, FaultKind::die}) {
    ClusterOptions options = cluster_of(2);
    options.gateway.engine_load_interval = 200ms;
    options.gateway.engine_load_timeout = 300ms;
    options.faults = {{.kind = kind, .worker = 0, .at = 2s, .lasts = 4s}};
    std::vector<TrafficRequest> requests = three_rounds(1900ms);
    requests.push_back({.at = 60s, .prompt_tokens = 10, .output_tokens = 1});
    const auto list = readings(options, requests).front();
    const auto after =
        std::ranges::find_if(list, [](const Reading& one) { return one.load.at >= Instant(2s); });
    ASSERT_TRUE(after != list.begin() && after != list.end()) << to_string(kind);
    EXPECT_GE((after - 1)->load.at, Instant(1800ms));
    // Nothing in between, and read again soon after: the patience with failures is short.
    EXPECT_GE(after->load.at, Instant(6s)) << to_string(kind);
    EXPECT_LE(after->load.at, Instant(9s)) << to_string(kind);
  }
}

SyntheticOptions some_traffic() {
  SyntheticOptions traffic;
  traffic.rate = 40;
  traffic.requests = 600;
  traffic.prompt = {200, 1};
  traffic.output = {20, 1};
  traffic.turns = 3;
  traffic.think = 2s;
  traffic.prefixes = 5;
  traffic.prefix_tokens = 100;
  return traffic;
}

TEST(Cluster, SameSeedSameRecords) {
  for (const RoutePolicyEntry& policy : route_policies()) {
    ClusterOptions options = cluster_of(3, policy.name);
    options.gateways = 2;
    options.faults = {{.kind = FaultKind::slow, .worker = 1, .at = 3s, .lasts = 5s, .factor = 10}};
    const auto once = [&] {
      const auto traffic = make_synthetic(some_traffic(), 5);
      return run(options, *traffic, false);
    };
    const Outcomes a = once(), b = once();
    ASSERT_EQ(a.records.size(), 600u);
    for (std::size_t i = 0; i < a.records.size(); ++i) {
      ASSERT_EQ(a.records[i].id, b.records[i].id) << policy.name;
      ASSERT_EQ(a.records[i].duration, b.records[i].duration);
      ASSERT_EQ(a.records[i].worker, b.records[i].worker);
    }
  }
}

RC_GTEST_PROP(ClusterProperty, BooksBalanceAtEveryEventWhateverHappens, ()) {
  const auto policies = route_policies();
  const auto& policy = policies[*rc::gen::inRange<std::size_t>(0, policies.size())];
  ClusterOptions options = cluster_of(*rc::gen::inRange<std::size_t>(1, 5), policy.name);
  options.gateways = *rc::gen::inRange<std::uint32_t>(1, 4);
  options.network = std::chrono::milliseconds(*rc::gen::inRange(0, 30));
  options.first_byte_timeout = std::chrono::milliseconds(*rc::gen::inRange(200, 20'000));
  options.idle_timeout = std::chrono::milliseconds(*rc::gen::inRange(200, 5'000));
  options.seed = *rc::gen::inRange<std::uint64_t>(0, 1000);
  for (SimWorker& worker : options.workers) {
    worker.engine.kv_blocks = *rc::gen::inRange<std::uint32_t>(40, 400);
    worker.engine.speed = *rc::gen::element(0.25, 1.0, 4.0);
  }
  if (options.workers.size() > 2) options.workers.back().joins = 4s;
  const bool limited = *rc::gen::arbitrary<bool>();
  for (SimWorker& worker : options.workers) {
    if (limited) worker.max_in_flight = *rc::gen::element(0u, 1u, 3u, 10u, kAdaptive);
  }
  options.gateway.max_in_flight = *rc::gen::element(0u, 0u, 2u, 12u);
  options.gateway.queue_length = *rc::gen::element(0u, 2u, 30u, 1000u);
  options.gateway.queue_timeout = std::chrono::milliseconds(*rc::gen::inRange(1, 6000));
  const int faults = *rc::gen::inRange(0, 8);
  for (int i = 0; i < faults; ++i) {
    options.faults.push_back(
        {.kind = *rc::gen::element(FaultKind::die, FaultKind::hang, FaultKind::slow, FaultKind::mute),
         .worker = *rc::gen::inRange<Slot>(0, static_cast<Slot>(options.workers.size())),
         .at = std::chrono::milliseconds(*rc::gen::inRange(0, 15'000)),
         .lasts = std::chrono::milliseconds(*rc::gen::inRange(0, 8'000)),
         .factor = 10});
  }
  SyntheticOptions traffic = some_traffic();
  traffic.requests = 200;
  traffic.burst_every = 5s, traffic.burst_lasts = 1s;
  const double streamed = *rc::gen::element(0.0, 0.5, 1.0);
  const auto source = *shape_traffic([&] { return make_synthetic(traffic, options.seed); },
                                     {.streamed = streamed}, options.seed);
  const Outcomes out = run(options, *source);
  RC_ASSERT(out.counts.in_flight == 0u);
  RC_ASSERT(out.counts.arrived == 200u);
  std::set<std::uint64_t> ids;
  for (const RequestRecord& record : out.records) {
    RC_ASSERT(ids.insert(record.id).second);
    RC_ASSERT(record.duration >= record.ttft);
    RC_ASSERT((record.stream || record.ttft == Duration(0) || record.ttft == record.duration));
  }
  RC_ASSERT(ids.size() == 200u);
}

}  // namespace
}  // namespace heng
