// Policy `two_choices`: the less loaded of two random workers.
#include "policy/route/least.h"
#include "policy/route/registry.h"

namespace heng::two_choices {
namespace {

class TwoChoices final : public RoutePolicy {
 public:
  std::optional<Slot> choose(const RequestView&, const PoolView& pool, Instant, Rng& rng) override {
    return less_loaded_of_two(pool, rng);
  }
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "two_choices",
      .summary = "the better of two random workers",
      .details =
          "Draws two different workers and takes the one with fewer requests in flight relative to its "
          "`weight` "
          "(Mitzenmacher 2001). Nearly as even as `least_connections`, at a cost that does not grow with the "
          "pool, "
          "and several gateways that do not know of each other do not all rush to the same idle worker. With "
          "a "
          "handful of workers and one gateway, `least_connections` is better.",
      .fields = {},
      .validate = nullptr,
      .make = [](const OptionValues&) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<TwoChoices>();
      },
  };
}

}  // namespace heng::two_choices
