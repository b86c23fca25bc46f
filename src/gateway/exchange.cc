// The life of a request: inspect, choose, forward, relay, account for.
#include "gateway/exchange.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/hash.h"
#include "flow/prompt_blocks.h"
#include "flow/resource_paths.h"
#include "gateway/forwarding.h"
#include "gateway/gateway.h"

namespace heng {

namespace {

constexpr Duration kRetryAfter = 1s;  // about when an ejected worker is probed again

Outcome outcome_of(int status) {
  if (status == 429 || status == 503) return Outcome::overloaded;
  return status >= 500 ? Outcome::server_error : status >= 400 ? Outcome::client_error : Outcome::ok;
}

/// Refused for what it is, not for how the worker is: the same everywhere.
bool is_final(int status) { return status < 500 ? status != 429 : status == 501 || status == 505; }

}  // namespace

// --- the request ---

void Exchange::begin(ServerConnection& connection) {
  connection_ = &connection;
  connection.observe(this);
  tenant_ = std::move(connection.tenant);
  arrived_ = gateway_.loop_.now();
  ends_ = deadline_after(arrived_, gateway_.config_.timeouts.total);
  ++gateway_.totals_.arrived;
  ++gateway_.totals_.in_flight;
  view_.id = gateway_.totals_.arrived;
  const HttpHead& head = connection.head();
  tenant_use_ = &gateway_.tenant_uses_.of(tenant_.get());
  gateway_.tenant_uses_.on_request(*tenant_use_, arrived_, is_client_retry(head));
  const auto given_id = head.find("x-request-id");
  id_ = given_id && is_request_id(*given_id) ? std::string(*given_id) : gateway_.new_request_id();
  peer_ = connection.peer();
  bytes_in_ = connection.body().size();
  const bool models_limited = tenant_ && !tenant_->models.empty();
  if (const auto error = request_.read(connection, gateway_.config_, gateway_.inspector_, models_limited))
    return refuse(*error);
  if (!find_pool() || !read_queueing()) return;
  const RequestFacts& facts = request_.facts();
  view_.prompt_tokens = pool_->estimate_tokens(facts.prompt_bytes);
  view_.output_tokens_max = facts.output_tokens_max;
  view_.stream = facts.stream;
  view_.affinity = affinity_key();
  if (!admit_by_key()) return;
  if (gateway_.recorder_) gateway_.recorder_->request(view_.id, id_);
  session_ = session_key();
  request_.keep(connection, id_, gateway_.config_.forward_authorization);
  if (pool_->line().empty()) {
    if (const Slot slot = choose_worker(); slot != kNoSlot) {
      start_attempt(slot);
      return gateway_.hedge_later(*this);
    }
  }
  if (pool_->pool().room() == Pool::Room::none) {
    return refuse({503,
                   fmt::format("no worker for model '{}' is available now", pool_->model()),
                   {},
                   "no_worker_available",
                   kRetryAfter});
  }
  wait_in_line();
}

/// Sets pool_, and pinned_worker_ for resources with a known home. False: the request has been refused.
bool Exchange::find_pool() {
  const RequestFacts& facts = request_.facts();
  const Tenant* client = tenant_.get();
  if (client != nullptr && !owns_what_it_names()) {
    refuse({404, "there is no such resource of yours", {}, "resource_not_found"});
    return false;
  }
  if (!facts.previous_response_id.empty()) {
    const auto home = gateway_.resources_.find(resource_key(facts.previous_response_id), arrived_);
    pinned_worker_ = home.value_or(0);
  }
  const std::string& model = request_.model();
  if (!model.empty()) {
    pool_ = gateway_.find_pool(model, client);
    if (pool_) return true;
    if (gateway_.discovering()) {
      refuse({503,
              "the workers have not all named their models yet; try again",
              {},
              "models_not_known_yet",
              kRetryAfter});
      return false;
    }
    refuse({404, fmt::format("the model '{}' does not exist here; GET /v1/models lists what does", model),
            "model", "model_not_found"});
    return false;
  }
  pool_ = pool_of_resource();
  if (!pool_ && !gateway_.config_.default_model.empty())
    pool_ = gateway_.find_pool(gateway_.config_.default_model, client);
  if (!pool_ && request_.is_inference()) {
    refuse({400, "you must provide a model parameter", "model", "missing_model"});
    return false;
  }
  if (!pool_ && gateway_.pools_.size() == 1)
    pool_ = gateway_.find_pool(gateway_.pools_.begin()->first, client);
  if (pool_) return true;
  refuse({404,
          "this request names no model, and where its resource lives is not known; set default_model to send "
          "such requests to one pool",
          {},
          "resource_not_found"});
  return false;
}

/// Everything that path and body name has been made with a key of this tenant. What is not known counts as
/// somebody else's: the workers do not keep tenants apart.
bool Exchange::owns_what_it_names() {
  const auto is_own = [&](std::string_view id) {
    return gateway_.resources_.find(resource_key(id), arrived_).has_value();
  };
  const std::string_view previous = request_.facts().previous_response_id;
  if (!previous.empty() && !is_own(previous)) return false;
  if (changes_worker(request_.path())) return false;
  if (is_open_call(request_.method(), request_.path())) return true;
  bool names_any = false, owns_all = true;
  each_segment(request_.path(), [&](std::string_view segment) {
    const bool named = !is_plain_word(segment);
    names_any = names_any || named;
    owns_all = owns_all && (!named || is_own(segment));
  });
  return names_any && owns_all;
}

/// Each tenant has resources of its own, whatever their ids.
std::uint64_t Exchange::resource_key(std::string_view id) const {
  return hash_bytes(id, tenant_ ? hash_bytes(tenant_->name) : 0);
}

/// The pool with the worker that made the response, file, ... named in the path or the body.
std::shared_ptr<ModelPool> Exchange::pool_of_resource() {
  each_segment(request_.path(), [&](std::string_view segment) {
    if (pinned_worker_ == 0)
      pinned_worker_ = gateway_.resources_.find(resource_key(segment), arrived_).value_or(0);
  });
  if (pinned_worker_ == 0) return nullptr;
  for (const auto& [model, pool] : gateway_.pools_) {
    if (pool->slot_of(pinned_worker_) != kNoSlot) return pool;
  }
  return nullptr;
}

std::uint64_t Exchange::affinity_key() const {
  const PoolConfig& config = pool_->config();
  const RequestFacts& facts = request_.facts();
  switch (config.hash_on) {
    case AffinitySource::none:
      return 0;
    case AffinitySource::header: {
      const auto value = connection_->head().find(config.hash_header);
      return value ? hash_bytes(*value) : 0;
    }
    case AffinitySource::user:
      return facts.user.empty() ? 0 : hash_bytes(facts.user);
    case AffinitySource::prompt:
      return facts.prompt_start_hash;
  }
  return 0;
}

std::uint64_t Exchange::session_key() const {
  const std::string& header = pool_->config().session_header;
  if (header.empty()) return 0;
  const auto value = connection_->head().find(header);
  return value ? hash_bytes(*value, 1) | 1 : 0;
}

// --- attempts ---

/// Reserves a worker; kNoSlot if there is none.
Slot Exchange::choose_worker() {
  const Instant now = gateway_.loop_.now();
  Pool& pool = pool_->pool();
  Slot home = kNoSlot;
  if (pinned_worker_ != 0) {
    home = pool_->slot_of(pinned_worker_);
  } else if (session_ != 0) {
    if (const auto worker = pool_->sessions().find(session_, now)) home = pool_->slot_of(*worker);
  }
  if (home != kNoSlot && pool.reserve_on(home, view_for_choice(), now, pinned_worker_ != 0)) return home;
  if (pinned_worker_ != 0 && home != kNoSlot && pool.is_usable(home)) return kNoSlot;  // nobody else has it
  // In an overload nobody's prompt need be hashed to learn that.
  if (pool.limited() && pool.room() != Pool::Room::free) return kNoSlot;
  return pool.reserve(view_for_choice(), now).value_or(kNoSlot);
}

/// With the hashes of the prompt, if the policy asks for them: not kept, for most requests choose once.
RequestView Exchange::view_for_choice() {
  RequestView view = view_;
  // Recorded always: another policy might have made use of them.
  if (pool_->config().policy->uses_prefix || gateway_.recorder_) {
    chain_prompt_blocks(request_.prompt(), kPromptBlockBytes, gateway_.prompt_blocks_);
    view.prefix = gateway_.prompt_blocks_;
    view.block_tokens = pool_->estimate_tokens(kPromptBlockBytes);
  }
  return view;
}

void Exchange::start_attempt(Slot slot) {
  const Instant now = gateway_.loop_.now();
  ++attempts_made_;
  current_ = attempts_[0].active() ? &attempts_[1] : &attempts_[0];
  const TimeoutConfig& limits = gateway_.config_.timeouts;
  current_->start(*pool_, slot, view_, request_,
                  {.connect = limits.connect,
                   .first_byte = limits.first_byte,
                   .idle = limits.idle,
                   // What is left of it; 0 would be none.
                   .total = ends_ == kNever ? Duration(0) : std::max(ends_ - now, Duration(1))},
                  now);
  if (session_ != 0) pool_->sessions().put(session_, current_->worker().identity(), now);
}

Attempt* Exchange::other_active(const Attempt& attempt) {
  Attempt& other = attempts_[&attempt == &attempts_[0] ? 1 : 0];
  return other.active() ? &other : nullptr;
}

bool Exchange::has_alternative(const Attempt& attempt) const {
  const auto eligible = pool_->pool().view().eligible;
  return std::ranges::any_of(eligible, [&](Slot slot) { return slot != attempt.slot(); });
}

/// One more attempt, on another worker, before the first byte of an answer, within the budget (which is
/// charged).
bool Exchange::may_try_again(const Attempt& attempt, Outcome outcome) {
  const RetryConfig& retry = gateway_.config_.retry;
  if (!retry.enabled || attempts_made_ > 1 || pinned_worker_ != 0 || connection_ == nullptr) return false;
  if (!request_.is_repeatable() && outcome != Outcome::refused && outcome != Outcome::overloaded)
    return false;
  // Where all are overloaded, the client had better come back later.
  if (outcome == Outcome::overloaded && pool_->pool().room(attempt.slot()) != Pool::Room::free) return false;
  return has_alternative(attempt) && (outcome == Outcome::refused ||
                                      gateway_.tenant_uses_.take_retry(*tenant_use_, gateway_.loop_.now()));
}

/// Only if another worker is eligible; if those are full, it is first in its tenant's line.
void Exchange::try_again(Attempt& attempt, Outcome outcome) {
  const Instant now = gateway_.loop_.now();
  attempt.end(outcome, tokens(), now);
  pool_->retries().add();
  if (const auto next = pool_->pool().reserve(view_for_choice(), now, attempt.slot()))
    return start_attempt(*next);
  avoid_ = attempt.slot();
  wait_in_line();
}

/// Once for each request, and outside of the budget: a worker stops answering rarely, however many wait for
/// it.
void Exchange::leave_worker(const Worker& worker) {
  if (connection_ == nullptr || answering_ || left_worker_ || pinned_worker_ != 0 ||
      !request_.is_repeatable())
    return;
  const Instant now = gateway_.loop_.now();
  if (is_overdue(now)) return;
  const bool out = worker.health().state() == HealthState::ejected;
  for (Attempt& attempt : attempts_) {
    if (!attempt.active() || attempt.answered() || &attempt.worker() != &worker) continue;
    if (!worker.health().waits_in_vain(view_, attempt.started(), now)) continue;
    const bool alone = other_active(attempt) == nullptr;
    if (alone && !has_alternative(attempt)) return;
    left_worker_ = true;
    // Of a worker that may just be busy it says nothing.
    const Outcome outcome = out ? Outcome::timeout : Outcome::canceled;
    if (alone) return try_again(attempt, outcome);
    attempt.end(outcome, {}, now);
  }
}

void Exchange::cut(const ModelPool& pool, Slot slot) {
  if (connection_ == nullptr || pool_.get() != &pool) return;
  for (Attempt& attempt : attempts_) {
    if (attempt.active() && attempt.slot() == slot) return attempt.fail("removed by the operator");
  }
}

void Exchange::hedge() {
  if (connection_ == nullptr || answering_ || attempts_made_ != 1 || !current_->active() ||
      pinned_worker_ != 0 || session_ != 0 || !request_.is_repeatable() || !pool_->line().empty() ||
      pool_->pool().room(current_->slot()) != Pool::Room::free)
    return;
  const Instant now = gateway_.loop_.now();
  if (!gateway_.hedge_budget_.take(now)) return;
  pool_->hedges().add();
  start_attempt(*pool_->pool().reserve(view_for_choice(), now, current_->slot()));
}

void Exchange::end_attempts(Outcome outcome) {
  for (Attempt& attempt : attempts_) attempt.end(outcome, tokens(), gateway_.loop_.now());
}

// --- the answer ---

void Exchange::on_head(Attempt& attempt, const HttpHead& head) {
  const Instant now = gateway_.loop_.now();
  attempt.worker().progress(now);
  const Outcome outcome = outcome_of(head.status);
  Attempt* other = other_active(attempt);
  if (!is_final(head.status) && outcome != Outcome::ok) {
    if (other != nullptr) return attempt.end(outcome, {}, now);  // its twin may do better
    if (may_try_again(attempt, outcome)) return try_again(attempt, outcome);
  }
  if (other != nullptr) other->end(Outcome::canceled, {}, now);
  current_ = &attempt;
  last_piece_ = now;
  if (redirects_elsewhere(head, attempt.worker().config())) {
    attempt.end(Outcome::protocol, {}, now);
    answer_error({502,
                  fmt::format("worker '{}' answered with a redirect to another host, which is not followed",
                              pool_->worker_name(attempt.slot())),
                  {},
                  "worker_failed"});
    return finish(End::failed);
  }
  // No attempt will follow: a long prompt need not stay in memory while its answer streams.
  if (attempt.connection()->request_sent()) request_.release();
  start_answer(head);
  note_first_byte(now);
}

void Exchange::note_first_byte(Instant now) {
  Attempt& attempt = *current_;
  attempt.note_first_byte(view_, now);
  if (view_.stream && outcome_of(status_) == Outcome::ok)
    pool_->learn_first_byte(attempt.slot(), view_.prompt_tokens, attempt.ttft());
  if (MemberMetrics* metrics = pool_->metrics(attempt.slot()); metrics != nullptr && status_ < 400)
    metrics->ttft.observe(to_seconds(attempt.ttft()));
}

void Exchange::start_answer(const HttpHead& head) {
  status_ = head.status;
  answering_ = true;
  stores_resource_ = request_.stores_resource() && status_ >= 200 && status_ < 300;  // errors echo requests
  std::vector<HeaderField>& fields = gateway_.answer_fields_;
  fields.clear();
  std::string joined;
  const std::string_view nominated = connection_options(head, joined);
  bool coded = false;
  for (const HeaderField& field : head.fields) {
    if (is_hop_by_hop(field.name) || is_nominated(nominated, field.name)) continue;
    if (equals_ignoring_case(field.name, "x-request-id") || starts_ignoring_case(field.name, "x-heng-"))
      continue;
    if (equals_ignoring_case(field.name, "content-type"))
      event_stream_ = starts_ignoring_case(field.value, "text/event-stream");
    if (key_use_ != nullptr && starts_ignoring_case(field.name, "x-ratelimit-")) continue;
    coded = coded || equals_ignoring_case(field.name, "content-encoding");
    fields.push_back(field);
  }
  fields.push_back({"x-request-id", id_});
  std::vector<std::string> values;
  append_rate_limits(fields, values);
  if (gateway_.config_.worker_header)
    fields.push_back({"x-heng-worker", pool_->worker_name(current_->slot())});
  const bool overloaded = outcome_of(head.status) == Outcome::overloaded;
  if (overloaded && !head.find("retry-after")) fields.push_back({"Retry-After", "1"});
  BodyFraming framing = head.framing == BodyFraming::until_close ? BodyFraming::chunked : head.framing;
  if (request_.method() == "HEAD" && head.find("content-length")) framing = BodyFraming::length;
  length_told_ = framing == BodyFraming::length || coded;
  ends_by_close_ = event_stream_ && head.framing == BodyFraming::until_close;
  connection_->start(head.status, head.reason, fields, framing, head.content_length);
}

void Exchange::on_body(std::span<const std::string_view> pieces, bool complete) {
  const Instant now = gateway_.loop_.now();
  current_->worker().progress(now);
  const bool first = bytes_out_ == 0;
  if (!first && !flowing_) {
    flowing_ = true;
    current_->worker().flowing(view_.id, outcome_of(status_), now);
  }
  for (const std::string_view piece : pieces) {
    if (stores_resource_) note_stored_resource(piece);
    usage_.take(piece);
    bytes_out_ += piece.size();
    if (event_stream_) boundary_.take(piece);
  }
  if (complete && cut_short())
    return break_off({Outcome::reset, true, "closed before the last event of its stream"});
  if (event_stream_ && !pieces.empty()) {
    if (MemberMetrics* metrics = pool_->metrics(current_->slot()); metrics != nullptr && !first) {
      metrics->inter_token.observe(to_seconds(now - last_piece_));
    }
    last_piece_ = now;
  }
  connection_->write(pieces, complete);
  if (complete) {
    if (!view_.stream && status_ < 400 && request_.is_inference())
      pool_->learn_whole_answer(current_->slot(), usage().output_tokens, now - current_->started());
    current_->end(outcome_of(status_), tokens(), now);
    finish(End::completed);
  } else if (connection_->pending_bytes() > gateway_.config_.limits.stream_buffer_bytes) {
    current_->connection()->pause();
  }
}

void Exchange::on_drained() {
  if (ClientConnection* connection = current_->connection()) connection->resume();
}

void Exchange::on_failed(Attempt& attempt, const ExchangeFailure& failure) {
  const Instant now = gateway_.loop_.now();
  if (failure.cause == Outcome::refused) attempt.worker().origin().drop_idle();
  if (failure.cause == Outcome::timeout && is_overdue(now)) return run_out_of_time(failure);
  if (answering_) return break_off(failure);
  if (other_active(attempt) != nullptr) return attempt.end(failure.cause, {}, now);
  if (failure.cause == Outcome::canceled) {  // no other worker would fare better
    attempt.end(failure.cause, {}, now);
    return refuse(
        {503, "the gateway is short of connections to workers; try again", {}, "gateway_exhausted", 1s});
  }
  // An attempt that never reached the worker costs nothing to repeat.
  if (may_try_again(attempt, failure.request_sent ? failure.cause : Outcome::refused))
    return try_again(attempt, failure.cause);
  attempt.end(failure.cause, {}, now);
  answer_error({failure.cause == Outcome::timeout ? 504 : 502,
                fmt::format("worker '{}' failed: {}", pool_->worker_name(attempt.slot()), failure.message),
                {},
                "worker_failed"});
  finish(End::failed);
}

/// No worker is to blame that had only a part of the time, or was answering.
void Exchange::run_out_of_time(const ExchangeFailure& failure) {
  for (Attempt& attempt : attempts_) {
    const bool had_it_all = attempt.started() == arrived_ && !attempt.answered();
    attempt.end(had_it_all ? Outcome::timeout : Outcome::canceled, tokens(), gateway_.loop_.now());
  }
  if (answering_) return break_off(failure);
  answer_error({504,
                fmt::format("the request's time is over, and worker '{}' has not answered",
                            pool_->worker_name(current_->slot())),
                {},
                "request_timeout"});
  finish(End::failed);
}

/// A stream that ends in the middle must not look complete: between two events the client is told, inside one
/// nothing more can be said; then the connection breaks.
void Exchange::break_off(const ExchangeFailure& failure) {
  end_attempts(failure.cause);
  if (event_stream_ && boundary_.between_events() && !length_told_) {
    const std::string event =
        fmt::format("data: {}\n\n",
                    api_error_body(502, fmt::format("the worker broke off the answer: {}", failure.message),
                                   "worker_failed"));
    const std::string_view piece = event;
    connection_->write({&piece, 1}, false);
  }
  connection_->abort();
  finish(End::failed);
}

/// A worker that dies closes its connections like one that has said all.
bool Exchange::cut_short() const {
  if (!ends_by_close_ || status_ >= 400) return false;
  if (!boundary_.between_events()) return true;
  const bool says_done = request_.is_inference() && request_.path().ends_with("/completions");
  return says_done && !boundary_.says_done();
}

void Exchange::on_client_gone() {
  connection_ = nullptr;
  end_attempts(Outcome::canceled);
  finish(End::canceled);
}

/// Later requests about what this answer names ("id") must go to the worker that has it. Some workers let
/// clients choose ids: what another tenant made stays that tenant's for as long as it is known.
void Exchange::note_stored_resource(std::string_view piece) {
  constexpr std::size_t kStart = 4096;  // of the answer; the id stands there
  answer_start_.append(piece.substr(0, kStart - answer_start_.size()));
  const std::string_view id = answer_id(answer_start_, event_stream_);
  stores_resource_ = id.empty() && answer_start_.size() < kStart;
  if (id.empty()) return;
  const Instant now = gateway_.loop_.now();
  if (tenant_) {
    const std::uint64_t maker = hash_bytes(tenant_->name);
    if (gateway_.owners_.find(hash_bytes(id), now).value_or(maker) != maker) return;
    gateway_.owners_.put(hash_bytes(id), maker, now);
  }
  gateway_.resources_.put(resource_key(id), current_->worker().identity(), now);
}

// --- the end ---

void Exchange::refuse(const ApiError& error) {
  answer_error(error);
  finish(End::refused);
}

void Exchange::answer_error(const ApiError& error) {
  status_ = error.status;
  std::vector<HeaderField>& fields = gateway_.answer_fields_;
  fields.assign({{"Content-Type", "application/json"}, {"x-request-id", id_}});
  const RetryAfter wait(error.retry_after);
  wait.append_to(fields);
  std::vector<std::string> values;
  append_rate_limits(fields, values);
  // What can never be taken need not be tried again.
  if (error.status == 429 && error.retry_after == Duration(0)) fields.push_back({"x-should-retry", "false"});
  // Where the gateway's own retries are used up, the tenant's or everybody's, those of the clients' libraries
  // would only feed the overload.
  if (error.status >= 500 && !gateway_.tenant_uses_.may_retry(*tenant_use_, gateway_.loop_.now()))
    fields.push_back({"x-should-retry", "false"});
  connection_->respond(error.status, fields,
                       api_error_body(error.status, error.message, error.code, error.param));
}

void Exchange::finish(End end) {
  const Duration took = gateway_.loop_.now() - arrived_;
  if (waiting()) pool_->line().leave(*this);
  count_end(end, took);
  settle(end);
  if (gateway_.access_log_) write_access_line(end, took);
  if (gateway_.recorder_) gateway_.recorder_->done(view_.id);
  if (connection_ != nullptr) connection_->observe(nullptr);
  connection_ = nullptr;
  pool_.reset();
  tenant_.reset();
  for (Attempt& attempt : attempts_) attempt.reset();
  request_.release();
  view_ = {};
  usage_.reset();
  bytes_out_ = 0;
  attempts_made_ = 0;
  pinned_worker_ = 0;
  status_ = 0;
  waited_ = client_timeout_ = Duration(0);
  avoid_ = turn_slot_ = kNoSlot;
  charged_ = 0;
  tenant = 0;
  left_worker_ = answering_ = flowing_ = event_stream_ = stores_resource_ = ends_by_close_ = false;
  boundary_.reset();
  answer_start_.clear();
  gateway_.recycle(this);
}

void Exchange::count_end(End end, Duration took) {
  RequestTotals& totals = gateway_.totals_;
  ++(end == End::completed ? totals.completed
     : end == End::refused ? totals.refused
     : end == End::failed  ? totals.failed
                           : totals.canceled);
  --totals.in_flight;
  if (end == End::canceled) status_ = 499;
  if (!pool_) return;
  if (end == End::completed && status_ < 400) pool_->duration().observe(to_seconds(took));
  if (end == End::completed && request_.is_inference()) pool_->learn_output(output_tokens());
  if (usage().prompt_tokens != 0) pool_->learn_tokens(request_.facts().prompt_bytes, usage().prompt_tokens);
  MemberMetrics* metrics = current_->slot() == kNoSlot ? nullptr : pool_->metrics(current_->slot());
  if (metrics == nullptr) return;
  metrics->count_answer(status_);
  metrics->prompt_tokens.add(usage().prompt_tokens);
  metrics->output_tokens.add(usage().output_tokens);
  metrics->cached_tokens.add(usage().cached_tokens);
}

/// One JSON line. Prompts and answers never appear in it, nor credentials.
void Exchange::write_access_line(End end, Duration took) {
  static constexpr std::array<std::string_view, 4> kEnds{"completed", "refused", "failed", "canceled"};
  fmt::memory_buffer line;
  fmt::format_to(
      std::back_inserter(line),
      R"({{"time":{:.3f},"id":{},"client":{},"key":{},"method":"{}","path":{},"model":{},"worker":{},)"
      R"("status":{},"end":"{}","attempts":{},"stream":{},"queued_ms":{:.3f},"ttft_ms":{:.3f},)"
      R"("duration_ms":{:.3f},"bytes_in":{},"bytes_out":{},"prompt_tokens":{},"cached_tokens":{},)"
      R"("output_tokens":{}}})",
      gateway_.wall_time_s(), json_quote(id_), json_quote(peer_),
      tenant_ ? json_quote(tenant_->key_id) : "null", request_.method(), json_quote(request_.path()),
      json_quote(request_.model()),
      current_->slot() != kNoSlot ? json_quote(pool_->worker_name(current_->slot())) : "null", status_,
      kEnds[static_cast<std::size_t>(end)], attempts_made_, event_stream_, to_milliseconds(waited_),
      to_milliseconds(current_->ttft()), to_milliseconds(took), bytes_in_, bytes_out_, usage().prompt_tokens,
      usage().cached_tokens, output_tokens());
  gateway_.access_log_->append({line.data(), line.size()});
}

}  // namespace heng
