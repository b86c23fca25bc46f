// The command line: one program, one subcommand for each thing users do.
#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "app/admin_client.h"
#include "app/demo.h"
#include "app/docs.h"
#include "app/engine_command.h"
#include "app/exit_code.h"
#include "app/key_command.h"
#include "app/replay_command.h"
#include "app/serve.h"
#include "app/sim_command.h"
#include "app/worker_command.h"
#include "config/issues.h"

namespace {

using namespace heng;

constexpr const char* kAbout =
    "Heng balances AI work. It puts one OpenAI-compatible endpoint in front of inference servers of unequal "
    "speed\n"
    "and learns how much each of them can take.\n\n"
    "  heng demo                 see it work on this machine, without any configuration\n"
    "  heng serve -c heng.yaml   run the gateway\n"
    "  heng workers              look at a running gateway";

/// `--set KEY=VALUE` after the environment: a flag is stronger.
Result<ConfigOverrides> all_overrides(const std::vector<std::string>& settings) {
  Result<ConfigOverrides> overrides = environment_overrides();
  if (!overrides) return overrides;
  for (const std::string& setting : settings) {
    const std::size_t equals = setting.find('=');
    if (equals == std::string::npos)
      return fail(ErrorCode::invalid, fmt::format("--set wants KEY=VALUE, not '{}'", setting));
    overrides->push_back({setting.substr(0, equals), setting.substr(equals + 1), "--set " + setting});
  }
  return overrides;
}

struct FileOptions {
  std::string path = "/etc/heng/heng.yaml";
  std::vector<std::string> settings;
  bool insecure_bind = false;
  std::string record;

  void add_to(CLI::App& command) {
    command.add_option("-c,--config", path, "Configuration file (YAML)")
        ->envname("HENG_CONFIG")
        ->capture_default_str();
    command.add_option("--set", settings,
                       "Override one option, as in --set timeouts.first_byte=300s; may be repeated");
    command.add_flag("--insecure-bind", insecure_bind,
                     "Let other machines reach it without TLS or without keys");
    command.footer(
        "Every option outside `pools` can also come from the environment: HENG_TIMEOUTS_FIRST_BYTE=300s.\n"
        "Precedence: --set, environment, file, default. All options: docs/reference/configuration.md\n"
        "or `heng docs configuration`.");
  }

  template <class Run>
  int with_overrides(Run run) const {
    Result<ConfigOverrides> overrides = all_overrides(settings);
    if (overrides && !record.empty()) overrides->push_back({"record", record, "--record"});
    if (overrides && insecure_bind) overrides->push_back({"insecure_bind", "true", "--insecure-bind"});
    if (overrides) return run(path, *overrides);
    fmt::print(stderr, "heng: {}\n", overrides.error().message);
    return kExitConfigInvalid;
  }
};

bool is_command(const CLI::App& app, std::string_view name) {
  return std::ranges::any_of(app.get_subcommands({}),
                             [&](const CLI::App* command) { return command->get_name() == name; });
}

int unknown_command(const CLI::App& app, std::string_view name) {
  std::vector<std::string> commands;
  for (const CLI::App* command : app.get_subcommands({})) commands.push_back(command->get_name());
  const std::vector<std::string_view> words(commands.begin(), commands.end());
  const std::string_view near = nearest(name, words);
  fmt::print(stderr, "heng: there is no command '{}'{}; `heng --help` lists them\n", name,
             near.empty() ? "" : fmt::format(", did you mean '{}'?", near));
  return kExitUsage;
}

/// Results that did not arrive were not delivered, whatever the command thinks of its work.
int delivered(int exit_code) {
  const bool flushed = std::fflush(stdout) == 0;
  const int problem = errno;
  if (flushed && std::ferror(stdout) == 0) return exit_code;
  // Who closes a pager has seen enough.
  if (flushed || problem != EPIPE)
    fmt::print(stderr, "heng: cannot write all of the output{}{}\n", flushed ? "" : ": ",
               flushed ? "" : std::strerror(problem));
  return exit_code == kExitOk ? kExitFailed : exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a log at its size limit is an error to report, not to die of
  spdlog::set_default_logger(spdlog::stderr_logger_st("heng"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);

  CLI::App app(kAbout, "heng");
  app.set_version_flag("--version", "heng " HENG_VERSION);
  app.require_subcommand(1);
  int exit_code = kExitOk;

  FileOptions serve_options;
  CLI::App* serve_command =
      app.add_subcommand("serve",
                         "Run the gateway until SIGTERM; SIGHUP reloads its configuration, SIGUSR1 "
                         "reopens its access log, SIGUSR2 hands over");
  serve_options.add_to(*serve_command);
  serve_command->add_option("--record", serve_options.record,
                            "Record what decisions are made from in this file, for `heng replay`");
  serve_command->callback([&] {
    exit_code = serve_options.with_overrides([&](const std::string& path, const ConfigOverrides& overrides) {
      return serve(path, overrides, {argv, argv + argc});
    });
  });

  FileOptions check_options;
  CLI::App* check_command =
      app.add_subcommand("check", "Check a configuration file; exit status 3 if it is not valid");
  check_options.add_to(*check_command);
  check_command->callback([&] { exit_code = check_options.with_overrides(check_configuration); });

  DemoCommand demo_command;
  demo_command.add_to(app, exit_code);
  EngineCommand engine_command;
  engine_command.add_to(app, exit_code);
  SimCommand sim_command;
  sim_command.add_to(app, exit_code);
  ReplayCommand replay_command;
  replay_command.add_to(app, exit_code);
  AdminCommands admin_commands;
  admin_commands.add_to(app, exit_code);
  WorkerCommand worker_command;
  worker_command.add_to(app, exit_code);
  KeyCommand key_command;
  key_command.add_to(app, exit_code);
  DocsCommand docs_command;
  docs_command.add_to(app, exit_code);

  if (argc < 2) {
    fmt::print(stderr, "{}", app.help());
    return kExitUsage;
  }
  if (argv[1][0] != '-' && !is_command(app, argv[1])) return unknown_command(app, argv[1]);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return delivered(app.exit(error) == 0 ? kExitOk : kExitUsage);
  } catch (const std::exception& error) {
    fmt::print(stderr, "heng: {}\n", error.what());
    return kExitFailed;
  }
  return delivered(exit_code);
}
