// Implementation of predictions: measured arrivals through a simulated engine, and how far it is off.
#include "sim/prediction.h"

#include <fmt/format.h>

#include <cmath>
#include <numeric>

namespace heng {

namespace {

double correlation(std::span<const double> a, std::span<const double> b) {
  const double n = static_cast<double>(a.size());
  const double ma = std::accumulate(a.begin(), a.end(), 0.0) / n;
  const double mb = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - ma) * (b[i] - mb);
    aa += (a[i] - ma) * (a[i] - ma);
    bb += (b[i] - mb) * (b[i] - mb);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

}  // namespace

std::vector<Timing> simulate(const EngineParams& params, const MeasuredRun& run) {
  Engine engine(params);
  std::vector<Timing> timings(run.requests.size());
  std::vector<EngineEvent> events;
  const auto take = [&](Instant until) {
    events.clear();
    engine.advance(until, events);
    for (const EngineEvent& event : events) {
      Timing& timing = timings[event.id];
      const double since = to_seconds(event.at - Instant(run.requests[event.id].request.at));
      if (event.tokens <= 1) timing.ttft = since;
      timing.duration = since;
      timing.cached_tokens = event.cached_tokens;
    }
  };
  for (std::size_t i = 0; i < run.requests.size(); ++i) {
    const MeasuredRequest& measured = run.requests[i];
    EngineRequest request;
    request.id = i;
    request.prompt_tokens = measured.request.prompt_tokens;
    request.output_tokens = measured.request.output_tokens;
    request.every_token = false;
    request.blocks = block_chain(measured.request.pieces, params.block_size);
    request.cached_tokens = measured.cached_tokens;
    take(Instant(measured.request.at));
    engine.submit(std::move(request), Instant(measured.request.at));
  }
  while (engine.next_event() != Engine::kNever) take(engine.next_event());
  return timings;
}

Result<void> check_room(const EngineParams& engine, std::span<const MeasuredRun> runs) {
  const std::uint32_t room = Engine(engine).context_tokens();
  for (const MeasuredRun& run : runs) {
    for (const MeasuredRequest& one : run.requests) {
      const std::uint64_t tokens = std::uint64_t{one.request.prompt_tokens} + one.request.output_tokens;
      if (tokens > room)
        return fail(ErrorCode::invalid,
                    fmt::format("{}: a request has {} tokens, the engine holds {}; raise --max-model-len or "
                                "--kv-blocks",
                                run.name, tokens, room));
    }
  }
  return {};
}

Result<FitQuality> predict(const EngineParams& engine, std::span<const MeasuredRun> runs) {
  if (const auto room = check_room(engine, runs); !room) return std::unexpected(room.error());
  std::vector<double> ttft, ttft_measured, tpots, tpots_measured;
  for (const MeasuredRun& run : runs) {
    const std::vector<Timing> timings = simulate(engine, run);
    for (std::size_t i = 0; i < timings.size(); ++i) {
      const MeasuredRequest& measured = run.requests[i];
      const std::uint32_t tokens = measured.request.output_tokens;
      ttft.push_back(timings[i].ttft);
      ttft_measured.push_back(to_seconds(measured.ttft));
      if (tokens < 2) continue;
      tpots.push_back(tpot(timings[i].ttft, timings[i].duration, tokens));
      tpots_measured.push_back(tpot(to_seconds(measured.ttft), to_seconds(measured.duration), tokens));
    }
  }
  const auto error = [](const std::vector<double>& predicted, const std::vector<double>& measured) {
    const double sum = std::accumulate(measured.begin(), measured.end(), 0.0);
    return sum > 0 ? std::accumulate(predicted.begin(), predicted.end(), 0.0) / sum - 1 : 0;
  };
  return FitQuality{ttft.size(), error(ttft, ttft_measured), error(tpots, tpots_measured),
                    correlation(ttft, ttft_measured), correlation(tpots, tpots_measured)};
}

}  // namespace heng
