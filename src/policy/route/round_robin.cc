// Policy `round_robin`: every eligible worker in turn.
#include <algorithm>

#include "policy/route/registry.h"

namespace heng::round_robin {
namespace {

class RoundRobin final : public RoutePolicy {
 public:
  std::optional<Slot> choose(const RequestView&, const PoolView& pool, Instant, Rng&) override {
    if (pool.eligible.empty()) return std::nullopt;
    // The turn goes by slot, not by position, so it stays fair while workers come and go.
    const auto next = std::ranges::upper_bound(pool.eligible, last_);
    last_ = next == pool.eligible.end() ? pool.eligible.front() : *next;
    return last_;
  }

 private:
  Slot last_ = kNoSlot;  // above every slot: the first turn is the first worker's
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "round_robin",
      .summary = "in turn",
      .details =
          "Every eligible worker in turn, whatever its `weight`. Good for equal workers and requests of "
          "equal "
          "size, and as the plainest baseline in comparisons. Not for language models of any size: one long "
          "answer "
          "weighs as much as hundreds of short ones, and this policy does not look. A worker that returns "
          "after a "
          "failure gets its full turn at once; `weighted_round_robin` (with equal weights the same turn) "
          "ramps it up.",
      .fields = {},
      .validate = nullptr,
      .make = [](const OptionValues&) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<RoundRobin>();
      },
  };
}

}  // namespace heng::round_robin
