// What one decision costs: choose, reserve, first byte and end, for every routing policy and several pool
// sizes.
#include <benchmark/benchmark.h>

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

}  // namespace
}  // namespace heng

int main(int argc, char** argv) {
  for (const heng::RoutePolicyEntry& entry : heng::route_policies()) {
    benchmark::RegisterBenchmark(std::string(entry.name).c_str(), heng::decide, &entry)
        ->Arg(4)
        ->Arg(64)
        ->Arg(1000);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
