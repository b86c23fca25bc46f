// How much of a pool may be left out of use for doubt and bad answers.
#pragma once

#include <span>

#include "control/worker_health.h"

namespace heng {

/// The worst standing that may be given new requests; never `dead`. Normally `fine`: the doubted and the
/// outliers are left out. But when the fine are fewer than (1 - `max_ejected_share`) of those alive, the
/// trouble is not the workers' (a bad request that breaks each of them, overload, the network), or what
/// remains could not carry the load: then all alive are used, since a doubtful answer is better than none.
/// This is Envoy's panic threshold (healthy_panic_threshold, 50%), with one difference: workers known to be
/// dead count neither as useful nor as missing, for they would only add refused connections.
Standing worst_in_use(std::span<const Standing> members, double max_ejected_share);

}  // namespace heng
