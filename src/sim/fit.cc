// Simulating runs, and Gauss-Newton on regressed residuals.
#include "sim/fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include "base/rng.h"
#include "sim/fit_math.h"
#include "sim/measured_schedule.h"

namespace heng {

namespace {

using namespace fitting;

static_assert(kSize == kFitted);

constexpr std::size_t kRequestsMin = 10;
constexpr double kCauchy = 2.385;          // in units of the residuals' scale: 95% efficient for normal ones
constexpr double kScaleMin = 0.002;        // of residuals: nothing is measured to better than 0.2%
constexpr double kTimeFloor = 1e-5;        // s, added to times before their ratio is taken
constexpr std::size_t kSearchDraws = 120;  // to begin with, at random
constexpr std::size_t kCloudPairs = 12;    // simulations for one Jacobian, each with its mirror image
constexpr double kRadiusFirst = 0.4, kRadiusLast = 0.001;  // of the cloud, in log units
constexpr double kRadiusRough = 0.05;                      // where it ends while limits are chosen
constexpr int kIterationsMax = 60;
constexpr double kFinalRadius = 0.02;  // of the cloud for the covariance
constexpr double kHalfMin = 0.02;      // no interval is narrower: steps cut prompts in ways nobody sees
constexpr std::size_t kBlocks = 20, kReplicates = 200;
constexpr int kPaces = 4;        // how often steps are spread anew over the measured schedule
constexpr double kSure = 0.1;    // deviation, in log units, up to which the schedule alone tells a time
constexpr double kShared = 2.5;  // deviations of a 95% interval where requests share steps and err together
constexpr std::size_t kRounds = 6;
constexpr double kAsGood = 1.1;      // so many times the least residuals
constexpr double kWorthwhile = 0.9;  // a limit other than the default must fit so much better

/// Log-normal priors, wide where measurements usually tell, around what the default engine's ratios say.
constexpr Vector kPriorSpread = {2.5, 2.5, 1.5, 1.5, 1.5};

EngineParams with_times(EngineParams engine, const Vector& log_ns) {
  const auto whole = [](double log) { return Duration(std::llround(std::exp(log))); };
  engine.t_base = whole(log_ns[0]);
  engine.t_prefill = whole(log_ns[1]);
  engine.t_decode_seq = whole(log_ns[2]);
  engine.t_kv_ns = std::exp(log_ns[3]);
  engine.t_attention_ns = std::exp(log_ns[4]);
  return engine;
}

double log_ratio(double predicted, double measured) {
  return std::log((predicted + kTimeFloor) / (measured + kTimeFloor));
}

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto at =
      values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::ranges::nth_element(values, at);
  return *at;
}

/// Log ratios at some parameters: simulated TTFT of all requests, simulated TPOT of those with two tokens or
/// more, and decode time of these by the measured schedule.
struct Residuals {
  std::vector<double> values;
};

class Fitter {
 public:
  Fitter(std::span<const MeasuredRun> runs, const FitOptions& options)
      : runs_(runs), options_(options), rng_(Rng(options.seed).split("fit")), engine_(options.engine) {
    for (const MeasuredRun& run : runs) {
      for (const MeasuredRequest& one : run.requests) has_tpot_.push_back(one.request.output_tokens >= 2);
    }
    guess();
  }

  EngineFit run() {
    time_schedule();
    Vector at = descend(search(kSearchDraws), kRadiusFirst, kRadiusRough, "fitting");
    at = choose_limits(at);
    return conclude(polish(at));
  }

 private:
  struct Jacobian {
    std::vector<Vector> rows;     // d residual / d log parameter
    std::vector<double> centers;  // smoothed residuals at the middle of the cloud
    Vector best{};                // of the cloud
    double best_loss = std::numeric_limits<double>::infinity();
  };
  struct Scales {
    double ttft = 1, tpot = 1, decode = 1;
  };

  /// Where to begin: a lone sequence decodes in t_base, a lone prompt takes t_prefill a token; the other
  /// times as in the default engine, relative to these.
  void guess() {
    std::vector<double> steps, tokens;
    for (const MeasuredRun& run : runs_) {
      for (const MeasuredRequest& one : run.requests) {
        const double ttft = to_seconds(one.ttft);
        const std::uint32_t computed = std::max(1u, one.request.prompt_tokens - one.cached_tokens);
        tokens.push_back(ttft / computed);
        if (one.request.output_tokens >= 2)
          steps.push_back(tpot(ttft, to_seconds(one.duration), one.request.output_tokens));
      }
    }
    const EngineParams usual;
    const auto ns = [](Duration span) { return static_cast<double>(span.count()); };
    const double base = std::max(steps.empty() ? quantile(tokens, 0.1) : quantile(steps, 0.05), 1e-8) * 8e8;
    // A saturated run's first tokens waited; prefill is hardly dearer than a step for every hundred tokens.
    const double prefill = std::clamp(quantile(tokens, 0.1) * 8e8, base * 1e-4, base * 1e-1);
    prior_ = {base, prefill, base * ns(usual.t_decode_seq) / ns(usual.t_base),
              base * usual.t_kv_ns / ns(usual.t_base), prefill * usual.t_attention_ns / ns(usual.t_prefill)};
    for (double& value : prior_) value = std::log(value);
    start_ = prior_;
  }

  /// Sets up `work_` and moves the start to where it fits: Gauss-Newton without simulations.
  void time_schedule() {
    if (engine_.overlap > 0 || engine_.kv_mixed != 1) return;  // then a step's time is no sum
    std::vector<MeasuredSchedule> schedules;
    for (const MeasuredRun& run : runs_) {
      std::vector<std::uint32_t> cached;
      for (const Timing& timing : simulate(with_times(engine_, prior_), run))
        cached.push_back(timing.cached_tokens);
      schedules.emplace_back(run, cached, engine_.max_num_batched_tokens);
    }
    for (const MeasuredRun& run : runs_) {
      for (const MeasuredRequest& one : run.requests) {
        if (one.request.output_tokens >= 2) decoded_.push_back(to_seconds(one.duration - one.ttft));
      }
    }
    for (int round = 0; round < kPaces; ++round) {
      Vector ns;
      for (std::size_t k = 0; k < kFitted; ++k) ns[k] = std::exp(start_[k]) / engine_.speed;
      work_.clear();
      std::size_t request = 0;
      for (MeasuredSchedule& schedule : schedules) {
        if (round > 0) schedule.pace(ns);
        for (const Vector& work : schedule.work()) {
          if (has_tpot_[request++] != 0) work_.push_back(work);
        }
      }
      for (int iteration = 0; iteration < kIterationsMax / 2; ++iteration) {
        const Vector step = schedule_step();
        start_ = plus(start_, step, std::min(1.0, 0.5 / std::max(distance(step, {}), 1e-12)));
      }
    }
  }

  Vector schedule_step() {
    Jacobian jacobian;
    std::vector<double> sizes;
    for (std::size_t i = 0; i < work_.size(); ++i) {
      const double all = decode_seconds(start_, work_[i]);
      jacobian.centers.push_back(log_ratio(all, decoded_[i]));
      sizes.push_back(std::abs(jacobian.centers.back()));
      Vector& row = jacobian.rows.emplace_back();
      for (std::size_t k = 0; k < kFitted; ++k)
        row[k] = std::exp(start_[k]) * 1e-9 * work_[i][k] / engine_.speed / all;
    }
    const double scale = std::max(1.4826 * quantile(std::move(sizes), 0.5), kScaleMin);
    return solve(jacobian, jacobian.centers, {scale, scale, scale}, start_, {}, &start_covariance_);
  }

  /// By the measured schedule.
  double decode_seconds(const Vector& log_ns, const Vector& work) const {
    double ns = 0;
    for (std::size_t k = 0; k < kFitted; ++k) ns += std::exp(log_ns[k]) * work[k];
    return ns * 1e-9 / engine_.speed;
  }

  Residuals evaluate(const Vector& at) {
    ++simulations_;
    Residuals result;
    std::vector<double> tpots;
    const EngineParams engine = with_times(engine_, at);
    for (const MeasuredRun& run : runs_) {
      const std::vector<Timing> timings = simulate(engine, run);
      for (std::size_t i = 0; i < timings.size(); ++i) {
        const MeasuredRequest& measured = run.requests[i];
        const double ttft = to_seconds(measured.ttft);
        const std::uint32_t tokens = measured.request.output_tokens;
        result.values.push_back(log_ratio(timings[i].ttft, ttft));
        if (tokens < 2) continue;
        tpots.push_back(log_ratio(tpot(timings[i].ttft, timings[i].duration, tokens),
                                  tpot(ttft, to_seconds(measured.duration), tokens)));
      }
    }
    result.values.insert(result.values.end(), tpots.begin(), tpots.end());
    for (std::size_t i = 0; i < work_.size(); ++i)
      result.values.push_back(log_ratio(decode_seconds(at, work_[i]), decoded_[i]));
    return result;
  }

  /// Of the three kinds apart: the median of the absolute residuals as a standard deviation.
  Scales scales_of(const Residuals& residuals) const {
    const auto middle = [](std::span<const double> values) {
      std::vector<double> sizes;
      for (const double value : values) sizes.push_back(std::abs(value));
      return std::max(1.4826 * quantile(std::move(sizes), 0.5), kScaleMin);
    };
    const std::span<const double> all(residuals.values);
    const std::size_t tpots = all.size() - has_tpot_.size() - work_.size();
    return {middle(all.first(has_tpot_.size())), middle(all.subspan(has_tpot_.size(), tpots)),
            middle(all.last(work_.size()))};
  }
  double scale_of(const Scales& scales, std::size_t index, std::size_t size) const {
    return index < has_tpot_.size() ? scales.ttft : index < size - work_.size() ? scales.tpot : scales.decode;
  }

  /// Cauchy's loss of the residuals, which lets go of requests that missed their step, and the prior's.
  double loss(const Residuals& residuals, const Scales& scales, const Vector& at) const {
    double sum = 0;
    for (std::size_t i = 0; i < residuals.values.size(); ++i) {
      const double size = residuals.values[i] / scale_of(scales, i, residuals.values.size()) / kCauchy;
      sum += kCauchy * kCauchy / 2 * std::log1p(size * size);
    }
    for (std::size_t i = 0; i < kFitted; ++i) {
      const double off = (at[i] - prior_[i]) / kPriorSpread[i];
      sum += off * off / 2;
    }
    return sum;
  }

  /// Mean size of residuals, for comparing what has no common scale.
  static double mean_size(const Residuals& residuals) {
    double sum = 0;
    for (const double value : residuals.values) sum += std::min(std::abs(value), 3.0);
    return sum / static_cast<double>(residuals.values.size());
  }

  Vector search(std::size_t draws) {
    Vector best = start_;
    double least = mean_size(evaluate(best));
    for (std::size_t i = 0; i < draws; ++i) {
      // The first half around the guess, the second around the best of it.
      const bool wide = i < draws / 2;
      Vector at = wide ? start_ : best;
      for (std::size_t k = 0; k < kFitted; ++k) at[k] += rng_.normal() * (wide ? 0.8 : 0.3);
      const double size = mean_size(evaluate(at));
      if (size < least) {
        least = size;
        best = at;
      }
      report("searching", static_cast<double>(i) / static_cast<double>(draws));
    }
    return best;
  }

  /// Least squares of each residual on the cloud's positions; a pair and its mirror image make slope and
  /// centre independent.
  Jacobian regress(const Vector& center, double radius, const Scales& scales) {
    Jacobian jacobian;
    Matrix moments{};
    std::vector<std::pair<Vector, std::vector<double>>> halves;
    for (std::size_t pair = 0; pair < kCloudPairs; ++pair) {
      Vector offset;
      for (double& value : offset) value = radius * rng_.normal();
      const Vector mirrored = plus(center, offset, -1);
      const Residuals above = evaluate(plus(center, offset)), below = evaluate(mirrored);
      for (const auto& [residuals, there] :
           {std::pair{&above, plus(center, offset)}, std::pair{&below, mirrored}}) {
        const double value = loss(*residuals, scales, there);
        if (value >= jacobian.best_loss) continue;
        jacobian.best_loss = value;
        jacobian.best = there;
      }
      std::vector<double> half(above.values.size());
      jacobian.centers.resize(half.size());
      for (std::size_t i = 0; i < half.size(); ++i) {
        half[i] = (above.values[i] - below.values[i]) / 2;
        jacobian.centers[i] += (above.values[i] + below.values[i]) / (2.0 * kCloudPairs);
      }
      for (std::size_t i = 0; i < kFitted; ++i) moments[i] = plus(moments[i], offset, offset[i]);
      halves.emplace_back(offset, std::move(half));
    }
    const Matrix inverted = inverse(moments);
    jacobian.rows.resize(jacobian.centers.size());
    for (const auto& [offset, half] : halves) {
      const Vector weights = times(inverted, offset);
      for (std::size_t i = 0; i < half.size(); ++i)
        jacobian.rows[i] = plus(jacobian.rows[i], weights, half[i]);
    }
    return jacobian;
  }

  /// One step of iteratively reweighted least squares from `at`; `weights` (by residual) may be empty. The
  /// covariance goes to `covariance` if that is given.
  Vector solve(const Jacobian& jacobian, const std::vector<double>& residuals, const Scales& scales,
               const Vector& at, std::span<const double> weights, Matrix* covariance = nullptr) const {
    Matrix normal{};
    Vector gradient{};
    for (std::size_t i = 0; i < residuals.size(); ++i) {
      const double scale = scale_of(scales, i, residuals.size());
      const double size = residuals[i] / scale / kCauchy;
      const double weight = (weights.empty() ? 1 : weights[i]) / (1 + size * size) / (scale * scale);
      for (std::size_t k = 0; k < kFitted; ++k)
        normal[k] = plus(normal[k], jacobian.rows[i], weight * jacobian.rows[i][k]);
      gradient = plus(gradient, jacobian.rows[i], -weight * residuals[i]);
    }
    for (std::size_t k = 0; k < kFitted; ++k) {
      const double weight = 1 / (kPriorSpread[k] * kPriorSpread[k]);
      normal[k][k] += weight;
      gradient[k] -= weight * (at[k] - prior_[k]);
    }
    const Matrix inverted = inverse(normal);
    if (covariance != nullptr) *covariance = inverted;
    return times(inverted, gradient);
  }

  /// From `first` down to `last`, radii of the cloud.
  Vector descend(Vector at, double first, double last, std::string_view stage) {
    Residuals here = evaluate(at);
    double radius = first;
    for (int iteration = 0; iteration < kIterationsMax && radius > last; ++iteration) {
      report(stage,
             std::max(std::log(first / radius) / std::log(first / last), iteration / double{kIterationsMax}));
      // Within a wide cloud residuals of its size are no outliers.
      Scales scales = scales_of(here);
      scales.ttft = std::max(scales.ttft, radius / 4);
      scales.tpot = std::max(scales.tpot, radius / 4);
      scales.decode = std::max(scales.decode, radius / 4);
      const Jacobian jacobian = regress(at, radius, scales);
      const double before = loss(here, scales, at);
      double least = before, moved = 0;
      const Vector from = at;
      const std::vector<double> measured = here.values;
      const auto attempt = [&](const Vector& there) {
        Residuals residuals = evaluate(there);
        const double value = loss(residuals, scales, there);
        if (value >= least) return;
        least = value;
        moved = distance(from, there);
        at = there;
        here = std::move(residuals);
      };
      for (const std::vector<double>* middle : {&jacobian.centers, &measured}) {
        const Vector step = solve(jacobian, *middle, scales, from, {});
        const double length = std::min(1.0, 3 * radius / std::max(distance(step, {}), 1e-12));
        for (const double share : {1.0, 0.5, 0.2}) attempt(plus(from, step, length * share));
      }
      if (jacobian.best_loss < least) attempt(jacobian.best);
      if (moved < radius) radius *= moved > 0 ? 0.8 : 0.6;
    }
    return at;
  }

  /// Descends several times from places near the best: the landscape is rough.
  Vector polish(const Vector& start) {
    std::vector<std::pair<double, Vector>> ends;
    Vector best = start;
    for (std::size_t round = 0; round < kRounds; ++round) {
      Vector at = best;
      for (double& value : at) value += round == 0 ? 0 : kRadiusFirst / 4 * rng_.normal();
      at = descend(at, kRadiusFirst / 4, kRadiusLast, fmt::format("fitting {}/{}", round + 1, kRounds));
      ends.emplace_back(mean_size(evaluate(at)), at);
      best = std::ranges::min_element(ends)->second;
    }
    // Ends that fit as well are as good an answer.
    const double least = std::ranges::min_element(ends)->first;
    for (const auto& [size, at] : ends) {
      for (std::size_t k = 0; k < kFitted && size < least * kAsGood; ++k)
        doubt_[k] = std::max(doubt_[k], std::abs(at[k] - best[k]));
    }
    // So is what the schedule says by itself, if it does.
    for (std::size_t k = 0; k < kFitted && !work_.empty(); ++k) {
      if (start_covariance_[k][k] < kSure * kSure)
        doubt_[k] = std::max(doubt_[k], std::abs(start_[k] - best[k]));
    }
    return best;
  }

  /// Unknown limits, one after the other, each time from the best fit so far: the default, unless another
  /// fits clearly better.
  Vector choose_limits(Vector at) {
    const auto choose = [&](std::uint32_t EngineParams::* limit, std::vector<std::uint32_t> values,
                            double worthwhile = kWorthwhile) {
      const Vector from = at;
      double least = std::numeric_limits<double>::infinity();
      values.insert(values.begin(), engine_.*limit);
      std::uint32_t best = values.front();
      for (std::size_t i = 0; i < values.size(); ++i) {
        engine_.*limit = values[i];
        if (!check(engine_)) continue;
        const Vector there = descend(from, kRadiusFirst / 2, kRadiusRough, "choosing limits");
        const double size = mean_size(evaluate(there));
        if (size >= least * (best == values.front() && i > 0 ? worthwhile : 1)) continue;
        least = size;
        best = values[i];
        at = there;
      }
      engine_.*limit = best;
      return best != values.front();
    };
    const auto [sequences, tokens, longest] = peaks();
    const auto blocks = [&, least = longest](double held, std::initializer_list<double> shares) {
      std::vector<std::uint32_t> values;
      for (const double share : shares) {
        const double most = std::max(share * held, static_cast<double>(least));
        values.push_back(static_cast<std::uint32_t>(most / engine_.block_size) + 1);
      }
      return values;
    };
    std::vector<std::uint32_t> batches = {static_cast<std::uint32_t>(sequences), 64, 128, 512, 1024};
    std::erase_if(batches, [&, most = sequences](std::uint32_t value) { return value < most; });
    if (options_.choose_kv_blocks &&
        choose(&EngineParams::kv_blocks,
               blocks(tokens, {0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2, 1.5}))) {
      for (const double part : {0.02, 0.01, 0.005}) {
        const double held = static_cast<double>(engine_.kv_blocks) * engine_.block_size;
        choose(&EngineParams::kv_blocks, blocks(held, {1 - part, 1 + part}), 1);
      }
    }
    if (options_.choose_max_num_seqs) choose(&EngineParams::max_num_seqs, batches);
    if (options_.choose_max_num_batched_tokens)
      choose(&EngineParams::max_num_batched_tokens, {512, 1024, 4096, 8192, 16384});
    return at;
  }

  struct Peaks {
    double sequences = 1, tokens = 1;  // decoding at a time; held by them, about
    std::uint32_t longest = 1;         // prompt and answer
  };
  Peaks peaks() const {
    Peaks peaks;
    for (const MeasuredRun& run : runs_) {
      std::vector<std::tuple<Duration, int, double>> changes;
      for (const MeasuredRequest& one : run.requests) {
        const double tokens = one.request.prompt_tokens + one.request.output_tokens / 2.0;
        changes.emplace_back(one.request.at + one.ttft, 1, tokens);
        changes.emplace_back(one.request.at + one.duration, -1, -tokens);
        peaks.longest = std::max(peaks.longest, one.request.prompt_tokens + one.request.output_tokens);
      }
      std::ranges::sort(changes);
      double sequences = 0, tokens = 0;
      for (const auto& [at, change, amount] : changes) {
        peaks.sequences = std::max(peaks.sequences, sequences += change);
        peaks.tokens = std::max(peaks.tokens, tokens += amount);
      }
    }
    return peaks;
  }

  EngineFit conclude(const Vector& at) {
    const Residuals here = evaluate(at);
    const Scales scales = scales_of(here);
    const Jacobian jacobian = regress(at, kFinalRadius, scales);
    Matrix covariance{};
    solve(jacobian, here.values, scales, at, {}, &covariance);
    const Vector spread = bootstrap(jacobian, here, scales, at);
    EngineFit fit;
    fit.engine = with_times(engine_, at);
    for (std::size_t k = 0; k < kFitted; ++k) {
      const double deviation = std::sqrt(covariance[k][k]);
      // Simulations jump, which makes the cloud's slopes too steep and times that trade against each other
      // look sure; by the measured schedule slopes are exact.
      const double smooth = work_.empty() ? 0 : kShared * std::sqrt(start_covariance_[k][k]);
      const double half = std::max({1.96 * deviation, spread[k], doubt_[k], smooth, kHalfMin});
      fit.parameters[k] = {std::exp(at[k]), std::exp(at[k] - half), std::exp(at[k] + half),
                           deviation > kPriorSpread[k] / 2};
    }
    fit.simulations = simulations_;
    return fit;
  }

  /// Half-widths of 95% intervals from blocks of consecutive requests drawn with replacement: neighbours in a
  /// queue err together.
  Vector bootstrap(const Jacobian& jacobian, const Residuals& here, const Scales& scales, const Vector& at) {
    const std::size_t requests = has_tpot_.size();
    std::array<std::vector<double>, kFitted> moves;
    const Vector middle = solve(jacobian, here.values, scales, at, {});
    for (std::size_t replicate = 0; replicate < kReplicates; ++replicate) {
      std::array<double, kBlocks> drawn{};
      for (std::size_t i = 0; i < kBlocks; ++i) ++drawn[rng_.below(kBlocks)];
      std::vector<double> weights, tpot_weights;
      for (std::size_t i = 0; i < requests; ++i) {
        weights.push_back(drawn[i * kBlocks / requests]);
        if (has_tpot_[i]) tpot_weights.push_back(weights.back());
      }
      weights.insert(weights.end(), tpot_weights.begin(), tpot_weights.end());
      if (!work_.empty()) weights.insert(weights.end(), tpot_weights.begin(), tpot_weights.end());
      const Vector move = solve(jacobian, here.values, scales, at, weights);
      for (std::size_t k = 0; k < kFitted; ++k) moves[k].push_back(std::abs(move[k] - middle[k]));
    }
    Vector half;
    for (std::size_t k = 0; k < kFitted; ++k) half[k] = quantile(moves[k], 0.95);
    return half;
  }

  void report(std::string_view stage, double done) const {
    if (options_.progress) options_.progress(stage, done);
  }

  std::span<const MeasuredRun> runs_;
  const FitOptions& options_;
  Rng rng_;
  EngineParams engine_;
  std::vector<char> has_tpot_;  // by request, all runs one after the other
  Vector prior_{}, start_{};    // log ns
  Matrix start_covariance_{};
  std::vector<Vector> work_;     // of requests with two tokens or more, see MeasuredSchedule
  std::vector<double> decoded_;  // s, from their first to their last token
  Vector doubt_{};               // half-width of the interval that other ends of the search ask for
  std::size_t simulations_ = 0;
};

}  // namespace

Result<EngineFit> fit_engine(std::span<const MeasuredRun> runs, const FitOptions& options) {
  if (const auto valid = check(options.engine); !valid) return std::unexpected(valid.error());
  std::size_t requests = 0;
  for (const MeasuredRun& run : runs) requests += run.requests.size();
  if (requests < kRequestsMin)
    return fail(ErrorCode::invalid,
                fmt::format("{} completed requests are too few to fit; {} are the least, hundreds are good",
                            requests, kRequestsMin));
  if (const auto room = check_room(options.engine, runs); !room) return std::unexpected(room.error());
  EngineFit fit = Fitter(runs, options).run();
  auto quality = predict(fit.engine, runs);
  if (!quality) return std::unexpected(quality.error());
  fit.quality = *quality;
  return fit;
}

}  // namespace heng
