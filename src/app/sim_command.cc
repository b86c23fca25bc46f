// Flags into a scenario, its policies one after the other, and the results as a table or JSON.
#include "app/sim_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>

#include "app/exit_code.h"
#include "app/sim_report.h"
#include "app/table.h"
#include "config/issues.h"
#include "config/values.h"
#include "flow/api_error.h"
#include "sim/measures.h"

namespace heng {

namespace {

constexpr int kBarWidth = 30;

CLI::Range whole(std::int64_t least, std::int64_t most) { return {least, most}; }

Result<void> set_duration(const std::optional<std::string>& text, std::string_view flag, Duration most,
                          Duration& target) {
  if (!text) return {};
  const Result<double> seconds = parse_duration_seconds(*text);
  if (!seconds) return fail(ErrorCode::invalid, fmt::format("{}: {}", flag, seconds.error().message));
  if (!(*seconds >= 0 && *seconds <= to_seconds(most)))
    return fail(ErrorCode::invalid, fmt::format("{} is at most {:g} s", flag, to_seconds(most)));
  target = from_seconds(*seconds);
  return {};
}

/// The nearest of s and ms that reads well.
std::string show_ms(double ms) {
  if (ms < 10) return fmt::format("{:.1f}ms", ms);
  return ms < 1000  ? fmt::format("{:.0f}ms", ms)
         : ms < 1e5 ? fmt::format("{:.2f}s", ms / 1e3)
                    : fmt::format("{:.0f}s", ms / 1e3);
}

Table results_table(const std::vector<SimResult>& results) {
  const auto has_queue = [](const SimResult& result) {
    return result.tally.had_to_wait() > 0 || result.tally.turned_away(TurnedAway::queue_full) > 0;
  };
  const bool queues = std::ranges::any_of(results, has_queue);
  std::vector<std::string> head = {"POLICY", "REQ/S",     "TOK/S", "GOOD",    "GOOD/S",  "TTFT p50", "p90",
                                   "p99",    "TPOT p50",  "p90",   "p99",     "E2E p50", "p90",      "p99",
                                   "CACHED", "IMBALANCE", "QUEUE", "REFUSED", "FAILED"};
  if (queues) head.insert(head.end() - 2, {"QUEUED p50", "p99"});  // only where a gateway makes them wait
  Table table(std::move(head));
  for (const SimResult& result : results) {
    const auto value = [&](std::string_view name) { return find_measure(name)->of(result.tally); };
    std::vector<std::string> cells = {result.policy.label, fmt::format("{:.2f}", value("requests_per_s")),
                                      fmt::format("{:.0f}", value("output_tokens_per_s")),
                                      fmt::format("{:.1f}%", 100 * value("good_share")),
                                      fmt::format("{:.2f}", value("goodput_per_s"))};
    for (const char* kind : {"ttft", "tpot", "e2e"}) {
      for (const char* quantile : {"p50", "p90", "p99"})
        cells.push_back(show_ms(value(fmt::format("{}_{}_ms", kind, quantile))));
    }
    cells.push_back(fmt::format("{:.1f}%", 100 * value("cached_share")));
    cells.push_back(fmt::format("{:.2f}", value("imbalance")));
    cells.push_back(fmt::format("{:.1f}", value("queue_mean")));
    if (queues) cells.push_back(show_ms(value("queued_p50_ms")));
    if (queues) cells.push_back(show_ms(value("queued_p99_ms")));
    cells.push_back(fmt::format("{:.0f}", value("refused")));
    cells.push_back(fmt::format("{:.0f}", value("failed")));
    table.add(std::move(cells));
  }
  return table;
}

std::string results_json(const Scenario& scenario, const std::vector<SimResult>& results) {
  std::string text =
      fmt::format("{{\"scenario\":{},\"seed\":{},\"workers\":{},\"gateways\":{},\"results\":[",
                  json_quote(scenario.name), scenario.seed, scenario.workers.size(), scenario.gateways);
  for (const SimResult& result : results) {
    text += fmt::format("{}{{\"policy\":{}", &result == &results.front() ? "" : ",",
                        json_quote(result.policy.label));
    for (const Measure& measure : measures())
      text += fmt::format(",\"{}\":{}", measure.name, measure.of(result.tally));
    text += ",\"unmet\":[";
    for (const std::string& line : result.unmet)
      text += fmt::format("{}{}", &line == &result.unmet.front() ? "" : ",", json_quote(line));
    text += "]}";
  }
  return text + "]}\n";
}

std::string record_json(const RequestRecord& record, std::string_view policy) {
  constexpr std::string_view kEnds[] = {"completed", "refused", "failed"};
  const std::string worker = record.worker == kNoSlot ? "null" : fmt::format("{}", record.worker + 1);
  return fmt::format(
      R"({{"policy":{},"id":{},"arrival_s":{:.9f},"end":"{}","stream":{},"queued_ms":{},)"
      R"("ttft_ms":{},"duration_ms":{},"prompt_tokens":{},"cached_tokens":{},"output_tokens":{},)"
      R"("attempts":{},"worker":{}}})"
      "\n",
      json_quote(policy), record.id, to_seconds(record.arrived.time_since_epoch()),
      kEnds[static_cast<std::size_t>(record.end)], record.stream, to_milliseconds(record.queued),
      to_milliseconds(record.ttft), to_milliseconds(record.duration), record.prompt_tokens,
      record.cached_tokens, record.output_tokens, record.attempts, worker);
}

/// How many requests there will be, for the progress bar; 0 = unknown.
std::uint64_t count_requests(const Scenario& scenario) {
  const auto traffic = open_traffic(scenario);
  if (!traffic) return 0;
  TrafficRequest request;
  std::uint64_t count = 0;
  for (Result<bool> more = true; more && *more; ++count) more = (*traffic)->next(request);
  return count > 0 ? count - 1 : 0;
}

void show_progress(std::string_view label, std::uint64_t arrived, std::uint64_t requests, Instant now) {
  const int done = requests == 0 ? 0 : static_cast<int>(arrived * kBarWidth / std::max(requests, arrived));
  fmt::print(stderr, "\r\x1b[K{} [{:=<{}}{: <{}}] {} requests, {:.0f} s simulated", label, "", done, "",
             kBarWidth - done, arrived, to_seconds(now.time_since_epoch()));
  std::fflush(stderr);
}

}  // namespace

void SimCommand::add_to(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("sim", "Run policies on recorded or made-up traffic against simulated engines");
  command->add_option("-c,--config", file_, "Scenario (YAML), see docs/simulator.md; flags are stronger");
  command->add_option("--trace", trace_,
                      "Recorded traffic: Azure, Mooncake, ServeGen, JSON lines, access log");
  command->add_option("--workers", workers_, "How many equal workers")->check(whole(1, 100'000));
  command->add_option("--speeds", speeds_, "Workers of these speeds instead, as in 1,1,0.5")->delimiter(',');
  command->add_option("--policy", policies_, "Policies to run, as in hash,dynamic_weight:beta=0.2")
      ->delimiter(',');
  command->add_flag("--compare", compare_, "Run every policy there is");
  CLI::Option* rate = command->add_option(
      "--rate", rate_,
      "Requests per second on average: a trace is stretched, made-up sessions come to it in time");
  command->add_option("--scale", scale_, "Time of a trace passes so many times faster")->excludes(rate);
  command->add_option("--sample", sample_, "Share of a trace's requests to keep");
  command->add_option("--streamed", streamed_,
                      "Share of answers that are streamed, where a trace does not tell");
  command->add_option("--start", start_, "Where in a trace to begin, as in 10m");
  command->add_option("--duration", duration_, "How much traffic, as in 1h");
  command->add_option("--requests", requests_, "At most so many requests")
      ->check(whole(1, 1'000'000'000'000));
  command->add_option("--resample", resample_, "Draw arrivals anew from blocks of this length, as in 60s");
  command
      ->add_option("--gateways", gateways_, "Gateways before the workers, each knowing only its own requests")
      ->check(whole(1, 1000));
  command->add_option("--network", network_, "One way between gateway and worker, as in 0.5ms");
  command->add_option("--warmup", warmup_, "Requests that come earlier are not counted");
  command->add_option("--ttft", ttft_, "Objective: time to first token (2s)");
  command->add_option("--tpot", tpot_, "Objective: time per further token (100ms)");
  command->add_option("--seed", seed_, "The same seed gives the same bytes")
      ->check(whole(0, 1'000'000'000'000'000));
  command->add_option("--report", report_, "Write a page with plots, one file of HTML");
  command->add_option("--log", log_, "Write every request as a JSON line");
  command->add_flag("--json", json_, "Results as JSON");
  command->callback([this, &exit_code] { exit_code = run(); });
}

Result<void> SimCommand::apply_flags(Scenario& scenario) const {
  ScenarioTraffic& traffic = scenario.traffic;
  if (trace_) traffic.trace = *trace_;
  if (rate_) traffic.rate = *rate_;
  if (scale_) traffic.shape.scale = *scale_;
  if (scale_ && !traffic.trace.empty()) traffic.rate = 0;  // the scenario's: flags are stronger
  if (sample_) traffic.shape.sample = *sample_;
  if (streamed_) traffic.shape.streamed = *streamed_;
  if (requests_) traffic.requests = *requests_;
  if (seed_) scenario.seed = *seed_;
  if (gateways_) scenario.gateways = *gateways_;
  const auto within = [](double value, double most) { return value > 0 && value <= most; };
  if (rate_ && !within(*rate_, 1e6))
    return fail(ErrorCode::invalid, "--rate must be above 0, and at most 1e6");
  if (!within(traffic.shape.scale, 1e6))
    return fail(ErrorCode::invalid, "--scale must be above 0, and at most 1e6");
  if (!within(traffic.shape.sample, 1)) return fail(ErrorCode::invalid, "--sample lies between 0 and 1");
  if (!(traffic.shape.streamed >= 0 && traffic.shape.streamed <= 1))
    return fail(ErrorCode::invalid, "--streamed lies between 0 and 1");
  if (workers_ && !speeds_.empty() && speeds_.size() != *workers_)
    return fail(ErrorCode::invalid,
                fmt::format("--speeds names {} workers, --workers {}", speeds_.size(), *workers_));
  if (workers_) scenario.workers.assign(*workers_, {.engine = scenario.engine});
  if (!speeds_.empty()) scenario.workers.clear();
  for (const double speed : speeds_) {
    if (!within(speed, 1e3)) return fail(ErrorCode::invalid, "--speeds must be above 0, and at most 1000");
    scenario.workers.push_back({.engine = scenario.engine});
    scenario.workers.back().engine.speed = speed;
  }
  for (const SimFault& fault : scenario.faults) {
    if (!scenario.workers.empty() && fault.worker >= scenario.workers.size())
      return fail(ErrorCode::invalid, "the scenario's faults name workers that there are not");
  }
  constexpr Duration kLong = 24000h;  // as a scenario's own keys
  for (const auto& [text, flag, most, target] :
       {std::tuple{&start_, "--start", kLong, &traffic.shape.start},
        {&duration_, "--duration", kLong, &traffic.shape.duration},
        {&resample_, "--resample", Duration(24h), &traffic.shape.resample},
        {&network_, "--network", Duration(10s), &scenario.network},
        {&warmup_, "--warmup", Duration(2400h), &scenario.warmup},
        {&ttft_, "--ttft", Duration(24h), &scenario.ttft_objective},
        {&tpot_, "--tpot", Duration(24h), &scenario.tpot_objective}}) {
    if (const auto set = set_duration(*text, flag, most, *target); !set) return set;
  }
  return choose_policies(scenario);
}

Result<void> SimCommand::choose_policies(Scenario& scenario) const {
  if (compare_ || !policies_.empty()) scenario.policies.clear();
  for (const std::string& text : policies_) {
    auto policy = parse_policy(text);
    if (!policy) return fail(ErrorCode::invalid, "--policy: " + policy.error().message);
    scenario.policies.push_back(std::move(*policy));
  }
  for (const RoutePolicyEntry& entry : route_policies()) {
    if (!compare_ || std::ranges::count(scenario.policies, entry.name, &ScenarioPolicy::label) > 0) continue;
    scenario.policies.push_back(*parse_policy(entry.name));
  }
  return {};
}

/// Hours of simulation should not end with a path that cannot be written.
Result<void> SimCommand::open_outputs() {
  if (!log_.empty()) log_file_.open(log_, std::ios::trunc);
  if (!log_file_ || (!report_.empty() && !std::ofstream(report_, std::ios::app))) {
    const int problem = errno;
    return fail(ErrorCode::io,
                fmt::format("cannot write {}: {}", log_file_ ? report_ : log_, std::strerror(problem)));
  }
  return {};
}

Result<SimResult> SimCommand::run_policy(const Scenario& scenario, std::size_t index,
                                         std::uint64_t requests) {
  const ScenarioPolicy& policy = scenario.policies[index];
  RunHooks hooks;
  const std::string label = fmt::format("{}/{} {}", index + 1, scenario.policies.size(), policy.label);
  if (isatty(STDERR_FILENO) != 0) {
    hooks.progress = [&](std::uint64_t arrived, Instant now) {
      show_progress(label, arrived, requests, now);
    };
  }
  hooks.warn = [&](const std::string& text) { warn(text); };
  if (!log_.empty())
    hooks.on_end = [&](const RequestRecord& record) { log_file_ << record_json(record, policy.label); };
  auto tally = run_scenario(scenario, policy, hooks);
  if (isatty(STDERR_FILENO) != 0) fmt::print(stderr, "\r\x1b[K");
  if (!tally) return std::unexpected(tally.error());
  if (!log_.empty() && !log_file_.flush()) return fail(ErrorCode::io, fmt::format("cannot write {}", log_));
  if (tally->cut() > 0) {
    warn(fmt::format(
        "{}: {} of {} answers were cut: prompt and answer are longer than the engine's context, see "
        "`max_model_len` and `kv_blocks`",
        policy.label, tally->cut(), tally->completed()));
  }
  std::vector<std::string> unmet = unmet_expectations(scenario, policy, *tally);
  return SimResult{policy, std::move(*tally), std::move(unmet)};
}

/// Each policy reads the traffic anew, which need not be told again.
void SimCommand::warn(const std::string& text) {
  if (!warned_.insert(text).second) return;
  fmt::print(stderr, "{}heng: {}\n", isatty(STDERR_FILENO) != 0 ? "\r\x1b[K" : "", text);
}

int SimCommand::run() {
  Scenario scenario;
  if (!file_.empty()) {
    ScenarioLoad load = load_scenario(file_);
    if (!load.issues.empty()) {
      fmt::print(stderr, "{}", format_issues(file_, load.issues));
      return kExitConfigInvalid;
    }
    scenario = std::move(load.scenario);
  }
  if (const auto applied = apply_flags(scenario); !applied) {
    fmt::print(stderr, "heng: {}\n", applied.error().message);
    return kExitUsage;
  }
  complete(scenario);
  if (const auto opened = open_outputs(); !opened) {
    fmt::print(stderr, "heng: {}\n", opened.error().message);
    return kExitFailed;
  }
  const std::uint64_t requests = isatty(STDERR_FILENO) != 0 ? count_requests(scenario) : 0;
  const auto begun = std::chrono::steady_clock::now();
  std::vector<SimResult> results;
  double simulated_s = 0;
  for (std::size_t index = 0; index < scenario.policies.size(); ++index) {
    auto result = run_policy(scenario, index, requests);
    if (!result) {
      fmt::print(stderr, "heng: {}\n", result.error().message);
      return kExitFailed;
    }
    simulated_s += to_seconds(result->tally.span());
    results.push_back(std::move(*result));
  }
  const double took_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  fmt::print(stderr, "{:.0f} s simulated in {:.2f} s: {:.0f} times real time\n", simulated_s, took_s,
             simulated_s / took_s);
  return print(scenario, results);
}

int SimCommand::print(const Scenario& scenario, const std::vector<SimResult>& results) const {
  fmt::print("{}", json_ ? results_json(scenario, results) : results_table(results).text(true));
  if (!report_.empty()) {
    if (const auto written = write_sim_report(scenario, results, report_); !written) {
      fmt::print(stderr, "heng: {}\n", written.error().message);
      return kExitFailed;
    }
    fmt::print(stderr, "The report is in {}\n", report_);
  }
  const std::vector<std::string> unanswered = unanswered_expectations(scenario);
  for (const std::string& line : unanswered) fmt::print(stderr, "{}: {}\n", file_, line);
  bool met = unanswered.empty();
  for (const SimResult& result : results) {
    for (const std::string& line : result.unmet) fmt::print(stderr, "{}: {}\n", file_, line);
    met = met && result.unmet.empty();
  }
  return met ? kExitOk : kExitFailed;
}

}  // namespace heng
