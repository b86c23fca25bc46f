// Why a policy chooses as it does, for people: what each worker would have cost a request.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "policy/route/policy.h"

namespace heng {

/// One part of what a candidate is judged by.
struct CostTerm {
  std::string_view name;  // its unit last, as in `first_token_s`; none for counts and ratios
  double value = 0;
};

/// A worker as a policy sees it for one request.
struct Candidate {
  Slot worker = kNoSlot;
  std::optional<double> cost;  // what the policy compares, seconds; none if it compares no costs
  std::vector<CostTerm> terms;
};

/// A policy that derives from this one too can say how it judges. Called before `choose`, with the same
/// arguments; may not change any later choice.
class ExplainsChoice {
 public:
  virtual ~ExplainsChoice() = default;
  /// All of `pool.eligible`, in their order, each with the same terms in the same order.
  virtual std::vector<Candidate> explain(const RequestView& request, const PoolView& pool, Instant now) = 0;
};

/// How the policy judges or, where it does not say, what there is to see of each worker.
std::vector<Candidate> explain_choice(RoutePolicy& policy, const RequestView& request, const PoolView& pool,
                                      Instant now);

}  // namespace heng
