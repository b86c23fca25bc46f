// What anybody can see of the candidates of a policy that does not explain itself.
#include "policy/route/explain.h"

#include "policy/route/least.h"

namespace heng {

std::vector<Candidate> explain_choice(RoutePolicy& policy, const RequestView& request, const PoolView& pool,
                                      Instant now) {
  if (auto* const explains = dynamic_cast<ExplainsChoice*>(&policy))
    return explains->explain(request, pool, now);
  const std::span<const double> shares = policy.weights();
  std::vector<Candidate> candidates;
  for (const Slot slot : pool.eligible) {
    Candidate& candidate = candidates.emplace_back(Candidate{slot, std::nullopt, {}});
    candidate.terms = {{"in_flight", static_cast<double>(pool.in_flight[slot])},
                       {"weight", pool.weight[slot]},
                       {"load_with_it", relative_load(pool, slot)}};
    if (!shares.empty()) candidate.terms.push_back({"share", slot < shares.size() ? shares[slot] : 0});
  }
  return candidates;
}

}  // namespace heng
