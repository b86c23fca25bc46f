// Brings the order of waiting requests together with those who wait.
#include "gateway/waiting_line.h"

#include <fmt/format.h>

#include "gateway/exchange.h"

namespace heng {

namespace {

constexpr Duration kDesertedRetryAfter = 1s;  // as for requests that come then

Exchange& exchange_of(QueuedRequest& request) { return static_cast<Exchange&>(request); }

Counter& shed_counter(MetricRegistry& registry, const std::string& model, const std::string& reason) {
  return registry.counter("heng_shed_total", "Requests turned away because of load or limits",
                          {{"model", model}, {"reason", reason}});
}

}  // namespace

WaitingLine::WaitingLine(Pool& pool, const std::string& model, MetricRegistry& registry)
    : pool_(pool),
      waited_(registry.histogram("heng_queue_wait_seconds",
                                 "Time that requests have waited for a worker with room, if they had to",
                                 ttft_buckets(), {{"model", model}})),
      depth_(registry.gauge("heng_queue_depth", "Requests that wait for a worker with room",
                            {{"model", model}})),
      shed_full_(shed_counter(registry, model, "queue_full")),
      shed_late_(shed_counter(registry, model, "queue_timeout")),
      shed_over_{&shed_counter(registry, model, "key_requests"), &shed_counter(registry, model, "key_tokens"),
                 &shed_counter(registry, model, "key_concurrent")} {}

void WaitingLine::join(Exchange& exchange, Instant now) {
  QueuedRequest* shed = queue_.push(exchange, now);
  if (shed == nullptr) return;
  shed_full_.add();
  exchange_of(*shed).turn_away({429,
                                queue_.length() == 0
                                    ? "all workers are busy, and no request may wait; try again later"
                                    : "too many requests wait for this model; try again later",
                                {},
                                "queue_full",
                                queue_.drain_time(now)});
}

void WaitingLine::serve(Instant now) {
  while (QueuedRequest* late = queue_.pop_expired(now)) turn_away_late(exchange_of(*late), now);
  if (!queue_.empty() && pool_.is_deserted()) turn_away_all();
  while (!queue_.empty() && pool_.room() == Pool::Room::free) {
    QueuedRequest* next =
        queue_.pop(now, [&](QueuedRequest& request) { return exchange_of(request).take_turn(now); });
    if (next == nullptr) break;  // the heads wait for workers of their own
    waited_.observe(to_seconds(exchange_of(*next).begin_turn(now)));
  }
}

void WaitingLine::turn_away_late(Exchange& exchange, Instant now) {
  shed_late_.add();
  if (exchange.is_overdue(now)) {
    exchange.turn_away({504,
                        "the request's time was over before a worker had room",
                        {},
                        "request_timeout",
                        queue_.drain_time(now)});
  } else if (pool_.room() == Pool::Room::none) {
    exchange.turn_away({503,
                        "no worker of this model has come back in time",
                        {},
                        "no_worker_available",
                        queue_.drain_time(now)});
  } else {
    exchange.turn_away(
        {429, "no worker had room in time; try again later", {}, "queue_timeout", queue_.drain_time(now)});
  }
}

/// A worker that has failed may be back in a moment, one that was taken away not.
void WaitingLine::turn_away_all() {
  while (QueuedRequest* next = queue_.pop_expired(kNever)) {
    exchange_of(*next).turn_away({503,
                                  "the workers of this model have been taken out of use",
                                  {},
                                  "no_worker_available",
                                  kDesertedRetryAfter});
  }
}

std::vector<Exchange*> WaitingLine::take_all(Instant now) {
  std::vector<Exchange*> all;
  while (QueuedRequest* next = queue_.pop(now, [](const QueuedRequest&) { return true; }))
    all.push_back(&exchange_of(*next));
  return all;
}

}  // namespace heng
