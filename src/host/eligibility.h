// From what is known of each worker to whom a pool may choose.
#pragma once

#include <span>

#include "control/outlier_cap.h"
#include "flow/pool.h"

namespace heng {

/// `standings`: [slots], `dead` where no worker is. See worst_in_use. The doubted keep what belongs to them.
void set_eligibility(Pool& pool, std::span<const Standing> standings, double max_ejected_share);

}  // namespace heng
