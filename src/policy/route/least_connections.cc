// Policy `least_connections`: the worker with the fewest requests in flight, relative to its weight.
#include "policy/route/least.h"
#include "policy/route/registry.h"

namespace heng::least_connections {
namespace {

class LeastConnections final : public RoutePolicy {
 public:
  std::optional<Slot> choose(const RequestView&, const PoolView& pool, Instant, Rng& rng) override {
    return least(pool, rng, [&](Slot slot) { return relative_load(pool, slot); });
  }
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "least_connections",
      .summary = "fewest requests in flight, relative to weight",
      .details =
          "The worker for which (requests in flight + 1) / `weight` is least; ties go to one of the equals "
          "at "
          "random. Needs no tuning and adapts to unequal workers by itself, since slow ones keep their "
          "requests "
          "longer. It counts requests, not their size, and among idle workers it cannot tell fast from slow.",
      .fields = {},
      .validate = nullptr,
      .make = [](const OptionValues&) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<LeastConnections>();
      },
  };
}

}  // namespace heng::least_connections
