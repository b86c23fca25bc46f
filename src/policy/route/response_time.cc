// Policy `response_time`: peak-EWMA latency times requests in flight.
#include <algorithm>
#include <array>
#include <cmath>

#include "policy/route/least.h"
#include "policy/route/registry.h"
#include "policy/route/slot_table.h"

namespace heng::response_time {
namespace {

struct Options {
  double decay_s;
  double fault_s;
  bool first_byte;
};

constexpr std::array kFields{
    OptionField{"decay_s", 10, 0.1, 3600, "time constant with which old latencies are forgotten"},
    OptionField{"fault_s", 10, 0, 3600, "a failed or refused attempt counts as at least this latency"},
    OptionField{"first_byte", 1, 0, 1, "latency is the time to the first byte; off: to the end of the answer",
                true},
};

struct Latency {
  double seconds = 0;  // as of `seen`
  double score = -1;   // seconds x exp((seen - epoch) / decay); below 0: nothing seen yet
  Instant seen{};
};

/// Finagle's peak EWMA (PeakEwma.scala): latencies above the average are taken over at once, those below
/// blend in, and what is not confirmed by new answers decays, so a worker once slow is tried again.
class ResponseTime final : public RoutePolicy {
 public:
  explicit ResponseTime(const Options& options) : options_(options) {}

  std::optional<Slot> choose(const RequestView&, const PoolView& pool, Instant, Rng& rng) override {
    latency_.sync(pool);
    // All latencies decay by the same factor from now on, which does not change their order: no exp() in
    // here.
    return least(pool, rng, [&](Slot slot) {
      const double in_flight = pool.in_flight[slot], score = latency_[slot].score;
      // An unknown worker gets one request; the next one only after an answer, or if all are unknown.
      const double cost = score >= 0 ? score * (in_flight + 1) : kUnknown * in_flight;
      return cost / pool.weight[slot];
    });
  }

  void on(const AttemptEvent& event, const PoolView& pool, Instant now) override {
    latency_.sync(pool);
    if (event.worker >= latency_.size()) return;
    if (event.kind == AttemptEvent::Kind::first_byte && options_.first_byte) {
      observe(event.worker, to_seconds(event.time_to_first_byte), now);
    } else if (event.kind == AttemptEvent::Kind::ended) {
      if (is_worker_fault(event.outcome) || event.outcome == Outcome::overloaded) {
        observe(event.worker, std::max(to_seconds(event.elapsed), options_.fault_s), now);
      } else if (event.outcome == Outcome::ok && !options_.first_byte) {
        observe(event.worker, to_seconds(event.elapsed), now);
      }
    }
  }

 private:
  static constexpr double kUnknown = 1e200;     // above every score
  static constexpr double kEpochLengths = 300;  // exp(300) = 2e130: far from the end of a double's range

  void observe(Slot slot, double seconds, Instant now) {
    Latency& latency = latency_[slot];
    if (latency.score < 0 || seconds >= latency.seconds) {
      latency.seconds = seconds;
    } else {
      const double kept = std::exp(-to_seconds(now - latency.seen) / options_.decay_s);
      latency.seconds = latency.seconds * kept + seconds * (1 - kept);
    }
    latency.seen = now;
    if (to_seconds(now - epoch_) > kEpochLengths * options_.decay_s) begin_epoch(now);
    latency.score = score(latency);
  }
  void begin_epoch(Instant now) {
    epoch_ = now;
    for (Slot slot = 0; slot < latency_.size(); ++slot) {
      if (latency_[slot].score >= 0) latency_[slot].score = score(latency_[slot]);
    }
  }
  double score(const Latency& latency) const {
    return latency.seconds * std::exp(to_seconds(latency.seen - epoch_) / options_.decay_s);
  }

  Options options_;
  Instant epoch_{};
  SlotTable<Latency> latency_;
};

}  // namespace

RoutePolicyEntry entry() {
  return {
      .name = "response_time",
      .summary = "peak-EWMA latency times requests in flight",
      .details =
          "The worker for which latency x (requests in flight + 1) / `weight` is least, after Finagle's peak "
          "EWMA: a "
          "latency above the average is believed at once, lower ones blend in, silence lets it fade. For "
          "streams the "
          "time to the first byte tells prefill and queue apart from the length of the answer, which is "
          "chance. "
          "Reacts within a few answers to a worker that slows down. Failed attempts count as slow ones, so a "
          "worker "
          "that fails fast does not look fast. Latency does not see how long answers last: workers that "
          "prefill "
          "alike and decode at different speeds look alike.",
      .fields = kFields,
      .validate = nullptr,
      .make = [](const OptionValues& values) -> std::unique_ptr<RoutePolicy> {
        return std::make_unique<ResponseTime>(Options{values[0], values[1], values[2] != 0});
      },
  };
}

}  // namespace heng::response_time
