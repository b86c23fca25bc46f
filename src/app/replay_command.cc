// Reads a recording, replays it, and prints what differs, who got how much, or why one request went where.
#include "app/replay_command.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "app/exit_code.h"
#include "app/table.h"
#include "flow/api_error.h"
#include "sim/scenario.h"
#include "sim/traffic/recording.h"

namespace heng {

namespace {

using Judged = ReplayedChoice::Judged;

/// A choice to be shown.
struct Shown {
  std::size_t line;
  std::string request, model, recorded, replayed;
};

struct Findings {
  std::uint64_t decisions = 0;
  std::uint64_t different = 0;
  std::uint64_t without_room = 0;  // of these: one had room and the other had not
  std::vector<Shown> shown;        // the first that differ
  std::string explained;

  void count(const ReplayedChoice& choice) {
    ++decisions;
    if (choice.same) return;
    ++different;
    if (choice.recorded.empty() || choice.replayed.empty()) ++without_room;
  }
};

std::string time_of(double time_s) {
  const auto whole = static_cast<std::time_t>(std::floor(time_s));
  const int ms = static_cast<int>((time_s - std::floor(time_s)) * 1000);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(whole), ms);
}

std::string_view or_none(std::string_view worker) { return worker.empty() ? "none had room" : worker; }

/// Where the replay had room and the recorded run had not, it makes no choice: nobody knows how it would end.
std::string_view shown_replay(const ReplayedChoice& choice) {
  return choice.recorded.empty() && !choice.same ? "some had room" : or_none(choice.replayed);
}

std::string candidates_table(const ReplayedChoice& choice) {
  std::vector<std::string> headings = {"", "WORKER"};
  const Candidate& first = choice.candidates.front().candidate;
  if (first.cost) headings.emplace_back("COST");
  for (const CostTerm& term : first.terms) headings.emplace_back(term.name);
  headings.emplace_back("");
  Table table(std::move(headings));
  for (const Judged& judged : choice.candidates) {
    std::vector<std::string> cells = {judged.worker == choice.replayed ? "->" : "",
                                      std::string(judged.worker)};
    if (first.cost) cells.push_back(fmt::format("{:.6g}", judged.candidate.cost.value_or(NAN)));
    for (const CostTerm& term : judged.candidate.terms) cells.push_back(fmt::format("{:.6g}", term.value));
    cells.emplace_back(judged.avoided ? "has just failed it" : judged.full ? "full" : "");
    table.add(std::move(cells));
  }
  return table.text(true);
}

std::string explanation(const ReplayedChoice& choice, std::string_view policy) {
  const RequestView& view = *choice.view;
  std::string text = fmt::format(
      "{} at {}: model {}, prompt of about {:.0f} tokens{}{}\n", choice.request, time_of(choice.time_s),
      choice.model, view.prompt_tokens,
      view.output_tokens_max == 0 ? "" : fmt::format(", at most {} to come", view.output_tokens_max),
      view.prefix.empty() ? "" : fmt::format(", {} blocks hashed", view.prefix.size()));
  if (choice.bound) {
    text += fmt::format("its session or resource is on {}: no choice\n",
                        choice.recorded.empty() ? "a worker that has no room" : choice.recorded);
  } else if (choice.candidates.empty()) {
    text += "no worker was eligible\n";
  } else {
    text += candidates_table(choice);
  }
  if (!choice.bound)
    text += fmt::format("{} chose: {}\n", policy.empty() ? "replay" : policy, shown_replay(choice));
  return text + fmt::format("recorded: {}\n", or_none(choice.recorded));
}

std::string explanation_json(const ReplayedChoice& choice) {
  std::string text = fmt::format(
      R"({{"request":{},"time":{:.3f},"model":{},"prompt_tokens":{},"max_tokens":{},"blocks":{},"bound":{},)"
      R"("recorded":{},"replayed":{},"same":{},"candidates":[)",
      json_quote(choice.request), choice.time_s, json_quote(choice.model), choice.view->prompt_tokens,
      choice.view->output_tokens_max, choice.view->prefix.size(), choice.bound,
      choice.recorded.empty() ? "null" : json_quote(choice.recorded),
      choice.replayed.empty() ? "null" : json_quote(choice.replayed), choice.same);
  for (const Judged& judged : choice.candidates) {
    text += fmt::format(R"({}{{"worker":{},"full":{},"avoided":{},"cost":{},"terms":{{)",
                        &judged == &choice.candidates.front() ? "" : ",", json_quote(judged.worker),
                        judged.full, judged.avoided,
                        judged.candidate.cost ? fmt::format("{}", *judged.candidate.cost) : "null");
    for (const CostTerm& term : judged.candidate.terms) {
      text += fmt::format("{}{}:{}", &term == &judged.candidate.terms.front() ? "" : ",",
                          json_quote(term.name), term.value);
    }
    text += "}}";
  }
  return text + "]}";
}

std::string shares_table(const Replay& replay, std::string_view policy) {
  std::map<std::string, Replay::Share> totals;
  for (const auto& [where, share] : replay.shares()) {
    totals[where.first].recorded += share.recorded;
    totals[where.first].replayed += share.replayed;
  }
  Table table({"MODEL", "WORKER", "RECORDED", "SHARE", std::string(policy), "SHARE"});
  const auto percent = [](std::uint64_t part, std::uint64_t whole) {
    return fmt::format("{:.1f}%",
                       whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole));
  };
  for (const auto& [where, share] : replay.shares()) {
    const Replay::Share& total = totals[where.first];
    table.add({where.first, where.second, fmt::format("{}", share.recorded),
               percent(share.recorded, total.recorded), fmt::format("{}", share.replayed),
               percent(share.replayed, total.replayed)});
  }
  return table.text(true);
}

std::string result_json(const Replay& replay, const Findings& findings, std::string_view policy) {
  std::string text =
      fmt::format(R"({{"policy":{},"decisions":{},"different":{},"without_room":{},"differences":[)",
                  policy.empty() ? "null" : json_quote(policy), findings.decisions, findings.different,
                  findings.without_room);
  const std::vector<Shown>& shown = findings.shown;
  for (const Shown& one : shown) {
    text += fmt::format(R"({}{{"line":{},"request":{},"model":{},"recorded":{},"replayed":{}}})",
                        &one == &shown.front() ? "" : ",", one.line, json_quote(one.request),
                        json_quote(one.model), json_quote(one.recorded), json_quote(one.replayed));
  }
  text += R"(],"workers":[)";
  bool first = true;
  for (const auto& [where, share] : replay.shares()) {
    text += fmt::format(R"({}{{"model":{},"worker":{},"recorded":{},"replayed":{}}})",
                        std::exchange(first, false) ? "" : ",", json_quote(where.first),
                        json_quote(where.second), share.recorded, share.replayed);
  }
  return text + fmt::format("],\"explained\":[{}]}}\n", findings.explained);
}

void print(const Replay& replay, const Findings& findings, std::string_view policy, std::string_view log) {
  const double different = static_cast<double>(findings.different);
  const double all = std::max(static_cast<double>(findings.decisions), 1.0);
  if (findings.different == 0) {
    fmt::print("{} decisions, all the same\n", findings.decisions);
  } else {
    fmt::print("{} decisions, {} different ({:.1f}%)\n", findings.decisions, findings.different,
               100 * different / all);
  }
  if (!policy.empty()) {
    fmt::print(
        "{}Every attempt is taken to have gone on its new worker exactly as it went on the recorded one; {} "
        "decision(s)\nfound room in one of the two only. What would have become of latencies: `heng sim "
        "--trace {}`.\n",
        shares_table(replay, policy), findings.without_room, log);
  } else if (!findings.shown.empty()) {
    Table table({"LINE", "REQUEST", "MODEL", "RECORDED", "REPLAYED"});
    for (const Shown& one : findings.shown)
      table.add({fmt::format("{}", one.line), one.request, one.model, one.recorded, one.replayed});
    fmt::print("{}", table.text(true));
  }
}

Result<void> feed(RecordingFile& file, Replay& replay) {
  LogLine line;
  while (true) {
    const Result<bool> more = file.next(line);
    if (!more) return std::unexpected(more.error());
    if (!*more) return {};
    if (const auto taken = replay.take(line); !taken)
      return std::unexpected(file.mistake(taken.error().message));
  }
}

}  // namespace

void ReplayCommand::add_to(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "replay", "Check that a recorded run (`heng serve --record`) is decided the same again, or ask why");
  command->add_option("log", log_, "What was recorded")->required();
  command->add_option("--policy", policy_,
                      "Decide by this policy instead, as in dynamic_weight:beta=0.2, and compare");
  command->add_option("--explain", explain_,
                      "Id of a request (x-request-id, `id` in the access log): who was there to be chosen");
  command->add_option("--differences", differences_, "How many differences to list")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--json", json_, "The result as JSON");
  command->callback([this, &exit_code] { exit_code = run(); });
}

int ReplayCommand::run() {
  const auto failed = [](const Error& error, ExitCode code) {
    fmt::print(stderr, "heng: {}\n", error.message);
    return code;
  };
  std::optional<ReplayPolicy> policy;
  std::string label;
  if (!policy_.empty()) {
    auto parsed = parse_policy(policy_);
    if (!parsed) return failed({ErrorCode::invalid, "--policy: " + parsed.error().message}, kExitUsage);
    label = parsed->label;
    policy = ReplayPolicy{parsed->entry, std::move(parsed->options)};
  }
  auto file = RecordingFile::open(log_);
  if (!file) return failed(file.error(), kExitFailed);
  Findings findings;
  Replay replay(std::move(policy), explain_, [&](const ReplayedChoice& choice) {
    findings.count(choice);
    if (!choice.same && findings.shown.size() < differences_) {
      findings.shown.push_back({file->line_number(), std::string(choice.request), std::string(choice.model),
                                std::string(or_none(choice.recorded)), std::string(shown_replay(choice))});
    }
    if (explain_.empty() || choice.request != explain_) return;
    findings.explained += findings.explained.empty() ? "" : json_ ? "," : "\n";
    findings.explained += json_ ? explanation_json(choice) : explanation(choice, label);
  });
  if (const auto fed = feed(*file, replay); !fed) return failed(fed.error(), kExitFailed);
  if (file->unfinished() != 0)
    fmt::print(stderr, "{} unfinished line(s), left by killed processes, passed over\n", file->unfinished());
  if (replay.programs().empty())
    return failed({ErrorCode::invalid, log_ + " is empty: nothing was recorded"}, kExitFailed);
  for (const std::string& program : replay.programs()) {
    if (program == HENG_VERSION) continue;
    fmt::print(stderr, "Recorded by heng {}, replayed by {}: versions may decide differently\n", program,
               HENG_VERSION);
  }
  if (!explain_.empty() && findings.explained.empty())
    return failed({ErrorCode::not_found, fmt::format("no decision on a request '{}' was recorded", explain_)},
                  kExitFailed);
  if (json_) {
    fmt::print("{}", result_json(replay, findings, label));
  } else if (!explain_.empty()) {
    fmt::print("{}", findings.explained);
  } else {
    print(replay, findings, label, log_);
  }
  return findings.different == 0 || !label.empty() ? kExitOk : kExitFailed;
}

}  // namespace heng
