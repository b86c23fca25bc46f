// The requests of one model that wait until a worker has room.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "config/config.h"
#include "flow/pool.h"
#include "flow/rate_limit.h"
#include "flow/request_queue.h"
#include "host/metrics.h"

namespace heng {

class Exchange;

/// Part of its model's pool; lives on the gateway's loop. Exchanges join it, and leave it by their turn, by
/// being turned away, or when their client has gone.
class WaitingLine {
 public:
  WaitingLine(Pool& pool, const std::string& model, MetricRegistry& registry);

  void set_options(const QueueConfig& options) { queue_.set_length(options.length); }
  /// Turns somebody away if that is one too many; it may be the exchange itself, which has ended then.
  void join(Exchange& exchange, Instant now);
  void leave(QueuedRequest& request) { queue_.remove(request); }
  /// Those whose time is over or whose workers have all been taken away, then those for whom there is room.
  void serve(Instant now);
  /// All of them, in the order in which they would have been served.
  std::vector<Exchange*> take_all(Instant now);

  /// What the request has cost beyond what it was charged at its turn.
  void settle(const QueuedRequest& request, double cost) {
    queue_.charge(request.tenant, request.weight, cost);
  }
  bool keeps_accounts() const { return queue_.tenants() != 0; }

  bool empty() const { return queue_.empty(); }
  std::size_t size() const { return queue_.size(); }
  std::size_t length() const { return queue_.length(); }
  void count_over_limit(RateRefusal::Limit limit) { shed_over_[static_cast<std::size_t>(limit)]->add(); }
  void expose_gauges() { depth_.set(static_cast<double>(queue_.size())); }

 private:
  void turn_away_late(Exchange& exchange, Instant now);
  void turn_away_all();

  Pool& pool_;
  RequestQueue queue_{0};
  Histogram& waited_;
  Gauge& depth_;
  Counter& shed_full_;
  Counter& shed_late_;
  std::array<Counter*, 3> shed_over_;  // by RateRefusal::Limit
};

}  // namespace heng
