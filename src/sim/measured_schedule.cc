// Implementation of the measured schedule: overlaps of requests, chunks of prompts, a clock that counts
// steps.
#include "sim/measured_schedule.h"

#include <algorithm>
#include <cmath>

namespace heng {

using fitting::plus;
using fitting::Vector;

namespace {

/// Tokens of context that it reads in so many steps after the first few.
template <class Span>
double read(const Span& span, double before, double steps) {
  return steps * (span.prompt + before + (steps + 1) / 2);
}

}  // namespace

MeasuredSchedule::MeasuredSchedule(const MeasuredRun& run, std::span<const std::uint32_t> cached,
                                   double budget)
    : budget_(budget) {
  for (std::size_t i = 0; i < run.requests.size(); ++i) {
    const MeasuredRequest& one = run.requests[i];

    spans_.push_back({to_seconds(one.request.at + one.ttft), to_seconds(one.request.at + one.duration),
                      std::max(one.request.output_tokens, 1u) - 1.0,
                      static_cast<double>(one.request.prompt_tokens), static_cast<double>(cached[i]), i});
  }
  std::ranges::sort(spans_, {}, &Span::first);
  for (const Span& span : spans_) {
    clock_.emplace_back(span.first, span.first);
    clock_.emplace_back(span.last, span.last);
  }
  std::ranges::sort(clock_);
  const auto repeated = std::ranges::unique(clock_);
  clock_.erase(repeated.begin(), repeated.end());
  place_chunks(0);
}

std::vector<Vector> MeasuredSchedule::work() const {
  std::vector<Vector> work(spans_.size());
  for (std::size_t i = 0; i < spans_.size(); ++i) {
    const Span& one = spans_[i];
    Vector& mine = work[one.index];
    const auto [tokens, pairs] = prefilled(one.first, one.last);
    mine = plus(mine, {one.steps, tokens, one.steps, read(one, 0, one.steps), pairs});
    for (std::size_t j = i + 1; j < spans_.size() && spans_[j].first < one.last; ++j) {
      const Span& other = spans_[j];
      const double until = std::min(one.last, other.last);
      if (until <= other.first) continue;
      // Each counts its own steps; one that lies within the other knows best.
      const double steps =
          other.last <= one.last
              ? other.steps
              : (steps_of(one, other.first, until) + steps_of(other, other.first, until)) / 2;
      mine = plus(mine, {0, 0, steps, read(other, 0, steps), 0});
      const double before = steps_of(one, one.first, other.first);
      work[other.index] = plus(work[other.index], {0, 0, steps, read(one, before, steps), 0});
    }
  }
  return work;
}

void MeasuredSchedule::pace(const Vector& ns) {
  std::vector<std::pair<double, double>> paced = {{clock_.front().first, 0}};
  std::vector<const Span*> active;
  std::size_t next = 0;
  for (std::size_t i = 0; i + 1 < clock_.size(); ++i) {
    const double from = clock_[i].first, until = clock_[i + 1].first;
    std::erase_if(active, [&](const Span* span) { return span->last <= from; });
    for (; next < spans_.size() && spans_[next].first <= from; ++next) {
      if (spans_[next].last > from) active.push_back(&spans_[next]);
    }
    double step = ns[0];
    for (const Span* span : active)
      step += ns[2] + ns[3] * (span->prompt + steps_of(*span, span->first, (from + until) / 2));
    const auto [tokens, pairs] = prefilled(from, until);
    const double extra = ns[1] * tokens + ns[4] * pairs;
    // Never less than one step: a time is the end of one.
    paced.emplace_back(until, paced.back().second + std::max(1.0, ((until - from) * 1e9 - extra) / step));
  }
  clock_ = std::move(paced);
  place_chunks((ns[0] + ns[1] * budget_) * 1e-9);
}

/// A prompt longer than a step is computed in several, each of `seconds`, the last of which ends with the
/// first token.
void MeasuredSchedule::place_chunks(double seconds) {
  chunks_.clear();
  for (const Span& span : spans_) {
    double end = span.first, to = span.prompt;
    while (to > span.cached) {
      const double all = std::ceil((to - span.cached) / budget_);
      const double from = span.cached + (all - 1) * budget_;
      chunks_.push_back({end, to - from, (to * (to + 1) - from * (from + 1)) / 2});
      to = from;
      end -= seconds;
    }
  }
  std::ranges::stable_sort(chunks_, {}, &Chunk::end);
  for (std::size_t i = 1; i < chunks_.size(); ++i) {
    chunks_[i].tokens += chunks_[i - 1].tokens;
    chunks_[i].pairs += chunks_[i - 1].pairs;
  }
}

/// Prompt tokens and pairs of the chunks that end after `from`, by `until`.
std::pair<double, double> MeasuredSchedule::prefilled(double from, double until) const {
  const auto up_to = [&](double time) {
    const auto after = std::ranges::upper_bound(chunks_, time, {}, &Chunk::end);
    return after == chunks_.begin() ? Chunk{} : *(after - 1);
  };
  const Chunk before = up_to(from), all = up_to(until);
  return {all.tokens - before.tokens, all.pairs - before.pairs};
}

/// So many of its steps lie between two times at which somebody's first or last token came.
double MeasuredSchedule::steps_of(const Span& span, double from, double until) const {
  const double all = clock(span.last) - clock(span.first);
  return all > 0 ? span.steps * (clock(until) - clock(from)) / all : 0;
}

double MeasuredSchedule::clock(double at) const {
  const auto after = std::ranges::lower_bound(clock_, at, {}, &std::pair<double, double>::first);
  if (after == clock_.begin()) return after->second;
  if (after == clock_.end()) return clock_.back().second;
  const auto before = after - 1;
  return before->second +
         (after->second - before->second) * (at - before->first) / (after->first - before->first);
}

}  // namespace heng
