// Wires configuration, gateway, admin API and signals together.
#include "app/serve.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <optional>
#include <utility>

#include "app/admin_token.h"
#include "app/exit_code.h"
#include "app/handover.h"
#include "config/values.h"
#include "gateway/admin.h"
#include "gateway/gateway.h"
#include "live/machine.h"
#include "live/service_notify.h"

extern char** environ;

namespace heng {

namespace {

void tell(const std::vector<std::string>& cuts) {
  for (const std::string& cut : cuts) spdlog::warn("{}", cut);
}

/// As configured, but with the port that was taken.
std::string url_of(Endpoint endpoint, const Endpoint& bound, bool tls) {
  endpoint.port = bound.port;
  if (endpoint.is_unix()) return format_endpoint(endpoint);
  return fmt::format("http{}://{}", tls ? "s" : "", format_endpoint(endpoint));
}

/// The running program: what signals act on.
class Service {
 public:
  /// How this process was started.
  struct Start {
    std::string path;
    ConfigOverrides overrides;
    std::vector<std::string> command;
    MachineLimits machine;
    InheritedSockets sockets;
    std::optional<Predecessor> predecessor;
  };

  Service(Start start, Config config)
      : start_(std::move(start)),
        gateway_(loop_, std::move(config)),
        stalls_(gateway_.metrics().counter("heng_stalls_total",
                                           "Times this process did not run for half a second or longer", {})),
        stalled_seconds_(gateway_.metrics().counter("heng_stalled_seconds_total",
                                                    "Time of these stalls, which no time-out counts", {})),
        admin_(
            gateway_, [this] { return reload(); },
            [this](Successor::Done told) { hand_over(std::move(told)); }),
        successor_(loop_, start_.command),
        settle_timer_(loop_, [this] { take_over_when_settled(); }),
        drain_timer_(loop_, [this] { watch_drain(); }),
        interrupt_(loop_, SIGINT, [this] { stop(); }),
        terminate_(loop_, SIGTERM, [this] { stop(); }),
        hang_up_(loop_, SIGHUP, [this] { static_cast<void>(reload()); }),
        rotate_(loop_, SIGUSR1, [this] { gateway_.reopen_access_log(); }),
        user_(loop_, SIGUSR2, [this] { hand_over([](const Result<pid_t>&) {}); }) {}

  Result<void> start() {
    if (start_.predecessor) {
      if (const auto taken = gateway_.take_changes(start_.predecessor->state()); !taken) return taken;
    }
    if (const auto prepared = gateway_.prepare(); !prepared) return prepared;
    gateway_.metrics()
        .gauge("heng_build_info", "Version of this program", {{"version", HENG_VERSION}})
        .set(1);
    if (!start_.predecessor) return open();
    settle_until_ = loop_.now() + kSettleMax;
    settle_timer_.every(20ms);
    return {};
  }

  /// After a failed start: the predecessor goes on.
  void give_up(std::string_view why) {
    if (!start_.predecessor) return;
    start_.predecessor->say_failed(why);
    gateway_.retire();
  }

  /// Until the end of the work; the program's exit code.
  int run() {
    loop_.forgive_stalls([this](Duration slept) { note_stall(slept); });
    loop_.run();
    return exit_code_;
  }

 private:
  /// Changes always want a token: without a configured one we make it, for this user's commands to find.
  void keep_admin_token() {
    const Config& config = gateway_.config();
    if (!config.admin || config.admin->is_unix() || !config.admin_token.empty()) return;
    auto own = own_admin_token(admin_.endpoint().port);
    if (!own) {
      spdlog::warn("the admin API takes no changes: {}; set `admin_token_file`", own.error().message);
      return;
    }
    admin_.set_own_token(std::move(own->token));
    spdlog::info("changes through the admin API want the token in {}", own->path);
  }

  InheritedSockets& sockets() { return start_.predecessor ? start_.predecessor->sockets() : start_.sockets; }

  /// From here on clients come in.
  Result<void> open() {
    if (start_.predecessor) gateway_.take_memory(start_.predecessor->state());
    if (const auto listening = gateway_.listen(&sockets()); !listening) return listening;
    if (const auto& admin = gateway_.config().admin) {
      if (const auto started = admin_.start(*admin, &sockets()); !started) return started;
      keep_admin_token();
    }
    for (const std::string& address : sockets().left())
      spdlog::warn("a socket on {} was passed on, but neither 'listen' nor 'admin' names it: closed",
                   address);
    start_.sockets = InheritedSockets();
    announce();
    if (start_.predecessor) {
      start_.predecessor->say_ready();
      start_.predecessor.reset();
    } else {
      notify_service("READY=1");
    }
    return {};
  }

  /// A new process that knew nothing of its workers would refuse requests that the old one could serve.
  void take_over_when_settled() {
    if (!gateway_.settled() && loop_.now() < settle_until_) return;
    settle_timer_.stop();
    if (const auto opened = open(); !opened) {
      give_up(opened.error().message);
      spdlog::error("{}", opened.error().message);
      exit_code_ = kExitFailed;
      loop_.stop();
    }
  }

  void hand_over(Successor::Done told) {
    const std::string_view refusal =
        retired_ || gateway_.draining() ? "this process is about to end"
        : successor_.starting()         ? "a hand-over is under way"
        : ::getpid() == 1
            ? "this is process 1 (of a container), with whose end all others end: start another "
              "container and stop this one"
            : "";
    if (!refusal.empty()) {
      spdlog::error("no hand-over: {}", refusal);
      return told(fail(ErrorCode::unavailable, std::string(refusal)));
    }
    spdlog::info("handing over to a new process of {}", start_.command.front());
    std::vector<int> listeners{gateway_.listener()};
    if (gateway_.config().admin) listeners.push_back(admin_.listener());
    admin_.hold_changes(true);
    successor_.start(listeners, gateway_.handover_state(), [this, told = std::move(told)](const auto& ready) {
      admin_.hold_changes(false);
      ready ? retire(*ready) : spdlog::error("{}; this one goes on", ready.error().message);
      told(ready);
    });
  }

  /// The successor takes all that comes; here the requests under way end in peace.
  void retire(pid_t successor) {
    retired_ = true;
    notify_service(fmt::format("MAINPID={}", successor));
    gateway_.retire();
    admin_.retire();
    const Duration longest = gateway_.config().timeouts.handover;
    spdlog::info("process {} has taken over; {} request(s) under way may take {:.0f} s", successor,
                 gateway_.totals().in_flight, to_seconds(longest));
    drain_ends_ = loop_.now() + longest;
    drain_timer_.every(100ms);
  }

  void announce() {
    std::size_t workers = 0;
    for (const auto& [model, pool] : gateway_.pools()) workers += pool->config().workers.size();
    const Config& config = gateway_.config();
    spdlog::info("API on {}/v1, {} pool(s), {} worker(s)",
                 url_of(config.listen, gateway_.endpoint(), config.tls.enabled()), gateway_.pools().size(),
                 workers);
    if (config.admin) {
      spdlog::info("admin API on {} (workers, weights, metrics)",
                   url_of(*config.admin, admin_.endpoint(), config.tls.admin));
    }
    if (config.insecure_bind && !is_loopback(config.listen.host)) {
      spdlog::warn("insecure_bind: other machines can reach {} {}{}", format_endpoint(config.listen),
                   config.tls.enabled() ? "over TLS" : "in the clear",
                   config.keys_file.empty() ? " and without a key" : "");
    }
  }

  void note_stall(Duration slept) {
    stalls_.add();
    stalled_seconds_.add(to_seconds(slept));
    spdlog::warn(
        "this process did not run for {:.1f} s (stopped, suspended, or short of CPU); time-outs wait",
        to_seconds(slept));
  }

  Result<void> reload() {
    if (retired_) return fail(ErrorCode::unavailable, "this process has handed over: ask its successor");
    notify_reloading();
    Result<void> done = {};
    ConfigLoad loaded = load_config(start_.path, start_.overrides);
    if (!loaded.issues.empty()) {
      done = fail(ErrorCode::invalid, format_issues(start_.path, loaded.issues));
    } else {
      tell(fit_to_machine(loaded.config, start_.machine));
      done = gateway_.reload(std::move(loaded.config));
    }
    gateway_.metrics()
        .counter("heng_reloads_total", "Configuration reloads", {{"result", done ? "applied" : "refused"}})
        .add();
    if (done) {
      keep_admin_token();
      admin_.apply_config();
      spdlog::info("configuration reloaded from {}", start_.path);
    } else {
      spdlog::error("configuration not reloaded, the old one stays in force:\n{}", done.error().message);
    }
    notify_service("READY=1");
    return done;
  }

  void stop() {
    if (gateway_.draining()) return loop_.stop();
    successor_.cancel();
    if (!retired_) notify_service("STOPPING=1");
    spdlog::info("draining: {} request(s) under way, at most {:.0f} s; once more to stop at once",
                 gateway_.totals().in_flight, to_seconds(gateway_.config().timeouts.drain));
    gateway_.drain();
    drain_ends_ = loop_.now() + gateway_.config().timeouts.drain;
    drain_timer_.every(20ms);
  }

  void watch_drain() {
    if (!gateway_.idle() && loop_.now() < drain_ends_) return;
    if (!gateway_.idle()) spdlog::warn("{} request(s) cut off", gateway_.totals().in_flight);
    loop_.stop();
  }

  static constexpr Duration kSettleMax = 3s;  // a worker that hangs must not hold up a hand-over

  Start start_;
  int exit_code_ = kExitOk;
  bool retired_ = false;  // a successor has taken over
  Loop loop_;
  Gateway gateway_;
  Counter& stalls_;
  Counter& stalled_seconds_;
  AdminApi admin_;
  Successor successor_;
  Timer settle_timer_;
  Instant settle_until_;
  Timer drain_timer_;
  Instant drain_ends_;
  SignalWatch interrupt_;
  SignalWatch terminate_;
  SignalWatch hang_up_;
  SignalWatch rotate_;
  SignalWatch user_;
};

int print_issues(const std::string& path, const std::vector<ConfigIssue>& issues) {
  fmt::print(stderr, "{}", format_issues(path, issues));
  if (::access(path.c_str(), F_OK) != 0) {
    fmt::print(stderr,
               "Name another file with -c, or begin with an example: heng docs example > heng.yaml\n");
  }
  return kExitConfigInvalid;
}

std::string variable_name(std::string_view key) {
  std::string name = "HENG_";
  for (const char c : key)
    name += c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace

Result<ConfigOverrides> environment_overrides() {
  const std::vector<std::string> keys = option_keys();
  ConfigOverrides overrides;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (!text.starts_with("HENG_")) continue;
    const std::size_t equals = text.find('=');
    const std::string_view name = text.substr(0, equals);
    if (name == "HENG_CACHE" || name == "HENG_CONFIG" || name == "HENG_HANDOVER") continue;
    const auto key = std::ranges::find(keys, name, variable_name);
    if (key == keys.end()) {
      return fail(ErrorCode::invalid,
                  fmt::format("the variable {} names no option; see `heng serve --help`", name));
    }
    overrides.push_back({*key, std::string(text.substr(equals + 1)), std::string(name)});
  }
  return overrides;
}

int check_configuration(const std::string& path, const ConfigOverrides& overrides) {
  const ConfigLoad loaded = load_config(path, overrides);
  if (!loaded.issues.empty()) return print_issues(path, loaded.issues);
  ClientTlsContexts tls;
  const auto checked = check_tls_files(loaded.config, Gateway::wall_time_s(), tls);
  if (!checked) return print_issues(path, {{.message = checked.error().message}});
  if (!checked->empty()) fmt::print(stderr, "{}: warning: {}\n", path, *checked);
  std::size_t workers = 0;
  for (const PoolConfig& pool : loaded.config.pools) workers += pool.workers.size();
  fmt::print("{}: fine, {} pool(s) with {} worker(s)\n", path, loaded.config.pools.size(), workers);
  return kExitOk;
}

int serve(const std::string& path, const ConfigOverrides& overrides, std::vector<std::string> command) {
  std::optional<Predecessor> predecessor = Predecessor::from_environment();
  ConfigLoad loaded = load_config(path, overrides);
  if (!loaded.issues.empty()) {
    if (predecessor) predecessor->say_failed(format_issues(path, loaded.issues));
    return print_issues(path, loaded.issues);
  }
  end_when_out_of_memory();
  const MachineLimits machine = claim_machine_limits();
  tell(fit_to_machine(loaded.config, machine));
  Service service({path, overrides, std::move(command), machine, InheritedSockets::from_systemd(),
                   std::move(predecessor)},
                  std::move(loaded.config));
  if (const auto started = service.start(); !started) {
    service.give_up(started.error().message);
    fmt::print(stderr, "heng: {}\n", started.error().message);
    return kExitFailed;
  }
  return service.run();
}

}  // namespace heng
