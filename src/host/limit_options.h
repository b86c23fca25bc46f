// From the configuration's section `adaptive_limit` to what learns a limit.
#pragma once

#include "config/config.h"
#include "control/adaptive_limit.h"

namespace heng {

inline AdaptiveLimitOptions limit_options(const AdaptiveLimitConfig& config) {
  return {.min = config.min, .max = config.max, .tolerance = config.tolerance, .slack = config.slack};
}

}  // namespace heng
