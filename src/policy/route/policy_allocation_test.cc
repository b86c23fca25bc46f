// Checks that no policy allocates on the path of a request once it has seen its pool.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "policy/route/registry.h"
#include "policy/route/test_pool.h"

namespace {
std::size_t allocations = 0;
}

// Seen from inside, a replaced delete looks as if it did not match the standard new.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace heng {
namespace {

TEST(PolicyAllocation, NoneOnThePathOfARequest) {
  for (const RoutePolicyEntry& entry : route_policies()) {
    const auto policy = entry.make(default_values(entry));
    TestPool pool(50);
    Rng rng(1);
    Instant now{std::chrono::hours(1)};
    std::size_t before = 0;
    for (std::uint64_t id = 1; id <= 2000; ++id, now += 1ms) {
      if (id == 1000) before = allocations;
      const Slot slot = pool.start(*policy, {.id = id, .affinity = mix(id % 70)}, now, rng);
      AttemptEvent event{.kind = AttemptEvent::Kind::first_byte,
                         .worker = slot,
                         .request = id,
                         .elapsed = 1ms,
                         .time_to_first_byte = 1ms,
                         .output_tokens = 5};
      policy->on(event, pool.view(), now);
      event.kind = AttemptEvent::Kind::ended;
      pool.end(*policy, event, now);
    }
    EXPECT_EQ(allocations, before) << entry.name;
    const std::size_t counted = allocations;
    ::operator delete(::operator new(1));
    EXPECT_GT(allocations, counted);  // the counter counts
  }
}

}  // namespace
}  // namespace heng
