// Measurements in; the engine's parameters as the YAML or JSON that `heng sim` and `heng engine` read, out.
#include "app/fit_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "app/exit_code.h"
#include "config/issues.h"
#include "sim/scenario.h"

namespace heng {

namespace {

constexpr int kBarWidth = 30;

void show_progress(std::string_view stage, double done) {
  const int bar = static_cast<int>(done * kBarWidth);
  fmt::print(stderr, "\r\x1b[K{} [{:=<{}}{: <{}}]", stage, "", bar, "", kBarWidth - bar);
  std::fflush(stderr);
}

/// As the key's type in a scenario wants it: durations with their unit, the `_ns` ones plain.
std::string show(std::string_view key, double ns) {
  if (key.ends_with("_ns")) return fmt::format("{:.4g}", ns);
  return fmt::format("{:.5g}ms", ns / 1e6);
}

std::string show_quality(const FitQuality& quality) {
  return fmt::format("mean TTFT {:+.1f}%, mean TPOT {:+.1f}%, correlation by request {:.4f} and {:.4f}",
                     100 * quality.ttft_error, 100 * quality.tpot_error, quality.ttft_correlation,
                     quality.tpot_correlation);
}

std::string yaml(const EngineFit& fit, const FitQuality* held_out) {
  std::string text =
      fmt::format("# Fitted to {} requests: {}.\n", fit.quality.requests, show_quality(fit.quality));
  if (held_out != nullptr)
    text += fmt::format("# Predicted {} others: {}.\n", held_out->requests, show_quality(*held_out));
  text += "engine:\n";
  for (std::size_t i = 0; i < kFitted; ++i) {
    const FittedParameter& one = fit.parameters[i];
    const std::string line = fmt::format("  {}: {}", kFittedNames[i], show(kFittedNames[i], one.ns));
    text += fmt::format("{:<28}# 95%: {} to {}{}\n", line, show(kFittedNames[i], one.low_ns),
                        show(kFittedNames[i], one.high_ns),
                        one.guessed ? "; a guess: these measurements hardly tell" : "");
  }
  const EngineParams& engine = fit.engine;
  return text + fmt::format(
                    "  kv_mixed: {}\n  overlap: {}\n  max_num_seqs: {}\n  max_num_batched_tokens: {}\n"
                    "  max_model_len: {}\n  block_size: {}\n  kv_blocks: {}\n  prefix_caching: {}\n",
                    engine.kv_mixed, engine.overlap, engine.max_num_seqs, engine.max_num_batched_tokens,
                    engine.max_model_len, engine.block_size, engine.kv_blocks, engine.prefix_caching);
}

/// Measurements that count twice would look surer than they are, and fitted ones predict themselves.
Result<void> check_single(const std::vector<std::string>& files) {
  for (auto file = files.begin(); file != files.end(); ++file) {
    std::error_code unknown;  // reading it will say why
    const auto same = [&](const std::string& other) {
      return std::filesystem::equivalent(*file, other, unknown);
    };
    if (std::any_of(files.begin(), file, same))
      return fail(ErrorCode::invalid, fmt::format("{} is given twice", *file));
  }
  return {};
}

std::string quality_json(const FitQuality& quality) {
  return fmt::format(R"({{"requests":{},"ttft_error":{:.6g},"tpot_error":{:.6g},"ttft_correlation":{:.6g},)"
                     R"("tpot_correlation":{:.6g}}})",
                     quality.requests, quality.ttft_error, quality.tpot_error, quality.ttft_correlation,
                     quality.tpot_correlation);
}

std::string json(const EngineFit& fit, const FitQuality* held_out) {
  const EngineParams& engine = fit.engine;
  std::string values, intervals;
  for (std::size_t i = 0; i < kFitted; ++i) {
    const FittedParameter& one = fit.parameters[i];
    const std::string_view key = kFittedNames[i];
    const std::string value = show(key, one.ns);
    values += key.ends_with("_ns") ? fmt::format("\"{}\":{},", key, value)
                                   : fmt::format("\"{}\":\"{}\",", key, value);
    intervals += fmt::format("{}\"{}\":{{\"ns\":{:.6g},\"low_ns\":{:.6g},\"high_ns\":{:.6g},\"guessed\":{}}}",
                             i == 0 ? "" : ",", key, one.ns, one.low_ns, one.high_ns, one.guessed);
  }
  return fmt::format(
      R"({{"engine":{{{}"kv_mixed":{},"overlap":{},"max_num_seqs":{},"max_num_batched_tokens":{},)"
      R"("max_model_len":{},)"
      R"("block_size":{},"kv_blocks":{},"prefix_caching":{}}},"intervals":{{{}}},"fitted":{},"held_out":{},)"
      R"("simulations":{}}})"
      "\n",
      values, engine.kv_mixed, engine.overlap, engine.max_num_seqs, engine.max_num_batched_tokens,
      engine.max_model_len, engine.block_size, engine.kv_blocks, engine.prefix_caching, intervals,
      quality_json(fit.quality), held_out == nullptr ? "null" : quality_json(*held_out), fit.simulations);
}

}  // namespace

void add_engine_limits(CLI::App& command, EngineParams& engine) {
  command.add_option("--max-num-seqs", engine.max_num_seqs, "Most sequences in a batch; the rest queue")
      ->capture_default_str();
  command.add_option("--max-num-batched-tokens", engine.max_num_batched_tokens, "Token budget of a step")
      ->capture_default_str();
  command.add_option("--max-model-len", engine.max_model_len, "Most tokens of prompt and answer together")
      ->capture_default_str();
  command.add_option("--kv-blocks", engine.kv_blocks, "KV cache blocks in memory")->capture_default_str();
  command.add_option("--block-size", engine.block_size, "Tokens in a KV cache block")->capture_default_str();
  command.add_flag("!--no-prefix-caching", engine.prefix_caching, "Do not reuse cached prefixes");
}

void read_engine(const std::string& path, EngineParams& engine) {
  const ScenarioLoad load = load_scenario(path);
  if (!load.issues.empty()) throw CLI::ValidationError(format_issues(path, load.issues));
  engine = load.scenario.engine;
}

void FitCommand::add_to(CLI::App& engine, int& exit_code) {
  CLI::App* command = engine.add_subcommand(
      "fit", "Find the parameters of a real engine from timings of its requests (docs/engine-model.md)");
  command->add_option("measurements", measurements_, "Files of JSON lines, plain or gzipped")->required();
  command->add_option("--run", choice_.run, "Of files that hold several runs: the one to fit");
  command->add_option("--worker", choice_.worker,
                      "Of a log of several workers: only this one (default: all, as equal engines)");
  command->add_option("--predict", held_out_,
                      "Measurements that are not fitted but predicted with the result");
  command->add_option("--overlap", options_.engine.overlap, "Of reading weights and multiplying, in [0, 1]")
      ->capture_default_str();
  command
      ->add_option("--kv-mixed", options_.engine.kv_mixed,
                   "How much dearer reading context is in steps that also compute prompts")
      ->capture_default_str();
  command->add_option("--seed", options_.seed, "The same seed gives the same result")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--json", json_, "JSON instead of YAML");
  add_engine_limits(*command, options_.engine);
  command->footer(
      "--max-num-seqs, --max-num-batched-tokens and --kv-blocks are guessed if they are not given.");
  command->callback([this, command, &exit_code] {
    options_.choose_max_num_seqs = command->count("--max-num-seqs") == 0;
    options_.choose_max_num_batched_tokens = command->count("--max-num-batched-tokens") == 0;
    options_.choose_kv_blocks = command->count("--kv-blocks") == 0;
    exit_code = run();
  });
}

int FitCommand::run() {
  const bool terminal = isatty(STDERR_FILENO) != 0;
  if (terminal) options_.progress = show_progress;
  const Result<void> done = fit();
  if (terminal) fmt::print(stderr, "\r\x1b[K");
  if (done) return kExitOk;
  fmt::print(stderr, "heng: {}\n", done.error().message);
  return kExitFailed;
}

Result<void> FitCommand::fit() {
  std::vector<std::string> files = measurements_;
  files.insert(files.end(), held_out_.begin(), held_out_.end());
  if (const auto single = check_single(files); !single) return single;
  const auto runs = read_measured(measurements_, choice_);
  if (!runs) return std::unexpected(runs.error());
  const auto fit = fit_engine(*runs, options_);
  if (!fit) return std::unexpected(fit.error());
  FitQuality held_out;
  if (!held_out_.empty()) {
    const auto others = read_measured(held_out_, choice_);
    if (!others) return std::unexpected(others.error());
    const auto quality = predict(fit->engine, *others);
    if (!quality) return std::unexpected(quality.error());
    held_out = *quality;
  }
  const FitQuality* others = held_out_.empty() ? nullptr : &held_out;
  fmt::print("{}", json_ ? json(*fit, others) : yaml(*fit, others));
  return {};
}

}  // namespace heng
