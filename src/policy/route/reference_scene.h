// For tests of policies that know prompts: prompts of numbered blocks, sent to the workers of a small pool.
#pragma once

#include <gmock/gmock.h>

#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "policy/route/explain.h"
#include "policy/route/registry.h"
#include "policy/route/test_pool.h"

namespace heng {

/// Blocks are 64 tokens, as those of the gateway are where a token is four bytes.
class ReferenceScene {
 public:
  static constexpr double kBlockTokens = 64;

  struct Prompt {
    std::vector<std::uint64_t> blocks;
    double tokens;
  };

  /// Blocks first to last and nothing else: prompts that begin with the same numbers have the same beginning.
  static Prompt prompt(int first, int last) {
    Prompt prompt{{}, kBlockTokens * (last - first + 1)};
    std::uint64_t hash = 0;
    for (int block = first; block <= last; ++block) {
      prompt.blocks.push_back(hash = combine(hash, static_cast<std::uint64_t>(block)));
    }
    return prompt;
  }
  /// A prompt that shares nothing.
  static Prompt tokens(double count) { return {{}, count}; }

  ReferenceScene(std::string_view policy, std::size_t workers,
                 const std::map<std::string_view, double>& options = {})
      : pool(workers) {
    const RoutePolicyEntry& entry = *find_route_policy(policy);
    OptionValues values = default_values(entry);
    std::size_t known = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (const auto option = options.find(entry.fields[i].key); option != options.end()) {
        values[i] = option->second;
        ++known;
      }
    }
    HENG_ASSERT(known == options.size() && check_values(entry, values));
    policy_ = entry.make(values);
  }

  /// All workers that the policy may choose, ties being drawn 200 times.
  std::set<Slot> choices(const Prompt& prompt) {
    std::set<Slot> chosen;
    for (int i = 0; i < 200; ++i) chosen.insert(choose(prompt));
    return chosen;
  }
  Slot choose(const Prompt& prompt) {
    return policy_->choose(view(prompt), pool.view(), now_, rng_).value_or(kNoSlot);
  }

  /// The request goes to this worker, whatever the policy would do; returns its id.
  std::uint64_t send(Slot worker, const Prompt& prompt, bool stream = true) {
    ++pool.in_flight[worker];
    policy_->on({.kind = AttemptEvent::Kind::started,
                 .worker = worker,
                 .request = ++requests_,
                 .prompt_tokens = prompt.tokens,
                 .prefix = prompt.blocks,
                 .block_tokens = kBlockTokens,
                 .stream = stream},
                pool.view(), now_);
    return requests_;
  }
  void first_byte(Slot worker, std::uint64_t request) {
    policy_->on({.kind = AttemptEvent::Kind::first_byte, .worker = worker, .request = request}, pool.view(),
                now_);
  }
  void end(Slot worker, std::uint64_t request) {
    pool.end(*policy_, {.kind = AttemptEvent::Kind::ended, .worker = worker, .request = request}, now_);
  }
  /// Any fact; what has ended is no longer in flight.
  void tell(const AttemptEvent& event) {
    if (event.kind == AttemptEvent::Kind::ended) return pool.end(*policy_, event, now_);
    policy_->on(event, pool.view(), now_);
  }
  std::vector<Candidate> explain(const Prompt& prompt) {
    return explain_choice(*policy_, view(prompt), pool.view(), now_);
  }
  /// The worker has answered such a prompt before.
  void serve(Slot worker, const Prompt& prompt) {
    const std::uint64_t request = send(worker, prompt);
    first_byte(worker, request);
    end(worker, request);
  }
  void wait(Duration time) { now_ += time; }
  /// A new report of the engine, of a later time than all before.
  void report(Slot worker, float waiting, float kv_used) {
    pool.reported[worker] = {.at = now_ += 1s, .waiting = waiting, .kv_used = kv_used};
  }

  TestPool pool;

 private:
  RequestView view(const Prompt& prompt) const {
    return {.id = requests_ + 1,
            .prompt_tokens = prompt.tokens,
            .prefix = prompt.blocks,
            .block_tokens = kBlockTokens};
  }

  std::unique_ptr<RoutePolicy> policy_;
  Rng rng_{1};
  Instant now_{std::chrono::hours(1)};
  std::uint64_t requests_ = 0;
};

using Slots = std::set<Slot>;

}  // namespace heng
