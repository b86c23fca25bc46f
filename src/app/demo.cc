// Gateway, four simulated engines of unequal speed and a load, all on one loop; a table of what happens.
#include "app/demo.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <numeric>

#include "app/admin_token.h"
#include "app/demo_load.h"
#include "app/engine_server.h"
#include "app/exit_code.h"
#include "app/weight_plot.h"
#include "gateway/admin.h"
#include "gateway/gateway.h"

namespace heng {

namespace {

constexpr std::array<double, 4> kSpeeds{1, 2, 3, 4};
constexpr Duration kPoll = 20ms;  // how soon a step of the controller is seen
constexpr std::size_t kChangedWorker = 3;
constexpr double kChangedSpeed = 2;
constexpr double kSettledWithin = 0.1;  // relative distance of every share from its speed
/// About half of what the four can do at first, 63% of what is left after the change.
constexpr double kRequestsPerSecond = 236;

EngineServerOptions engine_options(double speed, std::uint64_t seed) {
  EngineServerOptions options;
  options.listen = {"127.0.0.1", 0};
  options.model = "demo";
  options.seed = seed;
  options.engine.speed = speed;
  // A small machine, so that the demo's load can fill four of them: at speed 1 eight sequences at 100
  // tokens/s each.
  options.engine.t_base = 10ms;
  options.engine.max_num_seqs = 8;
  options.engine.kv_blocks = 2048;
  return options;
}

Config gateway_config(const std::vector<std::unique_ptr<EngineServer>>& engines, const DemoOptions& demo) {
  Config config;
  config.seed = demo.seed;
  PoolConfig pool;
  pool.model = "demo";
  pool.policy = find_route_policy("dynamic_weight");
  pool.policy_options = default_values(*pool.policy);
  const auto interval = std::ranges::find(pool.policy->fields, "interval_s", &OptionField::key);
  pool.policy_options[static_cast<std::size_t>(interval - pool.policy->fields.begin())] = demo.interval_s;
  for (std::size_t i = 0; i < engines.size(); ++i) {
    WorkerConfig worker;
    worker.endpoint = engines[i]->endpoint();
    worker.url = fmt::format("http://{}:{}", worker.endpoint.host, worker.endpoint.port);
    worker.name = fmt::format("w{}", i + 1);
    pool.workers.push_back(worker);
  }
  config.pools.push_back(std::move(pool));
  return config;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::size_t>(q * static_cast<double>(values.size() - 1) + 0.5);
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(at));
  return values[at];
}

class Demo {
 public:
  explicit Demo(DemoOptions options)
      : options_(std::move(options)),
        loop_(Loop::Timers::precise),
        speeds_(kSpeeds.begin(), kSpeeds.end()),
        poll_timer_(loop_, [this] { poll(); }),
        interrupt_(loop_, SIGINT, [this] { loop_.stop(); }),
        terminate_(loop_, SIGTERM, [this] { loop_.stop(); }) {}

  int run() {
    if (const auto started = start(); !started) {
      fmt::print(stderr, "heng: {}\n", started.error().message);
      return kExitFailed;
    }
    introduce();
    load_->start();
    poll_timer_.every(kPoll);
    loop_.run();
    load_->stop();
    if (!options_.plot.empty()) {
      if (const auto written = write_plot(plot_, options_.plot); !written) {
        fmt::print(stderr, "heng: {}\n", written.error().message);
        return kExitFailed;
      }
      fmt::print("The picture is in {}\n", options_.plot);
    }
    return kExitOk;
  }

 private:
  Result<void> start() {
    for (const double speed : kSpeeds) {
      engines_.push_back(std::make_unique<EngineServer>(loop_, engine_options(speed, options_.seed)));
      if (const auto started = engines_.back()->start(); !started) return started;
    }
    Config config = gateway_config(engines_, options_);
    gateway_ = std::make_unique<Gateway>(loop_, config);
    if (!gateway_->start()) {
      // The usual port is taken: any other will do for a demo.
      config.listen.port = 0;
      gateway_ = std::make_unique<Gateway>(loop_, config);
      if (const auto started = gateway_->start(); !started) return started;
    }
    admin_ = std::make_unique<AdminApi>(*gateway_, nullptr);
    if (!admin_->start(*config.admin)) {
      if (const auto started = admin_->start({"127.0.0.1", 0}); !started) return started;
    }
    load_ = std::make_unique<DemoLoad>(loop_, DemoLoadOptions{.gateway = gateway_->endpoint(),
                                                              .model = "demo",
                                                              .requests_per_second = kRequestsPerSecond,
                                                              .seed = options_.seed});
    submitted_.assign(kSpeeds.size(), 0);
    return {};
  }

  void introduce() {
    const std::string api = fmt::format("127.0.0.1:{}", gateway_->endpoint().port);
    if (auto own = own_admin_token(admin_->endpoint().port)) admin_->set_own_token(std::move(own->token));
    const std::string admin = fmt::format("127.0.0.1:{}", admin_->endpoint().port);
    fmt::print(
        "heng {}  demo: a gateway, four simulated engines and a load; nothing leaves this machine\n\n"
        "  API    http://{}/v1   (any OpenAI client, any key)\n"
        "  Admin  http://{}      (or in a second terminal: heng workers{})\n"
        "  Try    curl -N {}/v1/chat/completions -d '{{\"model\":\"demo\",\"stream\":true,\"max_tokens\":20,"
        "\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'\n\n"
        "The engines' speeds are 1 : 2 : 3 : 4. The gateway is not told: it learns them.\n\n",
        HENG_VERSION, api, admin, admin_->endpoint().port == 8081 ? "" : " --admin " + admin, api);
    fmt::print("iter     w1     w2     w3     w4   imbalance   p95 TTFT\n");
    std::fflush(stdout);
    record_shares();
  }

  std::vector<double> targets() const {
    const double sum = std::accumulate(speeds_.begin(), speeds_.end(), 0.0);
    std::vector<double> shares;
    for (const double speed : speeds_) shares.push_back(speed / sum);
    return shares;
  }

  std::vector<double> record_shares() {
    const std::span<const double> weights = gateway_->pools().at("demo")->pool().policy().weights();
    plot_.shares.emplace_back(weights.begin(), weights.end());
    plot_.targets.push_back(targets());
    return plot_.shares.back();
  }

  /// max / mean over the workers of (requests sent to it since the last row) / (its true speed).
  double take_imbalance() {
    double most = 0, sum = 0;
    for (std::size_t i = 0; i < engines_.size(); ++i) {
      const std::uint64_t submitted = engines_[i]->engine().counters().submitted;
      const double load =
          static_cast<double>(submitted - std::exchange(submitted_[i], submitted)) / speeds_[i];
      most = std::max(most, load);
      sum += load;
    }
    return sum == 0 ? 1 : most * static_cast<double>(engines_.size()) / sum;
  }

  /// A row for each step of the controller: its weights have moved.
  void poll() {
    const std::span<const double> weights = gateway_->pools().at("demo")->pool().policy().weights();
    if (iteration_ < options_.iterations && !std::ranges::equal(weights, plot_.shares.back())) on_step();
  }

  void on_step() {
    ++iteration_;
    const std::vector<double> shares = record_shares();
    const double imbalance = take_imbalance();
    const std::vector<double> wanted = targets();
    bool close = true;
    for (std::size_t i = 0; i < shares.size(); ++i)
      close &= std::abs(shares[i] / wanted[i] - 1) <= kSettledWithin;
    const bool settled = close && !settled_;
    if (close) settled_ = true;
    fmt::print("{:4}  {:.3f}  {:.3f}  {:.3f}  {:.3f}   {:9.2f}  {:6.0f} ms{}\n", iteration_, shares[0],
               shares[1], shares[2], shares[3], imbalance, quantile(load_->take_ttfts(), 0.95) * 1000,
               settled ? "   settled: every share within 10% of its speed" : "");
    if (iteration_ == options_.iterations / 2) change_speed();
    if (iteration_ == options_.iterations) end_show();
    std::fflush(stdout);
  }

  void change_speed() {
    engines_[kChangedWorker]->set_speed(kChangedSpeed);
    speeds_[kChangedWorker] = kChangedSpeed;
    settled_ = false;
    const std::string what = fmt::format("w{} slows down from {:.0f} to {:.0f}", kChangedWorker + 1,
                                         kSpeeds[kChangedWorker], kChangedSpeed);
    plot_.marks.emplace_back(static_cast<std::size_t>(iteration_), what);
    const std::vector<double> wanted = targets();
    fmt::print("      --- {}: the right shares are now {:.3f} {:.3f} {:.3f} {:.3f}\n", what, wanted[0],
               wanted[1], wanted[2], wanted[3]);
  }

  /// Where nobody watches, the program ends here.
  void end_show() {
    fmt::print("\n{} requests answered, {} failed.\n", load_->completed(), load_->failed());
    if (::isatty(STDOUT_FILENO) == 0 || !options_.plot.empty()) return loop_.stop();
    fmt::print(
        "Gateway, engines and load go on until Ctrl-C. Next: put it in front of your own servers, see "
        "README.md\n");
  }

  DemoOptions options_;
  Loop loop_;
  std::vector<double> speeds_;  // as they are now; the gateway never sees them
  std::vector<std::unique_ptr<EngineServer>> engines_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<AdminApi> admin_;
  std::unique_ptr<DemoLoad> load_;
  std::vector<std::uint64_t> submitted_;
  WeightPlot plot_{.title = "Share of requests per worker",
                   .workers = {"w1", "w2", "w3", "w4"},
                   .shares = {},
                   .targets = {},
                   .marks = {}};
  int iteration_ = 0;
  bool settled_ = false;
  Timer poll_timer_;
  SignalWatch interrupt_;
  SignalWatch terminate_;
};

}  // namespace

void DemoCommand::add_to(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "demo", "See the balancing work on this machine: no configuration, no files, nothing to install");
  command->add_option("--iterations", options_.iterations, "Steps to show; half-way one engine slows down")
      ->check(CLI::Range(2, 100000))
      ->capture_default_str();
  command->add_option("--interval", options_.interval_s, "Seconds between two steps")
      ->check(CLI::Range(0.1, 60.0))
      ->capture_default_str();
  command
      ->add_option("--plot", options_.plot,
                   "Leave a picture of the weights in this file (.svg or .png), then end")
      ->check([](const std::string& path) { return is_plot_path(path) ? "" : "must end in .svg or .png"; });
  command->add_option("--seed", options_.seed, "Seed of the load")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->footer(
      "On a terminal it goes on after the last step until Ctrl-C; into a pipe or file, and with --plot, it "
      "ends.");
  command->callback([this, &exit_code] {
    spdlog::set_level(spdlog::level::err);
    exit_code = Demo(options_).run();
  });
}

}  // namespace heng
