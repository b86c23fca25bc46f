// Keeps a pool in step with configuration and health.
#include "gateway/model_pool.h"

#include <algorithm>
#include <cmath>

#include "base/hash.h"
#include "host/eligibility.h"
#include "host/limit_options.h"

namespace heng {

namespace {

constexpr std::size_t kHistoryMax = 4096;
constexpr double kSampleEverySeconds = 1;  // or at once when the policy moves its weights
constexpr double kTokenRatioStep = 0.05;   // how far one request moves the tokens-per-byte estimate

}  // namespace

MemberMetrics::MemberMetrics(MetricRegistry& registry, std::string model, std::string worker)
    : ttft(registry.histogram("heng_ttft_seconds",
                              "Time from choosing a worker to its first byte, of a stream to its first event",
                              ttft_buckets(), {{"model", model}, {"worker", worker}})),
      inter_token(registry.histogram("heng_inter_token_seconds",
                                     "Time between two reads of a streamed answer", inter_token_buckets(),
                                     {{"model", model}, {"worker", worker}})),
      prompt_tokens(registry.counter("heng_tokens_total", "Tokens as workers report them",
                                     {{"model", model}, {"worker", worker}, {"type", "prompt"}})),
      output_tokens(registry.counter("heng_tokens_total", "Tokens as workers report them",
                                     {{"model", model}, {"worker", worker}, {"type", "output"}})),
      cached_tokens(registry.counter("heng_cache_hit_tokens_total", "Prompt tokens that workers had cached",
                                     {{"model", model}, {"worker", worker}})),
      weight(registry.gauge("heng_worker_weight", "Share of the pool's requests the worker is meant to get",
                            {{"model", model}, {"worker", worker}})),
      in_flight(registry.gauge("heng_worker_inflight", "Requests under way on the worker",
                               {{"model", model}, {"worker", worker}})),
      in_flight_limit(registry.gauge("heng_worker_inflight_limit",
                                     "Requests the worker may have at a time; 0 = no limit",
                                     {{"model", model}, {"worker", worker}})),
      health(registry.gauge("heng_worker_health", "1 if the worker is given requests, else 0",
                            {{"model", model}, {"worker", worker}})),
      drained(registry.gauge("heng_worker_drained", "1 if it was drained at run time, else 0",
                             {{"model", model}, {"worker", worker}})),
      unasked(registry.counter("heng_worker_unasked_total",
                               "How often it sent bytes that belong to no request",
                               {{"model", model}, {"worker", worker}})),
      registry_(registry),
      model_(std::move(model)),
      worker_(std::move(worker)) {
  for (std::size_t state = 0; state < states.size(); ++state) {
    states[state] = &registry.gauge("heng_worker_state", "1 for the state of health the worker is in",
                                    {{"model", model_},
                                     {"worker", worker_},
                                     {"state", std::string(to_string(static_cast<HealthState>(state)))}});
  }
  for (std::size_t fault = 0; fault < kFaults; ++fault) {
    faults[fault] = &registry.counter("heng_worker_faults_total",
                                      "Faults of the worker, in all its pools; never those of clients",
                                      {{"model", model_},
                                       {"worker", worker_},
                                       {"cause", std::string(to_string(static_cast<Fault>(fault)))}});
  }
}

void MemberMetrics::show(const WorkerHealth& from) {
  for (std::size_t state = 0; state < states.size(); ++state)
    states[state]->set(from.state() == static_cast<HealthState>(state) ? 1 : 0);
  for (std::size_t fault = 0; fault < kFaults; ++fault)
    faults[fault]->value = static_cast<double>(from.faults(static_cast<Fault>(fault)));
}

void MemberMetrics::count_answer(int status) {
  for (const auto& [known, counter] : answers_) {
    if (known == status) return counter->add();
  }
  Counter& counter =
      registry_.counter("heng_requests_total", "Answers by model, worker and status code",
                        {{"model", model_}, {"worker", worker_}, {"code", std::to_string(status)}});
  answers_.emplace_back(status, &counter);
  counter.add();
}

ModelPool::ModelPool(Loop& loop, std::string model, const PoolConfig& config, std::uint64_t seed,
                     MetricRegistry& registry, Recorder* recorder)
    : loop_(loop),
      model_(std::move(model)),
      config_(config),
      registry_(registry),
      pool_(config.policy->make(config.policy_options), Rng(seed).split(model_)),
      line_(pool_, model_, registry),
      duration_(registry.histogram("heng_request_duration_seconds",
                                   "Time from the whole request to the end of its answer", duration_buckets(),
                                   {{"model", model_}})),
      retries_(
          registry.counter("heng_retries_total", "Second attempts on another worker", {{"model", model_}})),
      hedges_(registry.counter("heng_hedges_total", "Second attempts beside a first that was slow to answer",
                               {{"model", model_}})),
      in_flight_limit_(registry.gauge("heng_pool_inflight_limit",
                                      "Requests all workers may have at a time; 0 = no limit",
                                      {{"model", model_}})) {
  if (recorder == nullptr) return;
  recording_ = recorder->record_pool(model_, config_, Rng(seed).split(model_));
  pool_.observe(recording_.get());
}

ModelPool::~ModelPool() {
  for (Slot slot = 0; slot < members_.size(); ++slot) {
    if (pool_.is_member(slot)) members_[slot].worker->unwatch(*this);
  }
}

namespace {

const WorkerConfig& wanted_of(const PoolConfig& config, const Worker& worker) {
  const auto own = std::ranges::find(config.workers, worker.config().url, &WorkerConfig::url);
  return own == config.workers.end() ? worker.config() : *own;
}

}  // namespace

void ModelPool::drop_others(const PoolConfig& config, std::span<const std::shared_ptr<Worker>> workers) {
  for (Slot slot = 0; slot < members_.size(); ++slot) {
    if (!pool_.is_member(slot)) continue;
    const Member& member = members_[slot];
    const bool stays = std::ranges::find(workers, member.worker) != workers.end();
    if (!stays || wanted_of(config, *member.worker).name != member.name) drop_series(slot);
    if (stays) continue;
    pool_.remove(slot);
    members_[slot].worker->unwatch(*this);
    members_[slot].limit.reset();
  }
}

void ModelPool::set_members(const PoolConfig& config, std::vector<std::shared_ptr<Worker>> workers) {
  config_ = config;
  drop_others(config, workers);  // all series that go, before any that come: names may change hands
  for (const auto& worker : workers) {
    const WorkerConfig& wanted = wanted_of(config, *worker);
    Slot slot = 0;
    while (slot < members_.size() && !(pool_.is_member(slot) && members_[slot].worker == worker)) ++slot;
    if (slot == members_.size()) slot = join(worker, wanted);
    Member& member = members_[slot];
    if (recording_ && member.name != wanted.name) recording_->name_worker(slot, wanted.name);
    member.name = wanted.name;
    member.model = wanted.model;
    member.origin = wanted.origin;
    if (!member.metrics) member.metrics = std::make_unique<MemberMetrics>(registry_, model_, wanted.name);
    member.max_in_flight = wanted.max_in_flight != 0 ? wanted.max_in_flight : config.worker_max_in_flight;
    pool_.set_weight(slot, wanted.weight, wanted.capacity);
    pool_.set_drained(slot, wanted.drained);
  }
  on_standing_changed();
}

void ModelPool::on_standing_changed() {
  standings_.assign(members_.size(), Standing::dead);
  for (Slot slot = 0; slot < members_.size(); ++slot) {
    if (pool_.is_member(slot)) standings_[slot] = members_[slot].worker->health().standing();
  }
  set_eligibility(pool_, standings_, max_ejected_share_);
  serve_line_later();
}

void ModelPool::on_engine_load(const Worker& worker) {
  for (Slot slot = 0; slot < members_.size(); ++slot) {
    if (pool_.is_member(slot) && members_[slot].worker.get() == &worker)
      pool_.set_reported(slot, worker.engine_load());
  }
}

Slot ModelPool::join(const std::shared_ptr<Worker>& worker, const WorkerConfig& wanted) {
  const Slot slot = pool_.add(worker->identity(), wanted.weight, wanted.capacity);
  if (slot >= members_.size()) members_.resize(slot + 1);
  members_[slot] = {};
  members_[slot].worker = worker;
  worker->watch(*this);
  if (worker->engine_load().known()) pool_.set_reported(slot, worker->engine_load());
  for (WeightSample& sample : history_) {  // was another worker's
    if (slot < sample.weights.size()) sample.weights[slot] = std::nan("");
    if (slot < sample.assigned.size()) sample.assigned[slot] = std::nan("");
  }
  return slot;
}

void ModelPool::drop_series(Slot slot) {
  registry_.remove({{"model", model_}, {"worker", members_[slot].name}});
  members_[slot].metrics.reset();
}

void ModelPool::count_elsewhere(std::span<const std::shared_ptr<ModelPool>> replaced) {
  elsewhere_.assign(members_.size(), 0);
  std::uint32_t on_others = 0;
  for (const auto& old : replaced) {
    if (old->model_ != model_) continue;
    for (Slot slot = 0; slot < old->members_.size(); ++slot) {
      // Its own only: what it had to count of pools before it is counted with those.
      const std::uint32_t own = old->pool_.in_flight(slot) - old->pool_.elsewhere(slot);
      if (own == 0) continue;
      const Slot here = slot_of(old->members_[slot].worker->identity());
      (here == kNoSlot ? on_others : elsewhere_[here]) += own;
    }
  }
  for (Slot slot = 0; slot < members_.size(); ++slot) {
    if (pool_.is_member(slot)) pool_.set_elsewhere(slot, elsewhere_[slot]);
  }
  pool_.set_elsewhere(kNoSlot, on_others);
}

void ModelPool::set_limits(const Config& config) {
  const AdaptiveLimitOptions options = limit_options(config.adaptive_limit);
  for (Slot slot = 0; slot < members_.size(); ++slot) {
    if (!pool_.is_member(slot)) continue;
    Member& member = members_[slot];
    if (member.max_in_flight != kAdaptive) {
      member.limit.reset();
    } else if (!member.limit) {
      member.limit = std::make_unique<AdaptiveLimit>(options, loop_.now());
    } else {
      member.limit->set_options(options);
    }
    pool_.set_limit(slot, member.limit ? member.limit->limit() : member.max_in_flight);
  }
  pool_.set_pool_limit(config_.max_in_flight);
  line_.set_options(config.queue);
  serve_line_later();
}

void ModelPool::serve_line_later() {
  if (line_.empty() || line_due_) return;
  line_due_ = true;
  loop_.defer([pool = weak_from_this()] {
    if (const auto self = pool.lock()) {
      self->line_due_ = false;
      self->line_.serve(self->loop_.now());
    }
  });
}

void ModelPool::learn_first_byte(Slot slot, double prompt_tokens, Duration elapsed) {
  Member& member = members_[slot];
  if (!member.limit) return;
  member.limit->on_first_byte(prompt_tokens, elapsed, pool_.in_flight(slot), loop_.now());
  pool_.set_limit(slot, member.limit->limit());
}

void ModelPool::learn_whole_answer(Slot slot, double output_tokens, Duration elapsed) {
  Member& member = members_[slot];
  if (!member.limit) return;
  member.limit->on_whole_answer(output_tokens, elapsed, pool_.in_flight(slot), loop_.now());
  pool_.set_limit(slot, member.limit->limit());
}

void ModelPool::learn_refusal(Slot slot) {
  Member& member = members_[slot];
  if (!member.limit) return;
  member.limit->on_refused(pool_.in_flight(slot), loop_.now());
  pool_.set_limit(slot, member.limit->limit());
}

double ModelPool::expected_output(std::uint32_t max) const {
  return max == 0 ? output_tokens_ : std::min<double>(max, output_tokens_);
}

Slot ModelPool::slot_of(std::uint64_t worker_identity) const {
  for (Slot slot = 0; slot < members_.size(); ++slot) {
    if (pool_.is_member(slot) && members_[slot].worker->identity() == worker_identity) return slot;
  }
  return kNoSlot;
}

void ModelPool::learn_tokens(std::uint64_t bytes, std::uint32_t tokens) {
  if (bytes == 0 || tokens == 0) return;
  const double ratio = std::clamp(static_cast<double>(tokens) / static_cast<double>(bytes), 0.01, 2.0);
  tokens_per_byte_ += kTokenRatioStep * (ratio - tokens_per_byte_);
}

void ModelPool::tick(Instant now, double time_s) {
  for (Slot slot = 0; slot < members_.size(); ++slot) {
    if (!pool_.is_member(slot)) {
      if (pool_.in_flight(slot) == 0) members_[slot].worker.reset();  // with its connections
      continue;
    }
    pool_.set_ramp(slot, members_[slot].worker->health().ramp(now));
  }
  pool_.tick(now);
  sample_weights(time_s);
  line_.serve(now);
}

void ModelPool::sample_weights(double time_s) {
  const std::span<const double> weights = pool_.policy().weights();
  const bool moved = !history_.empty() && !std::ranges::equal(weights, history_.back().weights);
  if (!history_.empty() && !moved && time_s - history_.back().time_s < kSampleEverySeconds) return;
  WeightSample sample{time_s, {weights.begin(), weights.end()}, {}};
  double total = 0;
  for (const Member& member : members_) total += static_cast<double>(member.assigned);
  for (Member& member : members_) {
    sample.assigned.push_back(total == 0 ? 0 : static_cast<double>(member.assigned) / total);
    member.assigned = 0;
  }
  history_.push_back(std::move(sample));
  if (history_.size() > kHistoryMax) history_.pop_front();
}

void ModelPool::expose_gauges() {
  line_.expose_gauges();
  in_flight_limit_.set(pool_.pool_limit());
  const std::span<const double> shares = pool_.policy().weights();
  const PoolView view = pool_.view();
  double total = 0;
  for (const Slot slot : view.eligible) total += view.weight[slot];
  for (Slot slot = 0; slot < members_.size(); ++slot) {
    if (!pool_.is_member(slot)) continue;
    MemberMetrics& metrics = *members_[slot].metrics;
    const bool eligible = std::ranges::binary_search(view.eligible, slot);
    const double own_share = eligible && total > 0 ? view.weight[slot] / total : 0;
    metrics.weight.set(shares.empty() ? own_share : shares[slot]);
    metrics.in_flight.set(pool_.in_flight(slot));
    metrics.in_flight_limit.set(pool_.limit(slot));
    metrics.health.set(eligible ? 1 : 0);
    metrics.show(members_[slot].worker->health());
    metrics.unasked.value = static_cast<double>(members_[slot].worker->unasked());
    metrics.drained.set(pool_.is_drained(slot) ? 1 : 0);
  }
}

}  // namespace heng
