// For tests: engines of unequal speed that batch continuously, under Poisson arrivals, in simulated time.
#pragma once

#include <cmath>
#include <deque>
#include <vector>

#include "policy/route/test_pool.h"

namespace heng {

struct BatchingEngine {
  double step_s = 0.008;                // a decode step of one sequence at speed 1 ...
  double step_per_sequence_s = 0.0005;  // ... and what each sequence in the batch adds
  double prefill_tokens_per_s = 20000;
  std::size_t batch_max = 16;
  double prompt_mean = 200;
  double output_mean = 60;

  /// Requests per second that an engine of speed 1 finishes at most.
  double requests_per_s() const {
    const double step = step_s + step_per_sequence_s * static_cast<double>(batch_max);
    return 1 / (output_mean * step / static_cast<double>(batch_max) + prompt_mean / prefill_tokens_per_s);
  }
};

/// One request at a time is exponential in prompt and output length. Everything follows from the seed.
class BatchingScene {
 public:
  BatchingScene(RoutePolicy& policy, const BatchingEngine& engine, std::vector<double> speeds,
                std::uint64_t seed)
      : policy_(policy),
        engine_(engine),
        speeds_(std::move(speeds)),
        pool_(speeds_.size()),
        servers_(speeds_.size()),
        arrivals_(Rng(seed).split("arrivals")),
        sizes_(Rng(seed).split("sizes")),
        choices_(Rng(seed).split("choices")) {}

  TestPool& pool() { return pool_; }
  void set_speed(Slot slot, double speed) { speeds_[slot] = speed; }
  /// Requests per second from now on.
  void set_rate(double rate) {
    rate_ = rate, next_arrival_ = now_ + from_seconds(arrivals_.exponential(1 / rate_));
  }

  /// Runs for a while with a tick every 100 ms.
  void run(Duration span) {
    const Instant end = now_ + span;
    while (true) {
      Instant at = std::min(next_arrival_, next_tick_);
      for (const Server& server : servers_) {
        if (server.stepping) at = std::min(at, server.step_ends);
      }
      if (at >= end) break;
      now_ = at;
      for (Slot slot = 0; slot < servers_.size(); ++slot) {
        if (servers_[slot].stepping && servers_[slot].step_ends <= now_) end_step(slot);
      }
      if (next_arrival_ <= now_) arrive();
      if (next_tick_ <= now_) {
        policy_.tick(pool_.view(), now_);
        next_tick_ += 100ms;
      }
    }
    now_ = end;
  }

  std::size_t in_system() const {
    std::size_t n = 0;
    for (const std::uint32_t in_flight : pool_.in_flight) n += in_flight;
    return n;
  }

 private:
  struct Sequence {
    std::uint64_t id;
    Instant started;
    Duration first_byte{};
    double prompt, output, left;
  };
  struct Server {
    std::deque<Sequence> waiting;
    std::vector<Sequence> running;
    bool stepping = false;
    Instant step_ends{};
  };

  void arrive() {
    const RequestView request{.id = ++requests_,
                              .prompt_tokens = 1 + std::floor(sizes_.exponential(engine_.prompt_mean))};
    const double output = 1 + std::floor(sizes_.exponential(engine_.output_mean));
    if (const Slot slot = pool_.start(policy_, request, now_, choices_); slot != kNoSlot) {
      servers_[slot].waiting.push_back({request.id, now_, {}, request.prompt_tokens, output, output});
      if (!servers_[slot].stepping) begin_step(slot);
    }
    next_arrival_ = now_ + from_seconds(arrivals_.exponential(1 / rate_));
  }

  void begin_step(Slot slot) {
    Server& server = servers_[slot];
    double seconds = 0;
    while (!server.waiting.empty() && server.running.size() < engine_.batch_max) {
      seconds += server.waiting.front().prompt / engine_.prefill_tokens_per_s;
      server.running.push_back(server.waiting.front());
      server.waiting.pop_front();
    }
    server.stepping = !server.running.empty();
    seconds += engine_.step_s + engine_.step_per_sequence_s * static_cast<double>(server.running.size());
    server.step_ends = now_ + from_seconds(seconds / speeds_[slot]);
  }

  void end_step(Slot slot) {
    std::vector<Sequence>& running = servers_[slot].running;
    for (Sequence& sequence : running) {
      sequence.left -= 1;
      if (sequence.first_byte == Duration::zero()) sequence.first_byte = now_ - sequence.started;
    }
    for (std::size_t i = 0; i < running.size();) {
      if (running[i].left > 0) {
        ++i;
        continue;
      }
      const Sequence done = running[i];
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(i));
      pool_.end(policy_,
                {.kind = AttemptEvent::Kind::ended,
                 .outcome = Outcome::ok,
                 .worker = slot,
                 .request = done.id,
                 .elapsed = now_ - done.started,
                 .time_to_first_byte = done.first_byte,
                 .prompt_tokens = done.prompt,
                 .output_tokens = done.output},
                now_);
    }
    begin_step(slot);
  }

  RoutePolicy& policy_;
  BatchingEngine engine_;
  std::vector<double> speeds_;
  TestPool pool_;
  std::vector<Server> servers_;
  Rng arrivals_, sizes_, choices_;
  double rate_ = 1;
  std::uint64_t requests_ = 0;
  Instant now_{};
  Instant next_arrival_ = Instant::max();
  Instant next_tick_{};
};

}  // namespace heng
