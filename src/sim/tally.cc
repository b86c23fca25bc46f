// Counting, and a timeline that halves its resolution whenever it would grow too long.
#include "sim/tally.h"

#include <algorithm>
#include <numeric>

namespace heng {

namespace {

constexpr std::size_t kSpansMax = 512;

void add(std::vector<double>& to, std::span<const double> from) {
  if (to.size() < from.size()) to.resize(from.size(), 0);
  for (std::size_t i = 0; i < from.size(); ++i) to[i] += from[i];
}

}  // namespace

Tally::Tally(TallyOptions options) : options_(std::move(options)) {
  HENG_ASSERT(options_.speeds.size() == options_.workers);
}

void Tally::halve() {
  for (std::size_t i = 0; 2 * i < timeline_.size(); ++i) {
    TimelineSpan& a = timeline_[2 * i];
    if (2 * i + 1 < timeline_.size()) {
      const TimelineSpan& b = timeline_[2 * i + 1];
      a.samples += b.samples;
      add(a.in_flight, b.in_flight);
      add(a.weights, b.weights);
      a.queued += b.queued;
      for (std::size_t worker = 0; worker < a.assigned.size(); ++worker)
        a.assigned[worker] += b.assigned[worker];
      a.completed += b.completed, a.lost += b.lost, a.streamed += b.streamed;
      a.prompt_tokens += b.prompt_tokens, a.cached_tokens += b.cached_tokens;
      a.ttft_s += b.ttft_s;
    }
    if (i > 0) timeline_[i] = std::move(a);
  }
  timeline_.resize((timeline_.size() + 1) / 2);
  step_ *= 2;
}

TimelineSpan& Tally::span_at(Instant at) {
  while (at.time_since_epoch() / step_ >= static_cast<std::int64_t>(kSpansMax)) halve();
  const auto index = static_cast<std::size_t>(at.time_since_epoch() / step_);
  while (timeline_.size() <= index) {
    timeline_.emplace_back();
    timeline_.back().in_flight.resize(options_.workers, 0);
    timeline_.back().assigned.resize(options_.workers, 0);
  }
  return timeline_[index];
}

void Tally::on_arrival(Instant now) {
  if (now.time_since_epoch() < options_.warmup) return;
  first_ = std::min(first_, now);
  at_last_arrival_ = since_first_;
  at_last_arrival_.time = now - first_;
}

Throughput Tally::throughput() const {
  if (at_last_arrival_.time > Duration(0) && 2 * at_last_arrival_.requests >= completed_)
    return at_last_arrival_;
  return {span(), completed_, good_, output_tokens_};
}

void Tally::on_attempt(Slot worker, Instant now) { ++span_at(now).assigned[worker]; }

void Tally::on_end(const RequestRecord& record) {
  const Instant ended = record.arrived + record.duration;
  TimelineSpan& span = span_at(ended);
  const bool completed = record.end == RequestEnd::completed;
  ++(completed ? span.completed : span.lost);
  if (completed) {
    span.prompt_tokens += record.prompt_tokens;
    span.cached_tokens += record.cached_tokens;
    span.streamed += record.stream;
    if (record.stream) span.ttft_s += to_seconds(record.ttft);
  }
  const bool good = completed && is_good(record);
  if (completed && first_ <= ended) {
    ++since_first_.requests;
    since_first_.good += good;
    since_first_.output_tokens += record.output_tokens;
  }
  if (record.arrived.time_since_epoch() < options_.warmup) return;
  last_ = std::max(last_, ended);
  had_to_wait_ += record.queued > Duration(0);
  ++turned_away_[static_cast<std::size_t>(record.turned_away)];
  retries_ += record.attempts > 1 ? record.attempts - 1 : 0;
  ++(completed ? completed_ : record.end == RequestEnd::refused ? refused_ : failed_);
  if (!completed) return;
  prompt_tokens_ += record.prompt_tokens;
  cached_tokens_ += record.cached_tokens;
  output_tokens_ += record.output_tokens;
  cut_ += record.cut;
  queued_.add(record.queued);
  duration_.add(record.duration);
  if (record.stream) ttft_.add(record.ttft);
  if (record.stream && record.output_tokens > 1) tpot_.add(record.tpot());
  good_ += good;
}

/// Without stream: whole by the time at which a streamed answer as long, just within both, would be.
bool Tally::is_good(const RequestRecord& record) const {
  if (record.stream)
    return record.ttft <= options_.ttft_objective && record.tpot() <= options_.tpot_objective;
  const std::uint32_t further = std::max(record.output_tokens, 1u) - 1;
  return record.duration <= options_.ttft_objective + further * options_.tpot_objective;
}

void Tally::sample(Instant now, std::span<const std::uint32_t> in_flight,
                   std::span<const std::uint32_t> waiting, std::uint64_t queued,
                   std::span<const double> weights) {
  TimelineSpan& span = span_at(now);
  span.samples += 1;
  span.queued += static_cast<double>(queued);
  for (std::size_t worker = 0; worker < in_flight.size(); ++worker)
    span.in_flight[worker] += in_flight[worker];
  add(span.weights, weights);
  if (now.time_since_epoch() < options_.warmup) return;
  double most = 0, sum = 0;
  for (std::size_t worker = 0; worker < in_flight.size(); ++worker) {
    const double load = in_flight[worker] / options_.speeds[worker];
    most = std::max(most, load);
    sum += load;
  }
  most_load_ += most;
  mean_load_ += sum / static_cast<double>(in_flight.size());
  samples_ += 1;
  const std::uint64_t queue = std::accumulate(waiting.begin(), waiting.end(), std::uint64_t{0});
  queue_sum_ += static_cast<double>(queue);
  queue_max_ = std::max(queue_max_, queue);
}

}  // namespace heng
