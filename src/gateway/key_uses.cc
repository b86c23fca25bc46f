// Shows what keys have left.
#include "gateway/key_uses.h"

namespace heng {

void KeyUses::expose_gauges(MetricRegistry& registry, Instant now) {
  for (const auto& [key, use] : uses_) {
    const auto tell = [&](std::string_view limit, double max, double left) {
      const MetricLabels labels{{"key", key}, {"limit", std::string(limit)}};
      registry.gauge("heng_key_limit", "Limit of an API key; 0 = none", labels).set(max);
      registry.gauge("heng_key_remaining", "What is left of it now", labels).set(max == 0 ? 0 : left);
    };
    tell("requests_per_minute", use.requests().limit(), use.requests().level(now));
    tell("tokens_per_minute", use.tokens().limit(), use.tokens().level(now));
    tell("concurrent", use.concurrent_max(),
         static_cast<double>(use.concurrent_max()) - static_cast<double>(use.concurrent()));
  }
}

}  // namespace heng
