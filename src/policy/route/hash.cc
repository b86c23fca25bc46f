// Policy `hash`: consistent hash of the request's affinity key with bounded load.
#include <algorithm>
#include <array>
#include <vector>

#include "base/hash.h"
#include "policy/route/least.h"
#include "policy/route/registry.h"
#include "policy/route/slot_table.h"

namespace heng::hash {
namespace {

struct Options {
  double load_factor;
  double in_flight_free;
  double points;
};

constexpr std::array kFields{
    OptionField{"load_factor", 1.25, 1.01, 100,
                "a worker holds at most this multiple of its share of all requests in flight"},
    OptionField{"in_flight_free", 4, 0, 100000, "requests a worker may hold before that bound applies"},
    OptionField{"points", 128, 16, 1024, "places of each worker on the ring: more even, more memory"},
};

struct Membership {
  bool eligible = false;
};

/// A ring of points (Karger et al. 1997) with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018). The ring
/// holds every member, eligible or not, and is rebuilt only when members come or go: health costs a flag, not
/// a sort.
class Hash final : public RoutePolicy {
 public:
  explicit Hash(const Options& options) : options_(options) {}

  std::optional<Slot> choose(const RequestView& request, const PoolView& pool, Instant, Rng& rng) override {
    sync(pool);
    if (request.affinity == 0 || pool.eligible.size() < 2) return less_loaded_of_two(pool, rng);
    std::uint64_t in_flight = 1;  // the request to be placed counts
    double weight = 0, weight_max = 0;
    for (const Slot slot : pool.eligible) {
      in_flight += pool.in_flight[slot];
      weight += pool.weight[slot];
      weight_max = std::max(weight_max, pool.weight[slot]);
    }
    const double per_weight = options_.load_factor * static_cast<double>(in_flight) / weight;
    const std::uint64_t key = mix(request.affinity);
    auto point = std::ranges::upper_bound(ring_, key, {}, &Point::position);
    // Some worker is always below its bound; if it is far along the ring, the scan at the end is cheaper.
    for (std::size_t steps = 4 * pool.eligible.size() + 64; steps > 0; --steps, ++point) {
      if (point == ring_.end()) point = ring_.begin();
      const Slot slot = point->slot;
      if (!members_[slot].eligible || point->rank * weight_max >= pool.weight[slot]) continue;
      const double bound = std::max(per_weight * pool.weight[slot], options_.in_flight_free);
      if (pool.in_flight[slot] < bound) return slot;
    }
    return least(pool, rng, [&](Slot slot) { return relative_load(pool, slot); });
  }

 private:
  struct Point {
    std::uint64_t position;
    Slot slot;
    float rank;  // in (0, 1): the point counts while its worker's weight is above rank x the greatest weight
  };

  void sync(const PoolView& pool) {
    if (!members_.sync(pool)) return;
    for (Slot slot = 0; slot < members_.size(); ++slot) members_[slot].eligible = false;
    for (const Slot slot : pool.eligible) members_[slot].eligible = true;
    if (std::ranges::equal(identity_, pool.identity)) return;
    identity_.assign(pool.identity.begin(), pool.identity.end());
    const auto points = static_cast<std::uint32_t>(options_.points);
    ring_.clear();
    ring_.reserve(identity_.size() * points);
    for (Slot slot = 0; slot < identity_.size(); ++slot) {
      for (std::uint32_t i = 0; i < points; ++i) {
        const float rank = (static_cast<float>(i) + 0.5F) / static_cast<float>(points);
        ring_.push_back({combine(identity_[slot], i), slot, rank});
      }
    }
    std::ranges::sort(ring_, [](const Point& a, const Point& b) {
      return a.position != b.position ? a.position < b.position : a.slot < b.slot;
    });
  }

  Options options_;
  SlotTable<Membership> members_;
  std::vector<std::uint64_t> identity_;  // [slots] the members the ring was built from
  std::vector<Point> ring_;              // ascending by position
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "hash",
      .summary = "consistent hash of a key (header, user, session or prompt start) with bounded load",
      .details =
          "Requests with the same key go to the same worker, so its prefix cache is warm, on every gateway "
          "alike. "
          "When a worker leaves, only its own keys move; they come back when it does. No worker holds more "
          "than "
          "`load_factor` times its share of the requests in flight (consistent hashing with bounded loads): "
          "a hot "
          "key spills over to the next workers on the ring, always the same ones. `weight` scales both a "
          "worker's "
          "keys and its bound, so a returning worker regains its keys as it ramps up. Requests without a key "
          "go to "
          "the less loaded of two random workers. Keys are all it looks at: speed is seen only through the "
          "bound.",
      .fields = kFields,
      .validate = nullptr,
      .make = [](const OptionValues& values) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<Hash>(Options{values[0], values[1], values[2]});
      },
  };
}

}  // namespace heng::hash
