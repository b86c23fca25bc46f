// Recorded slots are translated to replayed ones, so that a replay goes on after the first difference.
#include "host/replay.h"

#include <fmt/format.h>

#include <algorithm>

namespace heng {

namespace {

using Event = PoolEvent::Kind;

std::unexpected<Error> unfitting(std::string_view what) {
  return fail(ErrorCode::invalid,
              fmt::format("{}; the recording is damaged or its beginning is missing", what));
}

bool is_decision(Event kind) { return kind == Event::reserve || kind == Event::reserve_on; }

bool would_take(const Pool& pool, const PoolEvent& event) {
  if (event.kind == Event::reserve) return pool.room(event.asked) == Pool::Room::free;
  const bool open =
      event.yes ? pool.is_usable(event.asked) : std::ranges::binary_search(pool.view().eligible, event.asked);
  return open && pool.has_room(event.asked);
}

Result<ReplayPolicy> recorded_policy(const LogLine& line) {
  ReplayPolicy policy{find_route_policy(line.policy), {}};
  if (policy.entry == nullptr)
    return fail(ErrorCode::invalid, fmt::format("this program has no policy '{}'", line.policy));
  policy.options = default_values(*policy.entry);
  for (const auto& [key, value] : line.options) {
    const auto field = std::ranges::find(policy.entry->fields, key, &OptionField::key);
    if (field == policy.entry->fields.end())
      return fail(ErrorCode::invalid, fmt::format("the policy {} has no option '{}' here", line.policy, key));
    policy.options[static_cast<std::size_t>(field - policy.entry->fields.begin())] = value;
  }
  if (const auto valid = check_values(*policy.entry, policy.options); !valid)
    return std::unexpected(valid.error());
  return policy;
}

}  // namespace

Replay::Replay(std::optional<ReplayPolicy> policy, std::string explain, OnChoice on_choice)
    : policy_(std::move(policy)), explain_(std::move(explain)), on_choice_(std::move(on_choice)) {}

Result<void> Replay::take(const LogLine& line) {
  if (line.kind == LogLine::Kind::run) {
    runs_[line.process] = {.began = line.at, .began_s = line.time_s, .pools = {}, .requests = {}};
    if (std::ranges::find(programs_, line.name) == programs_.end()) programs_.push_back(line.name);
    return {};
  }
  const auto run = runs_.find(line.process);
  if (run == runs_.end()) return unfitting(fmt::format("process {} has not begun", line.process));
  auto& [process, known] = *run;
  if (line.kind == LogLine::Kind::request) {
    known.requests[line.request].id = line.name;
    return {};
  }
  if (line.kind == LogLine::Kind::done) {
    known.requests.erase(line.request);
    return {};
  }
  if (line.kind == LogLine::Kind::pool) return make_pool(known, line);
  const auto pool = known.pools.find(line.pool);
  if (pool == known.pools.end()) return unfitting(fmt::format("there is no pool {}", line.pool));
  if (line.kind == LogLine::Kind::worker) return name_worker(pool->second, line);
  if (line.kind == LogLine::Kind::event) return tell(known, pool->second, line);
  known.pools.erase(pool);
  return {};
}

Result<void> Replay::make_pool(Run& run, const LogLine& line) const {
  auto policy = policy_ ? Result<ReplayPolicy>(*policy_) : recorded_policy(line);
  if (!policy) return std::unexpected(policy.error());
  ReplayedPool pool{line.name, Pool(policy->entry->make(policy->options), Rng(line.seed)), {}, {}};
  if (!run.pools.emplace(line.pool, std::move(pool)).second)
    return unfitting(fmt::format("pool {} is there already", line.pool));
  return {};
}

Result<void> Replay::name_worker(ReplayedPool& pool, const LogLine& line) {
  if (line.event.worker >= pool.slots.size()) return unfitting("a worker is named that is not there");
  Member& member = pool.members[pool.slots[line.event.worker]];
  member.name = line.name;
  member.share = &shares_[{pool.model, line.name}];
  return {};
}

Result<void> Replay::tell(Run& run, ReplayedPool& pool, const LogLine& line) {
  PoolEvent event = line.event;
  const auto translate = [&](Slot& slot) {
    if (slot == kNoSlot) return true;
    if (slot >= pool.slots.size()) return false;
    slot = pool.slots[slot];
    return true;
  };
  const bool attempt = event.kind == Event::first_byte || event.kind == Event::end;
  if (event.kind == Event::add) {
    if (event.worker > pool.slots.size() || !fits(pool.pool, event)) return unfitting("a worker cannot join");
    const Slot slot = apply(pool.pool, event);
    pool.slots.resize(std::max<std::size_t>(pool.slots.size(), event.worker + 1));
    pool.slots[event.worker] = slot;
    pool.members.resize(pool.pool.slots());
    pool.members[slot] = {};
    return {};
  }
  if (attempt) {
    auto& placements = run.requests[event.attempt.request].placements;
    const auto placed = std::ranges::find_if(placements, [&](const Placement& one) {
      return one.pool == line.pool && one.recorded == event.worker && !one.ended;
    });
    if (placed == placements.end())
      return unfitting(fmt::format("request {} is not on worker {}", event.attempt.request, event.worker));
    placed->ended = event.kind == Event::end;
    if (placed->replayed == kNoSlot) return {};
    event.worker = event.attempt.worker = placed->replayed;
  } else if (!translate(event.worker) || !translate(event.asked)) {
    return unfitting(fmt::format("pool {} has no such worker", line.pool));
  }
  if (event.kind == Event::reserve && event.asked != kNoSlot) {
    // To be avoided is the worker that this replay has tried.
    for (const Placement& one : run.requests[event.request.id].placements) {
      if (one.pool == line.pool && one.recorded == line.event.asked) event.asked = one.replayed;
    }
  }
  if (!fits(pool.pool, event)) return unfitting("this cannot have happened");
  if (is_decision(event.kind)) {
    decide(run, pool, line, event);
  } else {
    apply(pool.pool, event);
  }
  return {};
}

/// `event`: in replayed slots.
void Replay::decide(Run& run, ReplayedPool& pool, const LogLine& line, const PoolEvent& event) {
  Request& request = run.requests[event.request.id];
  ReplayedChoice choice{.request = request.id,
                        .model = pool.model,
                        .time_s = run.began_s + to_seconds(line.at - run.began),
                        .recorded = {},
                        .replayed = {},
                        .bound = event.kind == Event::reserve_on,
                        .view = &event.request,
                        .candidates = {}};
  if (!explain_.empty() && request.id == explain_ && !choice.bound) judge(pool, event, choice);
  const bool recorded = event.worker != kNoSlot;
  // What was not placed then has no end now.
  const bool kept_out = !recorded && would_take(pool.pool, event);
  const Slot slot = kept_out ? kNoSlot : apply(pool.pool, event);
  choice.same = slot == event.worker && !kept_out;
  const auto name = [&](Slot one) -> std::string_view {
    if (one == kNoSlot) return "";
    const Member& member = pool.members[one];
    return member.name.empty() ? "?" : std::string_view(member.name);
  };
  choice.recorded = name(event.worker);
  choice.replayed = name(slot);
  if (recorded) {
    request.placements.push_back({line.pool, line.event.worker, slot});
    if (Share* share = pool.members[event.worker].share) ++share->recorded;
  }
  if (slot != kNoSlot) {
    if (Share* share = pool.members[slot].share) ++share->replayed;
  }
  on_choice_(choice);
}

void Replay::judge(ReplayedPool& pool, const PoolEvent& event, ReplayedChoice& choice) const {
  for (Candidate& candidate : pool.pool.explain(event.request, event.at)) {
    const Slot slot = candidate.worker;
    choice.candidates.push_back({.worker = pool.members[slot].name,
                                 .candidate = std::move(candidate),
                                 .full = !pool.pool.has_room(slot),
                                 .avoided = slot == event.asked});
  }
}

}  // namespace heng
