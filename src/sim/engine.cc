// Implementation of the engine model: composing steps, timing them, and handing out their tokens.
#include "sim/engine.h"

#include <algorithm>
#include <cmath>

namespace heng {

namespace {

constexpr std::uint32_t kPlannedMax = 4096;  // steps: bounds the memory of a plan

}  // namespace

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::none:
      return "none";
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
  }
  return "?";
}

std::string_view to_string(Refusal refusal) {
  switch (refusal) {
    case Refusal::none:
      return "none";
    case Refusal::empty_prompt:
      return "the prompt is empty";
    case Refusal::prompt_too_long:
      return "the prompt is longer than the context";
    case Refusal::duplicate_id:
      return "a request of this id has not ended";
  }
  return "?";
}

Result<void> check(const EngineParams& params) {
  const auto bad = [](std::string message) { return fail(ErrorCode::invalid, std::move(message)); };
  if (params.t_base < 0ns || params.t_prefill < 0ns || params.t_decode_seq < 0ns || !(params.t_kv_ns >= 0) ||
      !(params.t_attention_ns >= 0) || !(params.kv_mixed >= 0)) {
    return bad("the engine's times must not be negative");
  }
  if (!(params.overlap >= 0 && params.overlap <= 1)) return bad("overlap must be from 0 to 1");
  if (!(params.speed > 0) || !std::isfinite(params.speed)) return bad("speed must be greater than 0");
  if (params.max_num_seqs == 0) return bad("max_num_seqs must be at least 1");
  if (params.max_num_batched_tokens < params.max_num_seqs) {
    return bad("max_num_batched_tokens must be at least max_num_seqs, or some sequences would never run");
  }
  if (params.block_size == 0 || params.block_size > 4096) return bad("block_size must be from 1 to 4096");
  if (params.kv_blocks == 0 || params.kv_blocks > 1u << 28) return bad("kv_blocks must be from 1 to 2^28");
  if (params.max_model_len < 2 || params.max_model_len > 1u << 30) {
    return bad("max_model_len must be from 2 to 2^30");
  }
  if (std::uint64_t{params.kv_blocks} * params.block_size < 2)
    return bad("the KV cache must hold two tokens");
  return {};
}

Duration step_time(const EngineParams& params, const StepWork& work) {
  const auto ns = [](Duration span) { return static_cast<double>(span.count()); };
  const auto decoding = static_cast<double>(work.decode_sequences);
  const double read = ns(params.t_base) + ns(params.t_decode_seq) * decoding;
  const double multiply =
      ns(params.t_prefill) * (static_cast<double>(work.prefill_tokens) + params.overlap * decoding);
  const double total = read + multiply - params.overlap * std::min(read, multiply) +
                       params.t_kv_ns * (work.prefill_tokens > 0 ? params.kv_mixed : 1) *
                           static_cast<double>(work.kv_tokens_read) +
                       params.t_attention_ns * static_cast<double>(work.attention_pairs);
  return Duration(std::max<Duration::rep>(1, std::llround(total / params.speed)));
}

Engine::Engine(const EngineParams& params)
    : params_(params),
      context_tokens_(static_cast<std::uint32_t>(std::min<std::uint64_t>(
          params.max_model_len, std::uint64_t{params.kv_blocks} * params.block_size))),
      cache_(params.kv_blocks) {
  HENG_ASSERT(check(params).has_value());
  running_.reserve(params.max_num_seqs);
}

void Engine::note(Instant now) {
  HENG_ASSERT(now >= latest_);
  latest_ = now;
}

Refusal Engine::submit(EngineRequest request, Instant now) {
  note(now);
  ++counters_.submitted;
  Refusal refusal = Refusal::none;
  if (request.prompt_tokens == 0) {
    refusal = Refusal::empty_prompt;
  } else if (std::uint64_t{request.prompt_tokens} + (request.output_tokens > 0 ? 1 : 0) > context_tokens_) {
    refusal = Refusal::prompt_too_long;
  } else if (slot_of_.contains(request.id)) {
    refusal = Refusal::duplicate_id;
  }
  if (refusal != Refusal::none) {
    ++counters_.refused;
    return refusal;
  }
  if (request.output_tokens > context_tokens_ - request.prompt_tokens) {
    request.output_tokens = context_tokens_ - request.prompt_tokens;
    request.reason = FinishReason::length;
  }
  Slot slot = static_cast<Slot>(sequences_.size());
  if (unused_slots_.empty()) {
    sequences_.emplace_back();
  } else {
    slot = unused_slots_.back();
    unused_slots_.pop_back();
  }
  slot_of_.emplace(request.id, slot);
  Sequence& sequence = sequences_[slot];
  sequence.request = std::move(request);
  sequence.submitted = now;
  sequence.published = sequence.generated = sequence.cached_tokens = 0;
  sequence.admitted_before = false;
  sequence.waiting = true;
  // Steps that begin now or later may take it, unless others are before it or all places are taken.
  if (waiting_.empty() && running_.size() < params_.max_num_seqs && !plan_.empty()) {
    const auto begun = static_cast<std::size_t>(std::ranges::lower_bound(plan_, now) - plan_.begin());
    plan_.resize(std::min(std::max(plan_at_, begun) + 1, plan_.size()));
  }
  waiting_.push_back(slot);
  return Refusal::none;
}

bool Engine::cancel(std::uint64_t id, Instant now) {
  note(now);
  const auto found = slot_of_.find(id);
  if (found == slot_of_.end()) return false;
  const Slot slot = found->second;
  pass_planned(now);
  plan_.clear();
  if (sequences_[slot].waiting) {
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), slot));
    head_needs_ = 0;
  } else {
    running_.erase(std::find_if(running_.begin(), running_.end(),
                                [slot](const Active& active) { return active.slot == slot; }));
  }
  ++counters_.canceled;
  close(slot);
  return true;
}

void Engine::set_speed(double speed, Instant now) {
  HENG_ASSERT(speed > 0 && std::isfinite(speed));
  note(now);
  pass_planned(now);
  plan_.clear();
  if (in_step_ && step_end_ > now) {
    const double rest =
        static_cast<double>((step_end_ - std::max(now, step_start_)).count()) * params_.speed / speed;
    step_end_ = std::max(now, step_start_) + Duration(std::max<Duration::rep>(1, std::llround(rest)));
  }
  params_.speed = speed;
}

Instant Engine::next_event() const { return std::max(latest_, next_boundary()); }

/// When the step under way ends or the next one begins.
Instant Engine::next_boundary() const {
  if (in_step_ && !plan_.empty()) return plan_.back();
  if (in_step_ || !running_.empty()) return step_end_;
  if (waiting_.empty()) return kNever;
  return std::max(step_end_, sequences_[waiting_.front()].submitted);
}

void Engine::advance(Instant now, std::vector<EngineEvent>& events) {
  note(now);
  for (pass_planned(now); next_boundary() <= now && next_boundary() != kNever; pass_planned(now)) {
    const Instant next = next_boundary();
    if (in_step_) {
      end_step(events);
    } else {
      begin_step(next);
    }
  }
}

void Engine::begin_step(Instant start) {
  std::uint32_t budget = params_.max_num_batched_tokens;
  StepWork work;
  const bool enough = schedule_running(budget, work);
  if (enough) admit_waiting(start, budget, work);
  // The oldest sequence can take every block from the others, and one sequence always fits: work never
  // stalls.
  HENG_ASSERT(budget < params_.max_num_batched_tokens);
  in_step_ = true;
  step_start_ = start;
  step_end_ = start + step_time(params_, work);
  ++counters_.steps;
  const bool all_wait = waiting_.empty() || running_.size() == params_.max_num_seqs || budget == 0 ||
                        cache_.free() < head_needs_;
  if (enough && all_wait && work.prefill_tokens == 0) plan_steps(work);
}

/// Between two arrivals or completions all steps decode the same sequences, each reading one token more. Only
/// their times are computed one by one (rounded to whole nanoseconds as if they were run one by one).
void Engine::plan_steps(StepWork work) {
  std::uint32_t steps = equal_steps();
  while (steps > 1 && blocks_for(steps) > cache_.free()) steps /= 2;
  if (steps < 2) return;
  plan_.assign(1, step_end_);
  plan_at_ = 0;
  for (std::uint32_t i = 1; i < steps; ++i) {
    work.kv_tokens_read += work.decode_sequences;
    plan_.push_back(plan_.back() + step_time(params_, work));
  }
}

/// Steps until a running sequence ends, that of this step included; 1 if each step must be looked at.
std::uint32_t Engine::equal_steps() const {
  std::uint32_t steps = kPlannedMax;
  for (const Active& active : running_) {
    if (active.every_token || active.scheduled != 1) return 1;
    steps = std::min(steps, active.end - active.known);
  }
  return steps;
}

/// Blocks that so many steps need beyond those that the running sequences have.
std::uint64_t Engine::blocks_for(std::uint32_t steps) const {
  std::uint64_t blocks = 0;
  for (const Active& active : running_) {
    const std::uint32_t after = active.computed + steps;
    if (after > active.room) blocks += (after - active.room + params_.block_size - 1) / params_.block_size;
  }
  return blocks;
}

/// Makes the step that is under way at `now` the current one, or the last of the plan.
void Engine::pass_planned(Instant now) {
  if (!in_step_ || plan_.empty()) return;
  const auto under_way =
      std::ranges::upper_bound(plan_.begin() + static_cast<std::ptrdiff_t>(plan_at_), plan_.end(), now);
  const auto target = std::min(static_cast<std::size_t>(under_way - plan_.begin()), plan_.size() - 1);
  if (target > plan_at_) {
    pass_steps(static_cast<std::uint32_t>(target - plan_at_));
    counters_.busy += plan_[target - 1] - step_start_;
    step_start_ = plan_[target - 1];
    step_end_ = plan_[target];
    plan_at_ = target;
  }
  if (plan_at_ + 1 == plan_.size()) plan_.clear();
}

/// The ends of `count` steps and the beginnings of those after them, with their blocks in the order in which
/// single steps would take and publish them.
void Engine::pass_steps(std::uint32_t count) {
  block_work_.clear();
  for (std::uint32_t i = 0; i < running_.size(); ++i) {
    const Active& active = running_[i];
    const auto note_from = [&](std::uint32_t from) {
      for (std::uint64_t step = from - active.computed; step <= count; step += params_.block_size)
        block_work_.push_back(step << 32 | i);
    };
    note_from(active.room);
    if (active.publish_at != kNoMore) note_from(active.publish_at - 1);
  }
  std::ranges::sort(block_work_);
  for (const std::uint64_t work : block_work_) {
    Active& active = running_[static_cast<std::uint32_t>(work)];
    const std::uint32_t after = active.computed + static_cast<std::uint32_t>(work >> 32) + 1;
    const bool made = make_room(active, after);
    HENG_ASSERT(made);
    if (after >= active.publish_at) publish(active, after);
  }
  for (Active& active : running_) active.computed += count, active.known += count;
  counters_.generation_tokens += std::uint64_t{count} * running_.size();
  counters_.steps += count;
}

/// False when something had to be preempted.
bool Engine::schedule_running(std::uint32_t& budget, StepWork& work) {
  bool enough = true;
  for (std::size_t i = 0; i < running_.size() && budget > 0; ++i) {
    Active& active = running_[i];
    const std::uint32_t tokens = std::min(active.known - active.computed, budget);
    while (!make_room(active, active.computed + tokens)) {
      enough = false;
      const bool itself = i + 1 == running_.size();
      preempt_last();
      if (itself) return false;
    }
    schedule(active, tokens, budget, work);
  }
  return enough;
}

void Engine::admit_waiting(Instant start, std::uint32_t& budget, StepWork& work) {
  while (!waiting_.empty() && budget > 0 && running_.size() < params_.max_num_seqs) {
    const Slot slot = waiting_.front();
    if (sequences_[slot].submitted > start || cache_.free() < head_needs_) return;
    if (!admit(slot, budget)) return;
    waiting_.pop_front();
    head_needs_ = 0;
    Active& active = running_.back();
    const std::uint32_t tokens = std::min(active.known - active.computed, budget);
    const bool made = make_room(active, active.computed + tokens);
    HENG_ASSERT(made);
    schedule(active, tokens, budget, work);
  }
}

bool Engine::admit(Slot slot, std::uint32_t budget) {
  Sequence& sequence = sequences_[slot];
  const EngineRequest& request = sequence.request;
  const std::uint32_t known = request.prompt_tokens + sequence.generated;
  std::span<const std::uint64_t> chain;
  if (params_.prefix_caching) {
    // The last token is always computed: its logits make the next one.
    chain = std::span(request.blocks)
                .first(std::min<std::size_t>(request.blocks.size(), (known - 1) / params_.block_size));
  }
  const KvCache::Match match = cache_.match(chain);
  const std::uint32_t matched = match.blocks * params_.block_size;
  const std::uint32_t computed = std::max(matched, std::min(request.cached_tokens, known - 1));
  const std::uint32_t first_chunk = std::min(known - computed, budget);
  const std::uint32_t blocks = (computed + first_chunk + params_.block_size - 1) / params_.block_size;
  const std::uint32_t needed = blocks - match.blocks + match.free_blocks;
  if (needed > cache_.free()) {
    head_needs_ = needed;
    return false;
  }
  for (const std::uint64_t hash : chain.first(match.blocks)) sequence.blocks.push_back(cache_.acquire(hash));
  if (!sequence.admitted_before && params_.prefix_caching) {
    sequence.cached_tokens = computed;
    counters_.prefix_query_tokens += request.prompt_tokens;
    counters_.prefix_hit_tokens += computed;
  }
  sequence.admitted_before = true;
  sequence.waiting = false;
  sequence.published = match.blocks;
  Active active{};
  active.slot = slot;
  active.computed = computed;
  active.room = matched;
  active.known = known;
  active.prompt = request.prompt_tokens;
  active.end = request.prompt_tokens + request.output_tokens;
  active.publish_at =
      params_.prefix_caching && match.blocks < request.blocks.size() ? matched + params_.block_size : kNoMore;
  active.every_token = request.every_token;
  running_.push_back(active);
  return true;
}

void Engine::schedule(Active& active, std::uint32_t tokens, std::uint32_t& budget, StepWork& work) {
  active.scheduled = tokens;
  budget -= tokens;
  const std::uint64_t before = active.computed;
  const std::uint64_t after = before + tokens;
  if (active.known > active.prompt && after == active.known && tokens == 1) {
    ++work.decode_sequences;
    work.kv_tokens_read += after;
  } else {
    work.prefill_tokens += tokens;
    work.attention_pairs += (after * (after + 1) - before * (before + 1)) / 2;
  }
  if (after >= active.publish_at) publish(active, active.computed + tokens);
}

bool Engine::make_room(Active& active, std::uint32_t after) {
  if (after <= active.room) return true;
  std::vector<KvCache::Block>& blocks = sequences_[active.slot].blocks;
  while (active.room < after) {
    const std::optional<KvCache::Block> block = cache_.allocate();
    if (!block) return false;
    blocks.push_back(*block);
    active.room += params_.block_size;
  }
  return true;
}

/// Blocks are shared from the step that fills them: whoever joins in the same step computes after them.
void Engine::publish(Active& active, std::uint32_t after) {
  Sequence& sequence = sequences_[active.slot];
  const std::vector<std::uint64_t>& chain = sequence.request.blocks;
  const std::uint32_t complete = after / params_.block_size;
  const std::uint32_t limit = static_cast<std::uint32_t>(std::min<std::size_t>(complete, chain.size()));
  for (std::uint32_t i = sequence.published; i < limit; ++i) cache_.publish(sequence.blocks[i], chain[i]);
  sequence.published = limit;
  active.publish_at = limit < chain.size() ? (limit + 1) * params_.block_size : kNoMore;
}

void Engine::preempt_last() {
  const Active& last = running_.back();
  Sequence& sequence = sequences_[last.slot];
  sequence.generated = last.known - last.prompt;
  sequence.waiting = true;
  free_blocks(sequence);
  waiting_.push_front(last.slot);
  head_needs_ = 0;
  running_.pop_back();
  ++counters_.preemptions;
}

void Engine::end_step(std::vector<EngineEvent>& events) {
  in_step_ = false;
  counters_.busy += step_end_ - step_start_;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < running_.size(); ++i) {
    Active& active = running_[i];
    active.computed += active.scheduled;
    const bool complete =
        active.scheduled > 0 && active.computed == active.known && finish_tokens(active, events);
    active.scheduled = 0;
    if (complete) {
      ++counters_.finished;
      close(active.slot);
    } else if (kept++ != i) {
      running_[kept - 1] = active;
    }
  }
  running_.resize(kept);
}

bool Engine::finish_tokens(Active& active, std::vector<EngineEvent>& events) {
  if (active.known == active.prompt) counters_.prompt_tokens += active.prompt;
  if (active.end > active.prompt) {
    ++active.known;
    ++counters_.generation_tokens;
  }
  const bool complete = active.known == active.end;
  const std::uint32_t made = active.known - active.prompt;
  if (complete || made == 1 || active.every_token) {
    const Sequence& sequence = sequences_[active.slot];
    events.push_back({step_end_, sequence.request.id, made, sequence.cached_tokens,
                      complete ? sequence.request.reason : FinishReason::none});
  }
  return complete;
}

void Engine::free_blocks(Sequence& sequence) {
  // The tail first: a prefix is worth more than what follows it, so it should be evicted later.
  for (std::size_t i = sequence.blocks.size(); i-- > 0;) cache_.release(sequence.blocks[i]);
  sequence.blocks.clear();
}

void Engine::close(Slot slot) {
  Sequence& sequence = sequences_[slot];
  free_blocks(sequence);
  slot_of_.erase(sequence.request.id);
  unused_slots_.push_back(slot);
}

}  // namespace heng
