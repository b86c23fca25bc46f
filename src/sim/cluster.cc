// The event loop of the simulated cluster.
#include "sim/cluster.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/hash.h"
#include "flow/prompt_blocks.h"
#include "sim/prompt.h"

namespace heng {

namespace {

constexpr Duration kTick = 100ms;
constexpr Duration kSample = 1s;
constexpr double kHungSlowness = 1e9;           // a step of 10 ms then takes four months
constexpr std::uint32_t kAffinityTokens = 256;  // live, the first 1,024 bytes make a conversation

}  // namespace

std::string_view to_string(FaultKind kind) {
  switch (kind) {
    case FaultKind::die:
      return "die";
    case FaultKind::hang:
      return "hang";
    case FaultKind::slow:
      return "slow";
    case FaultKind::mute:
      return "mute";
  }
  return "?";
}

Cluster::Cluster(const ClusterOptions& options, TrafficSource& traffic, Tally& tally)
    : options_(options), traffic_(traffic), tally_(tally), front_(Rng(options.seed).split("front")) {
  HENG_ASSERT(!options.workers.empty() && options.workers.front().joins == Duration(0));
  for (std::uint32_t gateway = 0; gateway < options.gateways; ++gateway) {
    gateways_.emplace_back(options.gateway, Rng(combine(options.seed, gateway)).split("gateway"),
                           [this, gateway] { push(Kind::line, now_, gateway); });
  }
  for (const SimWorker& worker : options.workers) {
    workers_.push_back({.engine = Engine(worker.engine), .params = worker.engine});
  }
  loads_told_.resize(gateways_.size() * workers_.size());
  flowing_.resize(workers_.size(), 0);
  in_flight_.resize(workers_.size(), 0);
  waiting_.resize(workers_.size(), 0);
  for (Slot slot = 0; slot < workers_.size(); ++slot) {
    const Duration joins = options.workers[slot].joins;
    HENG_ASSERT(slot == 0 || joins >= options.workers[slot - 1].joins);
    if (joins == Duration(0)) {
      join(slot);
    } else {
      push(Kind::join, Instant(joins), slot);
    }
  }
  for (std::uint32_t i = 0; i < options.faults.size(); ++i) {
    HENG_ASSERT(options.faults[i].worker < workers_.size());
    push(Kind::fault, Instant(options.faults[i].at), i);
  }
  push(Kind::tick, Instant(kTick), 0);
}

void Cluster::push(Kind kind, Instant at, std::uint32_t index, std::uint32_t serial, Outcome outcome) {
  events_.push_back({at, order_++, kind, outcome, index, serial});
  std::ranges::push_heap(events_, std::greater<>());
}

Result<void> Cluster::run() {
  while (true) {
    const Result<bool> more = step();
    if (!more) return std::unexpected(more.error());
    if (!*more) return {};
  }
}

Result<bool> Cluster::step() {
  if (!begun_) {
    begun_ = true;
    if (const auto read = read_traffic(); !read) return std::unexpected(read.error());
  }
  if (traffic_ended_ && counts_.in_flight == 0) return false;
  std::ranges::pop_heap(events_, std::greater<>());
  const Event event = events_.back();
  events_.pop_back();
  HENG_ASSERT(event.at >= now_);
  now_ = event.at;
  if (const auto handled = handle(event); !handled) return std::unexpected(handled.error());
  return true;
}

Result<void> Cluster::handle(const Event& event) {
  switch (event.kind) {
    case Kind::arrival:
      arrive();
      return read_traffic();
    case Kind::tick:
      tick();
      break;
    case Kind::join:
      join(event.index);
      break;
    case Kind::fault:
      begin_fault(options_.faults[event.index]);
      if (options_.faults[event.index].lasts > Duration(0))
        push(Kind::recover, now_ + options_.faults[event.index].lasts, event.index);
      break;
    case Kind::recover:
      end_fault(options_.faults[event.index]);
      break;
    case Kind::deliver:
      if (is_current(event.index, event.serial)) deliver(event.index);
      break;
    case Kind::first:
      if (is_current(event.index, event.serial)) on_first(event.index);
      break;
    case Kind::end:
      if (is_current(event.index, event.serial)) on_answer_end(event.index);
      break;
    case Kind::lost:
      if (is_current(event.index, event.serial)) on_lost(event.index, event.outcome);
      break;
    case Kind::probed:
      gateways_[event.index].on_probe(event.serial, event.outcome, now_);
      break;
    case Kind::load_asked:
      tell_load(event.index, event.serial);
      break;
    case Kind::load_told: {
      const EngineLoad& load = loads_told_[event.index * workers_.size() + event.serial];
      gateways_[event.index].on_load(event.serial, event.outcome == Outcome::ok ? &load : nullptr, now_);
      break;
    }
    case Kind::engine:
      if (workers_[event.index].schedule == event.serial) run_engine(event.index);
      break;
    case Kind::line:
      serve_line(event.index);
      break;
  }
  return {};
}

/// The next request and its arrival.
Result<void> Cluster::read_traffic() {
  const Result<bool> more = traffic_.next(next_request_);
  if (!more) return std::unexpected(more.error());
  if (!*more) {
    traffic_ended_ = true;
    return {};
  }
  if (next_request_.at < now_.time_since_epoch()) {
    return fail(ErrorCode::invalid,
                fmt::format("request {} of the traffic comes before the one before it", counts_.arrived + 1));
  }
  push(Kind::arrival, Instant(next_request_.at), 0);
  return {};
}

void Cluster::arrive() {
  std::uint32_t index = static_cast<std::uint32_t>(flights_.size());
  if (free_flights_.empty()) {
    flights_.emplace_back();
  } else {
    index = free_flights_.back();
    free_flights_.pop_back();
  }
  Flight& flight = flights_[index];
  std::swap(flight.request, next_request_);
  const TrafficRequest& request = flight.request;
  flight.arrived = now_;
  flight.ttft = flight.waited = Duration(0);
  flight.attempts = 0;
  flight.turned_away = TurnedAway::no;
  flight.cached_tokens = flight.output_tokens = 0;
  flight.gateway = options_.gateways == 1 ? 0 : static_cast<std::uint32_t>(front_.below(options_.gateways));
  flight.worker = kNoSlot;
  flight.left_worker = flight.cut = false;
  ++counts_.arrived;
  tally_.on_arrival(now_);
  ++counts_.in_flight;
  flight.view = {.id = counts_.arrived,
                 .affinity = request.client,
                 .prompt_tokens = static_cast<double>(request.prompt_tokens),
                 .output_tokens_max = 0,
                 .stream = request.stream.value_or(true)};
  if (flight.view.affinity == 0) {
    // Prompts of which nothing is known to be shared are all different.
    const std::vector<std::uint64_t> start = block_chain(request.pieces, kAffinityTokens);
    flight.view.affinity = start.empty() ? mix(counts_.arrived) : start.front();
  }
  SimGateway& gateway = gateways_[flight.gateway];
  gateway.on_request(now_);
  if (const std::optional<Slot> slot = gateway.admit(view_for_choice(flight), now_))
    return start_attempt(index, *slot);
  if (!gateway.may_wait()) return finish(index, RequestEnd::refused);
  wait_in_line(index, kNoSlot);
}

/// Of the prompt only: pieces may go on into the answer, whose length nobody knows. A prompt of which nothing
/// is known to be shared is like no other.
static std::vector<std::uint64_t> prompt_chain(const TrafficRequest& request, std::uint64_t id,
                                               std::uint32_t block_tokens) {
  const PromptPiece whole{mix(id), request.prompt_tokens};
  std::vector<std::uint64_t> chain =
      block_chain(request.pieces.empty() ? std::span(&whole, 1) : std::span(request.pieces), block_tokens);
  chain.resize(std::min<std::size_t>(chain.size(), request.prompt_tokens / block_tokens));
  return chain;
}

/// Blocks as large as the live gateway's.
RequestView Cluster::view_for_choice(const Flight& flight) {
  RequestView view = flight.view;
  if (options_.gateway.policy->uses_prefix) {
    constexpr std::uint32_t kBlockTokens = kPromptBlockBytes / kBytesPerToken;
    prefix_ = prompt_chain(flight.request, flight.view.id, kBlockTokens);
    view.prefix = prefix_;
    view.block_tokens = kBlockTokens;
  }
  return view;
}

void Cluster::start_attempt(std::uint32_t index, Slot slot) {
  Flight& flight = flights_[index];
  flight.worker = slot;
  flight.stage = Stage::trying;
  ++flight.attempts;
  flight.started = now_;
  flight.answering = flight.on_engine = false;
  ++flight.serial;
  ++in_flight_[slot];
  tally_.on_attempt(slot, now_);
  deadlines_.push_back({now_ + options_.first_byte_timeout, index, flight.serial});
  push(Kind::deliver, now_ + options_.network, index, flight.serial);
}

EngineRequest Cluster::engine_request(std::uint32_t index) const {
  const Flight& flight = flights_[index];
  EngineRequest request;
  request.id = std::uint64_t{flight.serial} << 32 | index;
  request.prompt_tokens = flight.request.prompt_tokens;
  request.output_tokens = flight.request.output_tokens;
  request.every_token = false;
  const EngineParams& params = workers_[flight.worker].params;
  if (params.prefix_caching) request.blocks = block_chain(flight.request.pieces, params.block_size);
  return request;
}

/// The request reaches the worker.
void Cluster::deliver(std::uint32_t index) {
  Flight& flight = flights_[index];
  Worker& worker = workers_[flight.worker];
  if (worker.deaths > 0) {
    return push(Kind::lost, now_ + options_.network, index, flight.serial, Outcome::refused);
  }
  if (worker.engine.submit(engine_request(index), now_) != Refusal::none) {
    return push(Kind::lost, now_ + options_.network, index, flight.serial, Outcome::client_error);
  }
  flight.on_engine = true;
  schedule_engine(flight.worker);
}

void Cluster::schedule_engine(Slot slot) {
  Worker& worker = workers_[slot];
  ++worker.schedule;
  const Instant next = worker.engine.next_event();
  if (next != Engine::kNever) push(Kind::engine, next, slot, worker.schedule);
}

void Cluster::run_engine(Slot slot) {
  Worker& worker = workers_[slot];
  engine_events_.clear();
  worker.engine.advance(now_, engine_events_);
  for (const EngineEvent& event : engine_events_) {
    const auto index = static_cast<std::uint32_t>(event.id);
    Flight& flight = flights_[index];
    HENG_ASSERT(is_current(index, static_cast<std::uint32_t>(event.id >> 32)) && flight.on_engine);
    flight.cached_tokens = event.cached_tokens;
    flight.output_tokens = event.tokens;
    // Without stream the first byte comes with the last.
    const bool first = flight.view.stream ? event.tokens <= 1 : event.finish != FinishReason::none;
    if (first) push(Kind::first, event.at + options_.network, index, flight.serial);
    if (event.finish == FinishReason::none) continue;
    flight.on_engine = false;
    flight.cut = event.finish == FinishReason::length;
    push(Kind::end, event.at + options_.network, index, flight.serial);
  }
  schedule_engine(slot);
}

void Cluster::on_first(std::uint32_t index) {
  Flight& flight = flights_[index];
  flight.answering = true;
  flight.ttft = now_ - flight.arrived;
  gateways_[flight.gateway].first_byte(flight.worker, flight.view, now_ - flight.started, now_);
}

void Cluster::on_answer_end(std::uint32_t index) {
  end_attempt(index, Outcome::ok);
  finish(index, RequestEnd::completed);
}

/// The attempt has failed: another one, or the end.
void Cluster::on_lost(std::uint32_t index, Outcome outcome) {
  Flight& flight = flights_[index];
  leave_engine(flight, index);
  SimGateway& gateway = gateways_[flight.gateway];
  const Slot slot = flight.worker;
  const bool again = !flight.answering && outcome != Outcome::client_error &&
                     gateway.may_try_again(slot, flight.attempts, outcome, now_);
  if (again) return try_again(index, outcome);
  end_attempt(index, outcome);
  finish(index, outcome == Outcome::client_error ? RequestEnd::refused : RequestEnd::failed);
}

/// On another worker; if those are full, it is first in the line.
void Cluster::try_again(std::uint32_t index, Outcome outcome) {
  Flight& flight = flights_[index];
  const Slot slot = flight.worker;
  end_attempt(index, outcome);
  const auto next = gateways_[flight.gateway].reserve(view_for_choice(flight), now_, slot);
  if (next) return start_attempt(index, *next);
  wait_in_line(index, slot);
}

void Cluster::leave_engine(Flight& flight, std::uint32_t index) {
  if (!std::exchange(flight.on_engine, false)) return;
  workers_[flight.worker].engine.cancel(std::uint64_t{flight.serial} << 32 | index, now_);
  schedule_engine(flight.worker);
}

/// Requests that wait for a worker in vain go to another: once each, outside of the retry budget.
void Cluster::leave_worker(std::uint32_t gateway, Slot slot) {
  for (std::uint32_t index = 0; index < flights_.size(); ++index) {
    Flight& flight = flights_[index];
    if (flight.stage != Stage::trying || flight.gateway != gateway || flight.worker != slot) continue;
    if (flight.answering || flight.left_worker) continue;
    const auto outcome = gateways_[gateway].reason_to_leave(slot, flight.view, flight.started, now_);
    if (!outcome) continue;
    flight.left_worker = true;
    leave_engine(flight, index);
    try_again(index, *outcome);
  }
}

// --- those who wait ---

void Cluster::wait_in_line(std::uint32_t index, Slot avoid) {
  Flight& flight = flights_[index];
  flight.stage = Stage::waiting;
  flight.waits_since = now_;
  if (const auto shed = gateways_[flight.gateway].wait(index, avoid, now_))
    turn_away(*shed, TurnedAway::queue_full);
}

void Cluster::serve_line(std::uint32_t gateway) {
  SimGateway& line = gateways_[gateway];
  line.begin_service();
  while (const auto late = line.next_late(now_)) turn_away(*late, TurnedAway::queue_timeout);
  const auto view_of = [&](std::uint32_t index) { return view_for_choice(flights_[index]); };
  while (const auto turn = line.next_turn(view_of, now_)) {
    Flight& flight = flights_[turn->request];
    flight.waited += now_ - flight.waits_since;
    start_attempt(turn->request, turn->slot);
  }
}

void Cluster::turn_away(std::uint32_t index, TurnedAway why) {
  Flight& flight = flights_[index];
  flight.waited += now_ - flight.waits_since;
  flight.turned_away = why;
  finish(index, RequestEnd::refused);
}

// --- ends ---

void Cluster::end_attempt(std::uint32_t index, Outcome outcome) {
  Flight& flight = flights_[index];
  AttemptEvent event;
  event.kind = AttemptEvent::Kind::ended;
  event.outcome = outcome;
  event.worker = flight.worker;
  event.request = flight.view.id;
  event.elapsed = now_ - flight.started;
  event.time_to_first_byte = flight.answering ? flight.ttft - (flight.started - flight.arrived) : Duration(0);
  event.prompt_tokens = flight.view.prompt_tokens;
  if (outcome == Outcome::ok) event.cached_tokens = flight.cached_tokens;
  event.output_tokens = outcome == Outcome::ok ? flight.output_tokens : 0;
  --in_flight_[flight.worker];
  gateways_[flight.gateway].end(event, flight.view, flight.answering, now_);
}

void Cluster::finish(std::uint32_t index, RequestEnd end) {
  Flight& flight = flights_[index];
  --counts_.in_flight;
  ++(end == RequestEnd::completed ? counts_.completed
     : end == RequestEnd::refused ? counts_.refused
                                  : counts_.failed);
  const RequestRecord record{.id = flight.view.id,
                             .end = end,
                             .turned_away = flight.turned_away,
                             .arrived = flight.arrived,
                             .stream = flight.view.stream,
                             .queued = flight.waited,
                             .ttft = flight.ttft,
                             .duration = now_ - flight.arrived,
                             .prompt_tokens = flight.request.prompt_tokens,
                             .cached_tokens = flight.cached_tokens,
                             .output_tokens = flight.output_tokens,
                             .attempts = flight.attempts,
                             .worker = flight.worker,
                             .cut = flight.cut};
  tally_.on_end(record);
  if (observer_) observer_(record);
  flight.stage = Stage::free;
  free_flights_.push_back(index);
}

// --- faults ---

void Cluster::join(Slot slot) {
  const SimWorker& worker = options_.workers[slot];
  workers_[slot].joined = true;
  for (SimGateway& gateway : gateways_) {
    gateway.add_worker({.identity = hash_bytes(fmt::format("http://w{}:8000", slot + 1)),
                        .weight = worker.weight,
                        .capacity = worker.capacity,
                        .max_in_flight = worker.max_in_flight},
                       now_);
  }
}

void Cluster::begin_fault(const SimFault& fault) {
  Worker& worker = workers_[fault.worker];
  switch (fault.kind) {
    case FaultKind::die:
      if (worker.deaths++ == 0) {
        worker.engine = Engine(worker.params);
        break_streams(fault.worker, false, Outcome::reset);
      }
      break;
    case FaultKind::hang:
      if (worker.hangs++ == 0) worker.hung_since = now_;
      break;
    case FaultKind::slow:
      worker.slowness *= fault.factor;
      break;
    case FaultKind::mute:
      ++worker.mutes;
      break;
  }
  set_speed(fault.worker);
}

void Cluster::end_fault(const SimFault& fault) {
  Worker& worker = workers_[fault.worker];
  switch (fault.kind) {
    case FaultKind::die:
      --worker.deaths;
      break;
    case FaultKind::hang:
      --worker.hangs;
      break;
    case FaultKind::slow:
      worker.slowness /= fault.factor;
      break;
    case FaultKind::mute:
      --worker.mutes;
      break;
  }
  set_speed(fault.worker);
}

void Cluster::set_speed(Slot slot) {
  Worker& worker = workers_[slot];
  const double slowness = worker.slowness * (worker.hangs > 0 ? kHungSlowness : 1);
  worker.engine.set_speed(worker.params.speed / slowness, now_);
  schedule_engine(slot);
}

/// All attempts on the worker, or those past their first byte, learn that their connection is gone.
void Cluster::break_streams(Slot slot, bool answering_only, Outcome outcome) {
  for (std::uint32_t index = 0; index < flights_.size(); ++index) {
    Flight& flight = flights_[index];
    if (flight.stage != Stage::trying || flight.worker != slot || !flight.on_engine) continue;
    if (answering_only && !flight.answering) continue;
    if (outcome == Outcome::reset) flight.on_engine = false;  // with the engine
    push(Kind::lost, now_ + options_.network, index, flight.serial, outcome);
  }
}

// --- time ---

void Cluster::tick() {
  for (Slot slot = 0; slot < workers_.size(); ++slot) {
    flowing_[slot] = workers_[slot].deaths == 0 && workers_[slot].hangs == 0;
  }
  for (std::uint32_t gateway = 0; gateway < gateways_.size(); ++gateway) {
    gateways_[gateway].tick(now_, flowing_, due_);
    serve_line(gateway);
    for (const Slot slot : due_.silent) leave_worker(gateway, slot);
    for (const Slot slot : due_.loads) push(Kind::load_asked, now_ + options_.network, gateway, slot);
    for (const Slot slot : due_.probes) {
      const Worker& worker = workers_[slot];
      const bool silent = worker.hangs > 0 || worker.mutes > 0;
      const Outcome outcome = worker.deaths > 0 ? Outcome::refused : silent ? Outcome::timeout : Outcome::ok;
      const Duration takes =
          outcome == Outcome::timeout ? options_.gateway.health.timeout : 2 * options_.network;
      push(Kind::probed, now_ + takes, gateway, slot, outcome);
    }
  }
  check_deadlines();
  if (now_ >= next_sample_) sample();
  push(Kind::tick, now_ + kTick, 0);
}

/// What the engine's metrics page says when the question reaches it.
void Cluster::tell_load(std::uint32_t gateway, Slot slot) {
  const Worker& worker = workers_[slot];
  const Duration timeout = options_.gateway.engine_load_timeout;
  if (worker.deaths > 0) {
    return push(Kind::load_told, now_ + options_.network, gateway, slot, Outcome::refused);
  }
  if (worker.hangs > 0 || worker.mutes > 0 || 2 * options_.network > timeout) {
    const Instant given_up = std::max(now_, now_ - options_.network + timeout);
    return push(Kind::load_told, given_up, gateway, slot, Outcome::timeout);
  }
  run_engine(slot);  // it may have passed over steps without events
  const Engine& engine = worker.engine;
  loads_told_[gateway * workers_.size() + slot] = {.running = static_cast<float>(engine.running()),
                                                   .waiting = static_cast<float>(engine.waiting()),
                                                   .kv_used = static_cast<float>(engine.kv_usage())};
  push(Kind::load_told, now_ + options_.network, gateway, slot);
}

void Cluster::check_deadlines() {
  while (!deadlines_.empty()) {
    const auto [at, index, serial] = deadlines_.front();
    const bool waiting = is_current(index, serial) && !flights_[index].answering;
    if (waiting && at > now_) break;
    deadlines_.pop_front();
    if (waiting) on_lost(index, Outcome::timeout);
  }
  for (Slot slot = 0; slot < workers_.size(); ++slot) {
    const Worker& worker = workers_[slot];
    if (worker.hangs > 0 && now_ - worker.hung_since >= options_.idle_timeout)
      break_streams(slot, true, Outcome::timeout);
  }
}

void Cluster::sample() {
  next_sample_ = now_ + kSample;
  for (Slot slot = 0; slot < workers_.size(); ++slot) waiting_[slot] = workers_[slot].engine.waiting();
  std::uint64_t queued = 0;
  for (const SimGateway& gateway : gateways_) queued += gateway.waiting();
  tally_.sample(now_, in_flight_, waiting_, queued, gateways_.front().pool().policy().weights());
}

void Cluster::check_books() const {
  HENG_ASSERT(counts_.arrived == counts_.completed + counts_.refused + counts_.failed + counts_.in_flight);
  std::vector<std::uint32_t> on_worker(workers_.size(), 0), on_engine(workers_.size(), 0);
  std::uint64_t in_flight = 0, waiting = 0, queued = 0;
  for (const Flight& flight : flights_) {
    if (flight.stage == Stage::free) continue;
    ++in_flight;
    waiting += flight.stage == Stage::waiting;
    if (flight.stage == Stage::waiting) continue;
    ++on_worker[flight.worker];
    on_engine[flight.worker] += flight.on_engine;
  }
  for (const SimGateway& gateway : gateways_) queued += gateway.waiting();
  HENG_ASSERT(in_flight == counts_.in_flight && waiting == queued);
  for (Slot slot = 0; slot < workers_.size(); ++slot) {
    std::uint32_t reserved = 0;
    for (const SimGateway& gateway : gateways_) {
      if (slot < gateway.pool().slots()) reserved += gateway.pool().in_flight(slot);
    }
    HENG_ASSERT(reserved == on_worker[slot] && reserved == in_flight_[slot]);
    const Engine& engine = workers_[slot].engine;
    HENG_ASSERT(engine.running() + engine.waiting() == on_engine[slot]);
    HENG_ASSERT(engine.running() <= engine.params().max_num_seqs && engine.kv_usage() <= 1);
    HENG_ASSERT(workers_[slot].joined || on_worker[slot] == 0);
  }
}

}  // namespace heng
