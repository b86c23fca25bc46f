// The table of measures.
#include "sim/measures.h"

#include <algorithm>

namespace heng {

namespace {

template <std::uint64_t Throughput::* kWhat>
double per_second(const Tally& tally) {
  const Throughput throughput = tally.throughput();
  const double seconds = to_seconds(throughput.time);
  return seconds > 0 ? static_cast<double>(throughput.*kWhat) / seconds : 0;
}

template <const LatencyHistogram& (Tally::*kWhich)() const, int kPercent>
double quantile_ms(const Tally& tally) {
  return to_milliseconds((tally.*kWhich)().quantile(kPercent / 100.0));
}
template <const LatencyHistogram& (Tally::*kWhich)() const>
double mean_ms(const Tally& tally) {
  return (tally.*kWhich)().mean_s() * 1e3;
}

constexpr Measure kMeasures[] = {
    {"requests", "that arrived after the warm-up",
     [](const Tally& t) { return static_cast<double>(t.counted()); }},
    {"completed", "with a whole answer", [](const Tally& t) { return static_cast<double>(t.completed()); }},
    {"cut", "of the completed: the engine's context had no room for the whole answer",
     [](const Tally& t) { return static_cast<double>(t.cut()); }},
    {"refused", "no worker was eligible, the prompt fits none, or a gateway's queue turned it away",
     [](const Tally& t) { return static_cast<double>(t.refused()); }},
    {"failed", "broken off, or no answer in time",
     [](const Tally& t) { return static_cast<double>(t.failed()); }},
    {"queue_full", "of the refused: the gateway's queue was full",
     [](const Tally& t) { return static_cast<double>(t.turned_away(TurnedAway::queue_full)); }},
    {"queue_timeout", "of the refused: waited too long in the gateway's queue",
     [](const Tally& t) { return static_cast<double>(t.turned_away(TurnedAway::queue_timeout)); }},
    {"queued", "had to wait in a gateway",
     [](const Tally& t) { return static_cast<double>(t.had_to_wait()); }},
    {"queued_mean_ms", "waiting in the gateway, of all completed requests", mean_ms<&Tally::queued>},
    {"queued_p50_ms", "", quantile_ms<&Tally::queued, 50>},
    {"queued_p90_ms", "", quantile_ms<&Tally::queued, 90>},
    {"queued_p99_ms", "", quantile_ms<&Tally::queued, 99>},
    {"retries", "second attempts", [](const Tally& t) { return static_cast<double>(t.retries()); }},
    {"requests_per_s", "completed while requests still came", per_second<&Throughput::requests>},
    {"output_tokens_per_s", "of these", per_second<&Throughput::output_tokens>},
    {"goodput_per_s", "of these, completed within the objectives", per_second<&Throughput::good>},
    {"ended_s", "from the first counted arrival to the last end",
     [](const Tally& t) { return to_seconds(t.span()); }},
    {"good_share", "of all requests",
     [](const Tally& t) {
       return t.counted() == 0 ? 0 : static_cast<double>(t.good()) / static_cast<double>(t.counted());
     }},
    {"ttft_mean_ms", "arrival to first token, of streamed requests", mean_ms<&Tally::ttft>},
    {"ttft_p50_ms", "", quantile_ms<&Tally::ttft, 50>},
    {"ttft_p90_ms", "", quantile_ms<&Tally::ttft, 90>},
    {"ttft_p99_ms", "", quantile_ms<&Tally::ttft, 99>},
    {"tpot_mean_ms", "time per output token after the first, by streamed request", mean_ms<&Tally::tpot>},
    {"tpot_p50_ms", "", quantile_ms<&Tally::tpot, 50>},
    {"tpot_p90_ms", "", quantile_ms<&Tally::tpot, 90>},
    {"tpot_p99_ms", "", quantile_ms<&Tally::tpot, 99>},
    {"e2e_mean_ms", "arrival to last token", mean_ms<&Tally::duration>},
    {"e2e_p50_ms", "", quantile_ms<&Tally::duration, 50>},
    {"e2e_p90_ms", "", quantile_ms<&Tally::duration, 90>},
    {"e2e_p99_ms", "", quantile_ms<&Tally::duration, 99>},
    {"cached_share", "of prompt tokens, found in a worker's cache",
     [](const Tally& t) { return t.cached_share(); }},
    {"imbalance", "most / mean requests in flight per unit of speed, weighted by load; 1 = even",
     [](const Tally& t) { return t.imbalance(); }},
    {"queue_mean", "requests waiting in engines", [](const Tally& t) { return t.queue_mean(); }},
    {"queue_max", "", [](const Tally& t) { return static_cast<double>(t.queue_max()); }},
};

}  // namespace

std::span<const Measure> measures() { return kMeasures; }

const Measure* find_measure(std::string_view name) {
  const auto found = std::ranges::find(kMeasures, name, &Measure::name);
  return found == std::end(kMeasures) ? nullptr : found;
}

}  // namespace heng
