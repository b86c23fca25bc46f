// Policy `smg_least_load`: SMG's least expected wait, for comparison.
#include <array>

#include "policy/route/expected_wait.h"
#include "policy/route/registry.h"

namespace heng::smg_least_load {
namespace {

constexpr ExpectedWait::Options kDefaults;
constexpr std::array kFields{
    OptionField{"kv_pressure_weight", kDefaults.kv_pressure_weight, 0, 1000,
                "seconds that a KV cache half full counts as"},
    OptionField{"mean_prefill_tokens", kDefaults.mean_prefill_tokens, 1, 1e6,
                "tokens that a request waiting in an engine counts as"},
    OptionField{"throughput", kDefaults.throughput, 1, 1e9, "tokens a worker works off per second"},
};

class SmgLeastLoad final : public RoutePolicy {
 public:
  explicit SmgLeastLoad(const ExpectedWait::Options& options) : wait_(options) {}

  std::optional<Slot> choose(const RequestView&, const PoolView& pool, Instant, Rng& rng) override {
    wait_.sync(pool);
    return wait_.choose(pool, rng);
  }

  void on(const AttemptEvent& event, const PoolView& pool, Instant) override {
    if (event.kind != AttemptEvent::Kind::started) return;
    wait_.sync(pool);
    wait_.sent(event.worker, event.prompt_tokens);
  }

 private:
  ExpectedWait wait_;
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "smg_least_load",
      .summary = "for comparison: SMG's least expected wait",
      .details =
          "A reference policy, for comparisons: the rule of SMG's `least_load` "
          "([source](https://github.com/smg-project/smg/blob/main/model_gateway/src/policies/least_load.rs), "
          "2026-08). The worker for which (tokens waiting in the engine + tokens sent there since its last "
          "report) / `throughput` + `kv_pressure_weight` k / (1 - k) is least, k being the used share of its "
          "KV cache; ties at random. Engines report how many requests wait, not how many tokens, and no "
          "rate; as in SMG a waiting request then counts as `mean_prefill_tokens`. While no worker reports, "
          "the one with the fewest requests in flight. SMG advises to set `throughput` to what one worker "
          "was measured to generate; it reads engines' load every 10 s. Weights do not count.",
      .fields = kFields,
      .validate = nullptr,
      .make = [](const OptionValues& values) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<SmgLeastLoad>(ExpectedWait::Options{values[0], values[1], values[2]});
      },
      .uses_engine_load = true,
  };
}

}  // namespace heng::smg_least_load
