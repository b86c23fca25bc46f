// Flags of the simulated engine and its run until a signal.
#include "app/engine_command.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <charconv>
#include <csignal>

#include "app/exit_code.h"

namespace heng {

Result<Endpoint> parse_endpoint(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  Endpoint endpoint;
  unsigned port = 0;
  const char* end = text.data() + text.size();
  const bool has_port = colon != std::string::npos && colon + 1 < text.size();
  if (!has_port || std::from_chars(text.data() + colon + 1, end, port).ptr != end || port > 65535) {
    return fail(ErrorCode::invalid, fmt::format("'{}' is not HOST:PORT", text));
  }
  endpoint.host = text.substr(0, colon);
  endpoint.port = static_cast<std::uint16_t>(port);
  if (endpoint.host.starts_with('[') && endpoint.host.ends_with(']')) {
    endpoint.host = endpoint.host.substr(1, endpoint.host.size() - 2);
  }
  return endpoint;
}

void EngineCommand::add_to(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "engine", "Run a simulated inference server (a stated model of continuous batching)");
  EngineParams& engine = options_.engine;
  command->add_option_function<std::string>(
      "-c,--config", [&engine](const std::string& path) { read_engine(path, engine); },
      "Parameters: a file with an `engine:` section as for `heng sim`; flags are stronger");
  command->add_option("-l,--listen", listen_, "Address and port; port 0 takes a free one")
      ->capture_default_str();
  command->add_option("-m,--model", options_.model, "Name of the model it serves")->capture_default_str();
  command->add_option("--speed", engine.speed, "Speed relative to the reference GPU of docs/engine-model.md")
      ->capture_default_str();
  command
      ->add_option("--output-tokens", options_.output_tokens, "Length of answers to requests that give none")
      ->capture_default_str();
  add_engine_limits(*command, engine);
  command->add_flag("--one-thread", options_.one_thread,
                    "Serve nobody while a step is computed, as servers do that share the model's thread");
  command->add_option("--seed", options_.seed, "Seed of the ids it makes up")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->footer("POST /control {\"speed\": 0.5} changes the speed while it runs.");
  fit_.add_to(*command, exit_code);
  command->callback([this, command, &exit_code] {
    if (command->get_subcommands().empty()) exit_code = run();
  });
}

int EngineCommand::run() {
  const Result<Endpoint> endpoint = parse_endpoint(listen_);
  if (!endpoint) {
    fmt::print(stderr, "heng: --listen: {}\n", endpoint.error().message);
    return kExitUsage;
  }
  options_.listen = *endpoint;
  if (const auto valid = check(options_); !valid) {
    fmt::print(stderr, "heng: {}\n", valid.error().message);
    return kExitUsage;
  }
  Loop loop(Loop::Timers::precise);  // decode steps are a few milliseconds long
  EngineServer server(loop, options_);
  if (const auto started = server.start(); !started) {
    fmt::print(stderr, "heng: {}\n", started.error().message);
    return kExitFailed;
  }
  SignalWatch interrupt(loop, SIGINT, [&] { loop.stop(); });
  SignalWatch terminate(loop, SIGTERM, [&] { loop.stop(); });
  spdlog::info("simulated engine '{}' at speed {} on http://{}:{}/v1", options_.model, options_.engine.speed,
               options_.listen.host, server.endpoint().port);
  loop.run();
  return kExitOk;
}

}  // namespace heng
