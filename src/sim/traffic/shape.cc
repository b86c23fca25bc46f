// Cut and sample on the way; rate and block resampling after a first pass.
#include "sim/traffic/shape.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"

namespace heng {

namespace {

/// The stream's own time, from `start` on.
class CutTraffic final : public TrafficSource {
 public:
  CutTraffic(std::unique_ptr<TrafficSource> source, const ShapeOptions& options, std::uint64_t seed)
      : source_(std::move(source)),
        options_(options),
        chance_(Rng(seed).split("sample")),
        streams_(Rng(seed).split("streamed")) {}

  Result<bool> next(TrafficRequest& out) override {
    if (options_.requests > 0 && made_ == options_.requests) return false;
    while (true) {
      const Result<bool> more = source_->next(out);
      if (!more || !*more) return more;
      if (out.at < options_.start) continue;
      out.at -= options_.start;
      if (options_.duration > Duration(0) && out.at >= options_.duration) return false;
      if (options_.sample < 1 && chance_.uniform() >= options_.sample) continue;
      if (!out.stream && options_.streamed < 1) out.stream = streams_.uniform() < options_.streamed;
      ++made_;
      return true;
    }
  }

 private:
  std::unique_ptr<TrafficSource> source_;
  ShapeOptions options_;
  Rng chance_;
  Rng streams_;
  std::uint64_t made_ = 0;
};

/// Stretches time.
class StretchedTraffic final : public TrafficSource {
 public:
  StretchedTraffic(std::unique_ptr<TrafficSource> source, double factor)
      : source_(std::move(source)), factor_(factor) {}

  Result<bool> next(TrafficRequest& out) override {
    const Result<bool> more = source_->next(out);
    if (more && *more) out.at = Duration(std::llround(static_cast<double>(out.at.count()) * factor_));
    return more;
  }

 private:
  std::unique_ptr<TrafficSource> source_;
  double factor_;
};

/// Moving-block bootstrap of the gaps (Kuensch 1989): bursts and lulls up to a block's length survive, their
/// order does not. Prompts keep their order, and with it what they share.
class ResampledTraffic final : public TrafficSource {
 public:
  ResampledTraffic(std::unique_ptr<TrafficSource> source, std::vector<Duration> gaps, Duration block,
                   std::uint64_t seed)
      : source_(std::move(source)),
        gaps_(std::move(gaps)),
        block_(block),
        draws_(Rng(seed).split("blocks")) {}

  Result<bool> next(TrafficRequest& out) override {
    const Result<bool> more = source_->next(out);
    if (!more || !*more) return more;
    if (left_ <= Duration(0)) {
      from_ = draws_.below(gaps_.size());
      left_ = block_;
    }
    const Duration gap = gaps_[from_];
    from_ = (from_ + 1) % gaps_.size();
    left_ -= gap;
    now_ += gap;
    out.at = now_;
    return true;
  }

 private:
  std::unique_ptr<TrafficSource> source_;
  std::vector<Duration> gaps_;
  Duration block_;
  Rng draws_;
  std::size_t from_ = 0;
  Duration left_{};
  Duration now_{};
};

}  // namespace

Result<std::unique_ptr<TrafficSource>> shape_traffic(const OpenTraffic& open, const ShapeOptions& options,
                                                     std::uint64_t seed) {
  const auto cut = [&]() -> Result<std::unique_ptr<TrafficSource>> {
    auto source = open();
    if (!source) return source;
    return std::make_unique<CutTraffic>(std::move(*source), options, seed);
  };
  std::vector<Duration> gaps;
  double factor = 1 / options.scale;
  if (options.rate > 0 || options.resample > Duration(0)) {
    auto source = cut();
    if (!source) return source;
    TrafficRequest request;
    std::uint64_t requests = 0;
    Duration first{}, last{};
    for (;; ++requests) {
      const Result<bool> more = (*source)->next(request);
      if (!more) return std::unexpected(more.error());
      if (!*more) break;
      if (requests == 0) first = last = request.at;
      if (requests > 0 && options.resample > Duration(0)) gaps.push_back(request.at - last);
      last = request.at;
    }
    if (requests < 2 || last == first) {
      return fail(ErrorCode::invalid, "the traffic has no rate: fewer than two requests, or all at once");
    }
    const double rate = static_cast<double>(requests - 1) / to_seconds(last - first);
    if (options.rate > 0) factor = rate / options.rate;
  }
  auto source = cut();
  if (!source) return source;
  if (options.resample > Duration(0)) {
    source = std::make_unique<ResampledTraffic>(std::move(*source), std::move(gaps), options.resample, seed);
  }
  if (factor != 1) source = std::make_unique<StretchedTraffic>(std::move(*source), factor);
  return source;
}

}  // namespace heng
