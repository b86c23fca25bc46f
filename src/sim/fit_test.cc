// The fit finds what made the measurements, says how sure it is, and predicts what it has not seen.
#include "sim/fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace heng {
namespace {

EngineParams truth() {
  EngineParams engine;
  engine.t_base = 14ms;
  engine.t_prefill = 60us;
  engine.t_decode_seq = 90us;
  engine.t_kv_ns = 120;
  engine.t_attention_ns = 6;
  return engine;
}

struct Load {
  double rate = 4;  // requests per second, Poisson
  int requests = 300;
  double prompt = 800, output = 150;  // means, exponential; at least 16 and 2
  std::uint64_t seed = 1;
};

MeasuredRun measure(const EngineParams& params, const Load& load) {
  Rng rng(load.seed);
  Engine engine(params);
  MeasuredRun run{"made up", {}};
  std::vector<EngineEvent> events;
  Instant now{};
  for (int i = 0; i < load.requests; ++i) {
    now += from_seconds(rng.exponential(1 / load.rate));
    MeasuredRequest one;
    one.request.at = now.time_since_epoch();
    one.request.prompt_tokens = 16 + static_cast<std::uint32_t>(rng.exponential(load.prompt));
    one.request.output_tokens = 2 + static_cast<std::uint32_t>(rng.exponential(load.output));
    engine.advance(now, events);
    engine.submit({.id = static_cast<std::uint64_t>(i),
                   .prompt_tokens = one.request.prompt_tokens,
                   .output_tokens = one.request.output_tokens,
                   .blocks = {}},
                  now);
    run.requests.push_back(std::move(one));
  }
  while (engine.next_event() != Engine::kNever) engine.advance(engine.next_event(), events);
  for (const EngineEvent& event : events) {
    MeasuredRequest& one = run.requests[event.id];
    const Duration since = event.at.time_since_epoch() - one.request.at;
    if (event.tokens == 1) one.ttft = since;
    one.duration = since;
  }
  return run;
}

FitOptions known_limits() {
  FitOptions options;
  options.choose_kv_blocks = options.choose_max_num_seqs = options.choose_max_num_batched_tokens = false;
  return options;
}

std::array<double, kFitted> values(const EngineParams& engine) {
  const auto ns = [](Duration span) { return static_cast<double>(span.count()); };
  return {ns(engine.t_base), ns(engine.t_prefill), ns(engine.t_decode_seq), engine.t_kv_ns,
          engine.t_attention_ns};
}

TEST(Fit, RecoversTheEngineThatWasMeasured) {
  for (const std::uint64_t seed : {1, 2}) {
    const MeasuredRun run = measure(truth(), {.seed = seed});
    const auto fit = fit_engine({&run, 1}, known_limits());
    ASSERT_TRUE(fit.has_value());
    for (std::size_t k = 0; k < kFitted; ++k) {
      const FittedParameter& one = fit->parameters[k];
      const double right = values(truth())[k];
      EXPECT_NEAR(one.ns / right, 1, 0.05) << kFittedNames[k];
      EXPECT_LE(one.low_ns, right) << kFittedNames[k];
      EXPECT_GE(one.high_ns, right) << kFittedNames[k];
      EXPECT_LT(one.high_ns, 1.3 * one.low_ns) << kFittedNames[k];
      EXPECT_FALSE(one.guessed) << kFittedNames[k];
    }
  }
}

TEST(Fit, IntervalsHoldTheTruth) {
  Rng draws(7);
  const auto between = [&](double low, double high) { return low + (high - low) * draws.uniform(); };
  int outside = 0, intervals = 0;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    EngineParams engine = truth();
    engine.t_base = from_seconds(between(0.006, 0.03));
    engine.t_prefill = from_seconds(between(3e-5, 3e-4));
    engine.t_decode_seq = from_seconds(between(2e-5, 1.2e-4));
    engine.t_kv_ns = between(40, 250);
    engine.t_attention_ns = between(1, 15);
    MeasuredRun run =
        measure(engine, {.rate = 1.0 + static_cast<double>(seed % 3), .requests = 150, .seed = seed});
    for (MeasuredRequest& one : run.requests) {
      const double noise = seed % 2 == 0 ? 1 : std::max(0.9, 1 + 0.03 * draws.normal());
      one.ttft = from_seconds(to_seconds(one.ttft) * noise);
      one.duration = from_seconds(to_seconds(one.duration) * noise);
    }
    const auto fit = fit_engine({&run, 1}, known_limits());
    ASSERT_TRUE(fit.has_value());
    for (std::size_t k = 0; k < kFitted; ++k, ++intervals) {
      const FittedParameter& one = fit->parameters[k];
      const double right = values(engine)[k];
      outside += right < one.low_ns || right > one.high_ns;
    }
  }
  EXPECT_LE(outside, 2) << "of " << intervals;
}

TEST(Fit, PredictsAnotherLoadOfTheSameEngine) {
  const MeasuredRun run = measure(truth(), {});
  const MeasuredRun busier = measure(truth(), {.rate = 6, .prompt = 500, .output = 250, .seed = 9});
  const auto fit = fit_engine({&run, 1}, known_limits());
  ASSERT_TRUE(fit.has_value());
  const auto quality = predict(fit->engine, {&busier, 1});
  ASSERT_TRUE(quality.has_value());
  EXPECT_EQ(quality->requests, 300u);
  EXPECT_NEAR(quality->ttft_error, 0, 0.03);
  EXPECT_NEAR(quality->tpot_error, 0, 0.01);
  EXPECT_GT(quality->ttft_correlation, 0.95);
  EXPECT_GT(quality->tpot_correlation, 0.99);
}

TEST(Fit, IsExactWhereTheEngineIsKnown) {
  const MeasuredRun run = measure(truth(), {});
  const auto quality = predict(truth(), {&run, 1});
  ASSERT_TRUE(quality.has_value());
  EXPECT_NEAR(quality->ttft_error, 0, 1e-9);
  EXPECT_NEAR(quality->tpot_correlation, 1, 1e-9);
}

TEST(Fit, SaysWhatTheMeasurementsDoNotTell) {
  // One at a time, all alike: prefill and attention, step and sequence are the same thing.
  MeasuredRun run{"alike", {}};
  for (int i = 0; i < 40; ++i) {
    MeasuredRequest one;
    one.request.at = std::chrono::seconds(10 * i);
    one.request.prompt_tokens = 500;
    one.request.output_tokens = 100;
    one.ttft = 50ms;
    one.duration = 50ms + 99 * 15ms;
    run.requests.push_back(one);
  }
  const auto fit = fit_engine({&run, 1}, known_limits());
  ASSERT_TRUE(fit.has_value());
  EXPECT_NEAR(fit->quality.ttft_error, 0, 0.02);
  EXPECT_NEAR(fit->quality.tpot_error, 0, 0.02);
  EXPECT_TRUE(fit->parameters[2].guessed);   // t_decode_seq
  EXPECT_TRUE(fit->parameters[4].guessed);   // t_attention_ns
  EXPECT_FALSE(fit->parameters[0].guessed);  // t_base
}

TEST(Fit, FindsAKvCacheThatIsTooSmall) {
  EngineParams small = truth();
  small.kv_blocks = 700;
  const MeasuredRun run = measure(small, {.rate = 8, .requests = 120});
  FitOptions options = known_limits();
  options.choose_kv_blocks = true;
  const auto fit = fit_engine({&run, 1}, options);
  ASSERT_TRUE(fit.has_value());
  EXPECT_NEAR(fit->engine.kv_blocks, 700, 70);
}

TEST(Fit, GivesTheSameForTheSameSeed) {
  const MeasuredRun run = measure(truth(), {.requests = 60});
  const auto once = fit_engine({&run, 1}, known_limits()), again = fit_engine({&run, 1}, known_limits());
  ASSERT_TRUE(once.has_value() && again.has_value());
  EXPECT_EQ(values(once->engine), values(again->engine));
  EXPECT_EQ(once->simulations, again->simulations);
}

TEST(Fit, RefusesWhatItCannotFit) {
  const MeasuredRun few = measure(truth(), {.requests = 9});
  const auto too_few = fit_engine({&few, 1}, known_limits());
  ASSERT_FALSE(too_few.has_value());
  EXPECT_THAT(too_few.error().message, testing::HasSubstr("too few"));
  MeasuredRun long_one = measure(truth(), {.requests = 20});
  long_one.requests[3].request.prompt_tokens = 500'000;
  const auto too_long = fit_engine({&long_one, 1}, known_limits());
  ASSERT_FALSE(too_long.has_value());
  EXPECT_THAT(too_long.error().message, testing::HasSubstr("raise --max-model-len"));
}

}  // namespace
}  // namespace heng
