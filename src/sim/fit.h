// Parameters of the engine model from measured requests, with their uncertainty.
#pragma once

#include <array>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "sim/prediction.h"
#include "sim/traffic/measured.h"

namespace heng {

/// What is fitted: the five times of the model. Limits, overlap and speed are given.
inline constexpr std::size_t kFitted = 5;
inline constexpr std::array<std::string_view, kFitted> kFittedNames = {"t_base", "t_prefill", "t_decode_seq",
                                                                       "t_kv_ns", "t_attention_ns"};

struct FittedParameter {
  double ns = 0;
  double low_ns = 0, high_ns = 0;  // 95% interval
  bool guessed = false;            // the measurements say next to nothing: it stays near where it began
};

struct FitOptions {
  EngineParams engine;  // what is not fitted; its times do not matter
  /// Limits that are not known are chosen among likely ones by how well the model fits with them.
  bool choose_kv_blocks = true, choose_max_num_seqs = true, choose_max_num_batched_tokens = true;
  std::uint64_t seed = 1;
  /// Called with what is being done and the share of it that is done, in [0, 1]. May be empty.
  std::function<void(std::string_view stage, double done)> progress;
};

struct EngineFit {
  EngineParams engine;
  std::array<FittedParameter, kFitted> parameters;
  FitQuality quality;  // on the requests it was fitted to
  std::size_t simulations = 0;
};

/// Minimises a robust sum of squares of log(predicted/measured) over TTFT and TPOT of all requests by
/// Gauss-Newton without derivatives: residuals of a cloud of simulations are regressed on the logarithms of
/// the parameters, as in Cartis, Fiala, Marteau, Roberts 2019 (DFO-LS), since single simulations jump where a
/// request just misses a step. The cloud shrinks as the fit proceeds. Weak log-normal priors hold what the
/// measurements leave open. Intervals are the widest of the Gauss-Newton covariance, a bootstrap over
/// twenty blocks of consecutive requests, the spread of the search, and the covariance by the measured
/// schedule; none covers errors of the model itself. The same seed gives the same result. Needs ten requests;
/// fails as `predict` does.
Result<EngineFit> fit_engine(std::span<const MeasuredRun> runs, const FitOptions& options);

}  // namespace heng
