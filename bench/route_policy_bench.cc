// What one decision costs: choose, reserve, first byte and end, for every routing policy and several pool
// sizes.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "policy/route/registry.h"
#include "policy/route/test_pool.h"

namespace heng {
namespace {

void decide(benchmark::State& state, const RoutePolicyEntry* entry) {
  const auto policy = entry->make(default_values(*entry));
  TestPool pool(static_cast<std::size_t>(state.range(0)));
  Rng rng(1);
  Instant now{};
  static constexpr std::size_t kOpen = 64;  // requests in flight at any time
  std::vector<Slot> open(kOpen, kNoSlot);
  std::uint64_t id = 0;
  while (state.KeepRunning()) {
    Slot& worker = open[id % kOpen];
    now += 100us;
    if (worker != kNoSlot) {
      AttemptEvent event{.kind = AttemptEvent::Kind::first_byte,
                         .worker = worker,
                         .request = id - kOpen,
                         .elapsed = 5ms,
                         .time_to_first_byte = 5ms,
                         .prompt_tokens = 100};
      policy->on(event, pool.view(), now);
      event.kind = AttemptEvent::Kind::ended;
      event.output_tokens = 64;
      pool.end(*policy, event, now);
    }
    if (id % 1000 == 0) policy->tick(pool.view(), now);
    const RequestView request{
        .id = id, .affinity = mix(id % 97), .prompt_tokens = 100, .output_tokens_max = 256};
    worker = pool.start(*policy, request, now, rng);
    benchmark::DoNotOptimize(worker);
    ++id;
  }
}

/// Means and 99th percentiles of single steps, in microseconds.
class Steps {
 public:
  void add(std::chrono::duration<double> took) { microseconds_.push_back(took.count() * 1e6); }
  void show(benchmark::State& state, const std::string& name) {
    double sum = 0;
    for (const double one : microseconds_) sum += one;
    state.counters[name + "_us"] = sum / static_cast<double>(microseconds_.size());
    const auto nth =
        microseconds_.begin() + static_cast<std::ptrdiff_t>(0.99 * static_cast<double>(microseconds_.size()));
    std::ranges::nth_element(microseconds_, nth);
    state.counters[name + "_p99_us"] = *nth;
  }

 private:
  std::vector<double> microseconds_;
};

/// Only the decision, with its look into the index (choose), and what is remembered of it (started), for
/// prompts of 4,000 tokens of which a beginning is known, with an index that is full.
void decide_prompt(benchmark::State& state, const RoutePolicyEntry* entry) {
  constexpr double kBlockTokens = 64;
  constexpr std::uint64_t kBlocks = 62, kTexts = 2000;
  const auto policy = entry->make(default_values(*entry));
  TestPool pool(static_cast<std::size_t>(state.range(0)));
  Rng rng(1);
  Instant now{};
  std::uint64_t id = 0;
  std::vector<std::uint64_t> prefix(kBlocks);
  Steps decisions, both;
  const auto request = [&] {
    std::uint64_t hash = mix(rng.below(kTexts));
    const std::uint64_t shared = 10 + rng.below(50);
    for (std::uint64_t i = 0; i < kBlocks; ++i) prefix[i] = hash = combine(hash, i < shared ? i : rng.next());
    return RequestView{.id = ++id, .prompt_tokens = 4000, .prefix = prefix, .block_tokens = kBlockTokens};
  };
  const auto finish = [&](Slot worker) {
    AttemptEvent event{.kind = AttemptEvent::Kind::ended,
                       .worker = worker,
                       .request = id,
                       .elapsed = 500ms,
                       .time_to_first_byte = 400ms,
                       .prompt_tokens = 4000,
                       .cached_tokens = 1000,
                       .output_tokens = 64};
    pool.end(*policy, event, now);
  };
  for (int i = 0; i < 50'000; ++i) finish(pool.start(*policy, request(), now += 1ms, rng));
  while (state.KeepRunning()) {
    const RequestView next = request();
    now += 1ms;
    const auto before = std::chrono::steady_clock::now();
    const Slot worker = policy->choose(next, pool.view(), now, rng).value_or(kNoSlot);
    const auto decided = std::chrono::steady_clock::now();
    pool.reserve(*policy, next, worker, now);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - before;
    decisions.add(decided - before);
    both.add(seconds);
    state.SetIterationTime(seconds.count());
    finish(worker);
  }
  decisions.show(state, "decision");
  both.show(state, "both");
}

}  // namespace
}  // namespace heng

int main(int argc, char** argv) {
  for (const heng::RoutePolicyEntry& entry : heng::route_policies()) {
    benchmark::RegisterBenchmark(std::string(entry.name).c_str(), heng::decide, &entry)
        ->Arg(4)
        ->Arg(64)
        ->Arg(1000);
    if (!entry.uses_prefix) continue;
    benchmark::RegisterBenchmark((std::string(entry.name) + "/prompt").c_str(), heng::decide_prompt, &entry)
        ->Arg(8)
        ->Arg(1000)
        ->UseManualTime();
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
