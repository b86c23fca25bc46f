// Policy `weighted_round_robin`: smooth turns in proportion to the configured weights.
#include "policy/route/registry.h"
#include "policy/route/slot_table.h"
#include "policy/route/smooth_turn.h"

namespace heng::weighted_round_robin {
namespace {

struct Nothing {};

class WeightedRoundRobin final : public RoutePolicy {
 public:
  std::optional<Slot> choose(const RequestView&, const PoolView& pool, Instant, Rng&) override {
    sync(pool);
    return turn_.pick(pool, [&](Slot slot) { return pool.weight[slot]; });
  }

  void tick(const PoolView& pool, Instant) override {
    sync(pool);
    show(pool);  // the ramp of a returning worker moves without a change of generation
  }

  std::span<const double> weights() const override { return shares_; }

 private:
  void sync(const PoolView& pool) {
    if (!members_.sync(pool)) return;
    turn_.reset(pool);
    show(pool);
  }
  void show(const PoolView& pool) {
    fill_shares(shares_, pool, [&](Slot slot) { return pool.weight[slot]; });
  }

  SlotTable<Nothing> members_;
  SmoothTurn turn_;
  std::vector<double> shares_;
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "weighted_round_robin",
      .summary = "smooth weighted turn; static weights",
      .details =
          "Turns in proportion to each worker's `weight`, spread evenly (nginx's smooth rule: weights 5, 1, "
          "1 give "
          "a a b a c a a). For workers whose relative speed you know and requests of similar size. A worker "
          "that "
          "returns after a failure is ramped up. If you do not know the speeds, `dynamic_weight` finds them.",
      .fields = {},
      .validate = nullptr,
      .make = [](const OptionValues&) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<WeightedRoundRobin>();
      },
  };
}

}  // namespace heng::weighted_round_robin
