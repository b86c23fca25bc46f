// The model of an inference engine with continuous batching: what it does with requests, and how long it
// takes.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "sim/kv_cache.h"

namespace heng {

/// Defaults: Llama 3 8B in bf16 on one A100 80 GB under vLLM v1; docs/engine-model.md derives and cites each
/// number.
struct EngineParams {
  Duration t_base = std::chrono::microseconds(10'200);    // of every step: the weights are read once
  Duration t_prefill = std::chrono::nanoseconds(86'000);  // per prompt token: the weights are multiplied
  Duration t_decode_seq =
      std::chrono::nanoseconds(37'000);  // per decoding sequence: sampling, scheduling, activations
  double t_kv_ns = 83;                   // per token of context read by a decoding sequence, ...
  double kv_mixed = 1;                   // ... so many times that in steps that also compute prompts
  double t_attention_ns = 2.8;           // per (prompt token, earlier token) pair; 0 = prefill cost is linear
  /// Share of the shorter of reading the weights and multiplying by them that hides behind the longer, in
  /// [0, 1]: 0 adds them up, 1 is the roofline.
  double overlap = 0;
  double speed = 1;                  // all times are divided by this
  std::uint32_t max_num_seqs = 256;  // most sequences in a step; the rest queue
  std::uint32_t max_num_batched_tokens =
      2048;                               // token budget of a step; longer prompts are prefilled in chunks
  std::uint32_t max_model_len = 131'072;  // most tokens of prompt and answer together
  std::uint32_t block_size = 16;          // tokens in a KV block
  std::uint32_t kv_blocks = 27'000;       // KV blocks in the device's memory
  bool prefix_caching = true;
};

/// Fails with the parameter's name and what it must be.
Result<void> check(const EngineParams& params);

enum class FinishReason : std::uint8_t { none, stop, length };
std::string_view to_string(FinishReason reason);

enum class Refusal : std::uint8_t { none, empty_prompt, prompt_too_long, duplicate_id };
std::string_view to_string(Refusal refusal);

struct EngineRequest {
  std::uint64_t id = 0;             // unique among the requests that have not ended
  std::uint32_t prompt_tokens = 0;  // at least 1
  std::uint32_t output_tokens = 0;  // how many there will be; 0 = prefill only, as for embeddings
  FinishReason reason =
      FinishReason::stop;   // reported at the end, unless the context cuts the answer (length)
  bool every_token = true;  // false: report only the first and the last token (the simulator's need)
  /// Chained hashes of the sequence's complete blocks, see sim/prompt.h. May be shorter than the prompt (the
  /// rest is never shared) and may go on into the answer where the caller knows it (so that a next turn finds
  /// it).
  std::vector<std::uint64_t> blocks;
  /// So many tokens of the prompt are taken for cached, whatever `blocks` finds: for measured requests of
  /// which no more is known.
  std::uint32_t cached_tokens = 0;
};

struct EngineEvent {
  Instant at;  // when the step ended that made this token
  std::uint64_t id = 0;
  std::uint32_t tokens = 0;                  // made so far, this one included; 1 = the first
  std::uint32_t cached_tokens = 0;           // of the prompt, found in the cache when first scheduled
  FinishReason finish = FinishReason::none;  // other than none: the last event of the request
};

/// What one step computes: the input of the time formula.
struct StepWork {
  std::uint64_t prefill_tokens = 0;
  std::uint64_t decode_sequences = 0;
  std::uint64_t kv_tokens_read = 0;  // sum of the decoding sequences' contexts
  std::uint64_t attention_pairs =
      0;  // sum over chunks [a, b) of the pairs (query, key <= query) = (b(b+1) - a(a+1))/2
};

/// (read + multiply - overlap min(read, multiply) + t_kv m kv_tokens_read + t_attention attention_pairs) /
/// speed, in whole nanoseconds, at least one, with read = t_base + t_decode_seq decode_sequences, multiply
/// = t_prefill (prefill_tokens + overlap decode_sequences), and m = kv_mixed if prefill_tokens > 0, else 1.
Duration step_time(const EngineParams& params, const StepWork& work);

/// Since construction. submitted = refused + canceled + finished + waiting + running, always.
struct EngineCounters {
  std::uint64_t submitted = 0;
  std::uint64_t refused = 0;
  std::uint64_t canceled = 0;
  std::uint64_t finished = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t prompt_tokens = 0;  // of requests whose prefill is complete; each counted once
  std::uint64_t generation_tokens = 0;
  std::uint64_t prefix_query_tokens =
      0;                                // prompt tokens looked up in the cache (not again after a preemption)
  std::uint64_t prefix_hit_tokens = 0;  // of these, found
  std::uint64_t steps = 0;
  Duration busy{};  // time spent in steps
};

/// One engine replica, without clock, IO or randomness: the same calls give the same events. `now` must not
/// go backwards over all calls. Time passes in `advance` only, step by step, each step beginning when the
/// last one ended however late the caller is; so a live server whose timers fire late drifts by nothing.
///
/// A step, as vLLM v1 composes it (docs/engine-model.md): running sequences in order of admission take their
/// tokens from the budget (one when decoding, a chunk of the prompt otherwise); one that finds no free KV
/// block preempts the latest admitted, which loses its blocks and goes to the head of the queue. Without
/// preemption, waiting requests follow in order of arrival while budget, places and blocks last, less the
/// blocks of their prompt that are cached.
class Engine {
 public:
  /// The parameters must pass `check`.
  explicit Engine(const EngineParams& params);

  /// Queues the request, or says why not. Takes effect from the next step that begins at `now` or later.
  Refusal submit(EngineRequest request, Instant now);
  /// Drops a request; false when there is none of that id (ended, or never submitted). No event of it
  /// follows. A step under way takes as long as it would have.
  bool cancel(std::uint64_t id, Instant now);
  /// From now on, the rest of a step under way included. `speed` > 0.
  void set_speed(double speed, Instant now);

  static constexpr Instant kNever = Instant::max();
  /// When `advance` next has something to do; kNever when idle. May lie before the last `now`, then call at
  /// once.
  Instant next_event() const;
  /// Runs all steps that end by `now` and appends their events in order of time, then admission.
  void advance(Instant now, std::vector<EngineEvent>& events);

  std::uint32_t running() const { return static_cast<std::uint32_t>(running_.size()); }
  std::uint32_t waiting() const { return static_cast<std::uint32_t>(waiting_.size()); }
  /// Share of KV blocks held by sequences, in [0, 1].
  double kv_usage() const { return static_cast<double>(cache_.used()) / cache_.total(); }
  const EngineCounters& counters() const { return counters_; }
  const EngineParams& params() const { return params_; }
  const KvCache& cache() const { return cache_; }
  /// Longest prompt and answer together: max_model_len, or what fits into the KV cache if that is less.
  std::uint32_t context_tokens() const { return context_tokens_; }

 private:
  using Slot = std::uint32_t;
  static constexpr std::uint32_t kNoMore = std::numeric_limits<std::uint32_t>::max();

  struct Sequence {  // the cold part, indexed by slot; slots are reused with their vectors' storage
    EngineRequest request;
    Instant submitted;
    std::vector<KvCache::Block> blocks;
    std::uint32_t published = 0;  // leading blocks offered for sharing
    std::uint32_t generated = 0;
    std::uint32_t cached_tokens = 0;
    bool admitted_before = false;
    bool waiting = true;
  };
  struct Active {  // the hot part, in order of admission; token counts from the start of the prompt
    Slot slot;
    std::uint32_t computed;  // tokens whose keys and values are in the cache
    std::uint32_t known;     // prompt and answer so far; all must be computed to make the next token
    std::uint32_t prompt;
    std::uint32_t end;         // prompt and whole answer
    std::uint32_t room;        // tokens its blocks hold
    std::uint32_t publish_at;  // computed tokens at which the next block becomes shareable; kNoMore = never
    std::uint32_t scheduled;   // tokens of the step under way
    bool every_token;
  };

  Instant next_boundary() const;
  void begin_step(Instant start);
  void end_step(std::vector<EngineEvent>& events);
  /// Both add to `work` and take from `budget`.
  bool schedule_running(std::uint32_t& budget, StepWork& work);
  void admit_waiting(Instant start, std::uint32_t& budget, StepWork& work);
  bool admit(Slot slot, std::uint32_t budget);
  void schedule(Active& active, std::uint32_t tokens, std::uint32_t& budget, StepWork& work);
  /// Both for the tokens up to `after`, counted from the start of the prompt.
  bool make_room(Active& active, std::uint32_t after);
  void publish(Active& active, std::uint32_t after);
  void preempt_last();
  void plan_steps(StepWork work);
  std::uint32_t equal_steps() const;
  std::uint64_t blocks_for(std::uint32_t steps) const;
  void pass_planned(Instant now);
  void pass_steps(std::uint32_t count);
  /// True when the sequence is complete.
  bool finish_tokens(Active& active, std::vector<EngineEvent>& events);
  void free_blocks(Sequence& sequence);
  void close(Slot slot);
  void note(Instant now);

  EngineParams params_;
  std::uint32_t context_tokens_;
  KvCache cache_;
  EngineCounters counters_;
  std::vector<Sequence> sequences_;
  std::vector<Slot> unused_slots_;
  std::unordered_map<std::uint64_t, Slot> slot_of_;
  std::vector<Active> running_;
  std::deque<Slot> waiting_;
  std::uint32_t head_needs_ = 0;  // free blocks without which the head of the queue need not be tried again
  bool in_step_ = false;
  Instant step_start_ = Instant::min();
  Instant step_end_ = Instant::min();  // of the step under way, or of the last one
  Instant latest_ = Instant::min();
  /// Ends of the step under way and of those after it that can only decode the same sequences, none of which
  /// gives an event before the last of them. They are passed over in one go; see plan_steps.
  std::vector<Instant> plan_;
  std::size_t plan_at_ = 0;                // the step under way
  std::vector<std::uint64_t> block_work_;  // scratch
};

}  // namespace heng
