// Cost of one routing decision, for every policy and pool size. `round_robin` is the peer the others compare
// with.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "base/hash.h"
#include "policy/route/registry.h"

namespace heng {
namespace {

/// A pool in the middle of its day: everybody eligible, some requests in flight, unequal weights.
struct BusyPool {
  explicit BusyPool(std::size_t workers) {
    Rng rng(7);
    for (std::size_t i = 0; i < workers; ++i) {
      eligible.push_back(static_cast<Slot>(i));
      in_flight.push_back(static_cast<std::uint32_t>(rng.below(16)));
      weight.push_back(1 + rng.uniform());
      capacity.push_back(0);
      identity.push_back(mix(i));
    }
  }
  PoolView view() const { return {eligible, in_flight, weight, capacity, identity, 1}; }

  std::vector<Slot> eligible;
  std::vector<std::uint32_t> in_flight;
  std::vector<double> weight, capacity;
  std::vector<std::uint64_t> identity;
};

void choose(benchmark::State& state, const RoutePolicyEntry& entry) {
  BusyPool pool(static_cast<std::size_t>(state.range(0)));
  const std::unique_ptr<RoutePolicy> policy = entry.make(default_values(entry));
  Rng rng(1);
  Instant now{std::chrono::hours(1)};
  for (const Slot slot : pool.eligible) {
    policy->on({.kind = AttemptEvent::Kind::first_byte, .worker = slot, .time_to_first_byte = 100ms},
               pool.view(), now);
  }
  std::uint64_t id = 0;
  for (auto _ : state) {
    const RequestView request{.id = ++id, .affinity = mix(id), .prompt_tokens = 200};
    const std::optional<Slot> slot = policy->choose(request, pool.view(), now, rng);
    benchmark::DoNotOptimize(slot);
    pool.in_flight[*slot] = static_cast<std::uint32_t>(id & 15);
  }
}

}  // namespace
}  // namespace heng

int main(int argc, char** argv) {
  for (const heng::RoutePolicyEntry& entry : heng::route_policies()) {
    benchmark::RegisterBenchmark(("choose/" + std::string(entry.name)).c_str(),
                                 [&entry](benchmark::State& state) { heng::choose(state, entry); })
        ->Arg(4)
        ->Arg(8)
        ->Arg(100)
        ->Arg(1000);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
