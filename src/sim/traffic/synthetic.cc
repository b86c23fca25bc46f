// The generator: new conversations by thinning a faster Poisson process, later turns from a heap.
#include "sim/traffic/synthetic.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "base/hash.h"

namespace heng {

namespace {

class SyntheticTraffic final : public TrafficSource {
 public:
  SyntheticTraffic(const SyntheticOptions& options, std::uint64_t seed)
      : options_(options),
        seed_(seed),
        arrivals_(Rng(seed).split("arrivals")),
        sizes_(Rng(seed).split("sizes")),
        conversations_(Rng(seed).split("conversations")) {
    if (options.prefixes > 0) popularity_.emplace(options.prefixes, options.zipf);
    next_start_ = draw_start(Duration(0));
  }

  Result<bool> next(TrafficRequest& out) override {
    if (made_ == options_.requests) return false;
    ++made_;
    Turn turn;
    if (!turns_.empty() && turns_.front().at <= next_start_) {
      std::ranges::pop_heap(turns_, later);
      turn = turns_.back();
      turns_.pop_back();
    } else {
      turn = begin_conversation();
      next_start_ = draw_start(next_start_);
    }
    fill(turn, out);
    if (conversations_.uniform() * options_.turns >= 1) {
      turn.at += from_seconds(conversations_.exponential(to_seconds(options_.think)));
      turns_.push_back(turn);
      std::ranges::push_heap(turns_, later);
    }
    return true;
  }

 private:
  struct Turn {
    Duration at{};
    std::uint64_t conversation = 0;
    std::uint64_t prefix = 0;   // 0 = none
    std::uint32_t history = 0;  // tokens of prompts and answers so far, prefix not counted
  };
  static bool later(const Turn& a, const Turn& b) {
    return a.at != b.at ? a.at > b.at : a.conversation > b.conversation;
  }

  bool in_burst(Duration at) const {
    return options_.burst_every > Duration(0) &&
           at % options_.burst_every >= options_.burst_every - options_.burst_lasts;
  }

  /// A Poisson process of varying rate by thinning (Lewis and Shedler 1979).
  Duration draw_start(Duration after) {
    const bool bursts = options_.burst_every > Duration(0);
    const double top = bursts ? std::max(1.0, options_.burst_factor) : 1;
    const double rate = options_.rate / options_.turns;
    for (Duration at = after;;) {
      at += from_seconds(arrivals_.exponential(1 / (rate * top)));
      const double wanted = in_burst(at) ? options_.burst_factor : 1;
      if ((top == 1 && wanted == 1) || arrivals_.uniform() * top < wanted) return at;
    }
  }

  Turn begin_conversation() {
    Turn turn{.at = next_start_, .conversation = combine(seed_, ++begun_)};
    if (popularity_) turn.prefix = mix(popularity_->draw(conversations_) + 1);
    return turn;
  }

  static std::uint32_t tokens(double drawn) {
    return static_cast<std::uint32_t>(std::clamp(std::round(drawn), 1.0, 1e6));
  }

  void fill(Turn& turn, TrafficRequest& out) {
    const std::uint32_t prefix = turn.prefix != 0 ? options_.prefix_tokens : 0;
    out.at = turn.at;
    out.client = turn.conversation;
    out.stream.reset();
    out.output_tokens = tokens(options_.output.draw(sizes_));
    turn.history += tokens(options_.prompt.draw(sizes_));
    out.prompt_tokens = std::min(prefix + turn.history, kTrafficTokensMax);
    turn.history = std::min(turn.history + out.output_tokens, kTrafficTokensMax);
    out.pieces.clear();
    if (prefix > 0) out.pieces.push_back({turn.prefix, prefix});
    // With the answer, which the next turn repeats.
    if (options_.turns > 1) out.pieces.push_back({turn.conversation, turn.history});
  }

  SyntheticOptions options_;
  std::uint64_t seed_;
  Rng arrivals_, sizes_, conversations_;
  std::optional<Zipf> popularity_;
  std::vector<Turn> turns_;  // heap of the turns to come, the next first
  Duration next_start_{};
  std::uint64_t begun_ = 0;
  std::uint64_t made_ = 0;
};

}  // namespace

std::unique_ptr<TrafficSource> make_synthetic(const SyntheticOptions& options, std::uint64_t seed) {
  return std::make_unique<SyntheticTraffic>(options, seed);
}

}  // namespace heng
