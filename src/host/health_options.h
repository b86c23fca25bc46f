// From the configuration's section `health` to what the state machine wants.
#pragma once

#include "config/config.h"
#include "control/worker_health.h"

namespace heng {

HealthOptions health_options(const HealthConfig& config);

}  // namespace heng
