// Copies one by one: the two layers do not know each other.
#include "host/health_options.h"

namespace heng {

HealthOptions health_options(const HealthConfig& config) {
  HealthOptions options;
  options.active = config.active;
  options.interval = config.interval;
  options.timeout = config.timeout;
  options.probe_back = config.probe_back;
  options.silence = config.silence;
  options.fall = config.fall;
  options.rise = config.rise;
  options.passive_faults = config.passive_faults;
  options.slow_start = config.slow_start;
  return options;
}

}  // namespace heng
