// The life of a request: inspect, choose, forward, relay, account for.
#include "gateway/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/hash.h"
#include "flow/api_error.h"
#include "gateway/forwarding.h"
#include "gateway/gateway.h"

namespace heng {

namespace {

constexpr std::size_t kModelNameMax = 256;    // it goes into messages and logs
constexpr std::size_t kBufferKept = 4 << 10;  // of an open stream and of a recycled exchange

std::string_view path_of(std::string_view target) { return target.substr(0, target.find('?')); }

bool is_any_of(std::string_view text, std::initializer_list<std::string_view> list) {
  return std::ranges::find(list, text) != list.end();
}

Outcome outcome_of(int status) {
  if (status == 429 || status == 503) return Outcome::overloaded;
  return status >= 500 ? Outcome::server_error : status >= 400 ? Outcome::client_error : Outcome::ok;
}

}  // namespace

Exchange::~Exchange() {
  if (upstream_ != nullptr) upstream_->cancel();
}

// --- the request ---

void Exchange::begin(ServerConnection& connection) {
  connection_ = &connection;
  connection.observe(this);
  arrived_ = gateway_.loop_.now();
  ++gateway_.totals_.arrived;
  ++gateway_.totals_.in_flight;
  gateway_.retry_budget_.on_request(arrived_);
  const HttpHead& head = connection.head();
  const auto given_id = head.find("x-request-id");
  id_ = given_id && is_request_id(*given_id) ? std::string(*given_id) : gateway_.new_request_id();
  method_ = head.method;
  target_ = head.target;
  peer_ = connection.peer();
  bytes_in_ = connection.body().size();
  if (!read_facts() || !find_pool()) return;
  view_.id = gateway_.totals_.arrived;
  view_.prompt_tokens = pool_->estimate_tokens(facts_.prompt_bytes);
  view_.output_tokens_max = facts_.output_tokens_max;
  view_.stream = facts_.stream;
  view_.affinity = affinity_key();
  session_ = session_key();
  append_fields();
  const std::string_view body = connection.body();
  if (!facts_.model_token.empty()) {
    model_token_at_ = static_cast<std::size_t>(facts_.model_token.data() - body.data());
    model_token_size_ = facts_.model_token.size();
  }
  if (std::optional<Buffer> whole = connection.take_body()) {
    body_ = std::move(*whole);
  } else {
    body_.append(body);
  }
  if (!reserve()) {
    return refuse(503, fmt::format("no worker for model '{}' is available now", pool_->model()),
                  "no_worker_available");
  }
  attempt();
}

/// Looks into the body. False: the request has been refused.
bool Exchange::read_facts() {
  facts_ = {};
  model_.clear();
  const HttpHead& head = connection_->head();
  const std::string_view body = connection_->body();
  const std::string_view path = path_of(target_);
  const std::string_view type = head.find("content-type").value_or("");
  const bool json_path = method_ == "POST" && is_any_of(path, {"/v1/chat/completions", "/v1/completions",
                                                               "/v1/embeddings", "/v1/responses"});
  if (has_dot_segments(path)) {
    refuse(400, "the path must not have '.' or '..' segments");
    return false;
  }
  stores_resource_ = method_ == "POST" && (!json_path || path == "/v1/responses");
  if (const auto coding = head.find("content-encoding");
      coding && !equals_ignoring_case(*coding, "identity")) {
    refuse(415, "compressed request bodies are not accepted");
    return false;
  }
  if (starts_ignoring_case(type, "multipart/form-data") && !json_path) {
    facts_.model = facts_.model_token = multipart_model(type, body);
  } else {
    const bool json_type =
        type.empty() || type.find("json") != type.npos ||
        starts_ignoring_case(type, "application/x-www-form-urlencoded");  // plain `curl -d`
    if (json_path && !json_type) {
      refuse(415, "the request body must be application/json");
      return false;
    }
    const bool looks_like_json = json_path || (json_type && body.starts_with('{'));
    if (looks_like_json) {
      if (const auto error =
              gateway_.inspector_.inspect_json(body, gateway_.config_.limits.json_depth, facts_)) {
        refuse(error->status, error->message, error->code, error->param);
        return false;
      }
    }
  }
  if (facts_.model.size() > kModelNameMax) {
    refuse(400, "the model's name is too long", "invalid_value", "model");
    return false;
  }
  model_ = facts_.model;
  return true;
}

/// Sets pool_, and pinned_worker_ for resources with a known home. False: the request has been refused.
bool Exchange::find_pool() {
  if (!facts_.previous_response_id.empty()) {
    const auto home = gateway_.resources_.find(hash_bytes(facts_.previous_response_id), arrived_);
    pinned_worker_ = home.value_or(0);
  }
  if (!model_.empty()) {
    pool_ = gateway_.find_pool(model_);
    if (pool_) return true;
    if (gateway_.discovering()) {
      refuse(503, "the workers have not all named their models yet; try again", "models_not_known_yet");
      return false;
    }
    refuse(404, fmt::format("the model '{}' does not exist here; GET /v1/models lists what does", model_),
           "model_not_found", "model");
    return false;
  }
  pool_ = pool_of_resource();
  if (!pool_ && !gateway_.config_.default_model.empty())
    pool_ = gateway_.find_pool(gateway_.config_.default_model);
  const bool names_model =
      method_ == "POST" && is_any_of(path_of(target_), {"/v1/chat/completions", "/v1/completions",
                                                        "/v1/embeddings", "/v1/responses"});
  if (!pool_ && names_model) {
    refuse(400, "you must provide a model parameter", "missing_model", "model");
    return false;
  }
  if (!pool_ && gateway_.pools_.size() == 1) pool_ = gateway_.pools_.begin()->second;
  if (pool_) return true;
  refuse(404,
         "this request names no model, and where its resource lives is not known; set default_model to send "
         "such "
         "requests to one pool",
         "resource_not_found");
  return false;
}

/// The pool with the worker that made the response, file, ... named in the path or the body.
std::shared_ptr<ModelPool> Exchange::pool_of_resource() {
  std::string_view rest = path_of(target_);
  rest.remove_prefix(std::min<std::size_t>(rest.size(), 4));  // "/v1/"
  while (pinned_worker_ == 0 && !rest.empty()) {
    const std::size_t slash = std::min(rest.find('/'), rest.size());
    pinned_worker_ = gateway_.resources_.find(hash_bytes(rest.substr(0, slash)), arrived_).value_or(0);
    rest.remove_prefix(std::min(slash + 1, rest.size()));
  }
  if (pinned_worker_ == 0) return nullptr;
  for (const auto& [model, pool] : gateway_.pools_) {
    if (pool->slot_of(pinned_worker_) != kNoSlot) return pool;
  }
  return nullptr;
}

std::uint64_t Exchange::affinity_key() const {
  const PoolConfig& config = pool_->config();
  switch (config.hash_on) {
    case AffinitySource::none:
      return 0;
    case AffinitySource::header: {
      const auto value = connection_->head().find(config.hash_header);
      return value ? hash_bytes(*value) : 0;
    }
    case AffinitySource::user:
      return facts_.user.empty() ? 0 : hash_bytes(facts_.user);
    case AffinitySource::prompt:
      return facts_.prompt_start_hash;
  }
  return 0;
}

std::uint64_t Exchange::session_key() const {
  const std::string& header = pool_->config().session_header;
  if (header.empty()) return 0;
  const auto value = connection_->head().find(header);
  return value ? hash_bytes(*value, 1) | 1 : 0;
}

/// Chooses a worker and counts the request against it.
bool Exchange::reserve() {
  const Instant now = gateway_.loop_.now();
  Pool& pool = pool_->pool();
  slot_ = kNoSlot;
  if (pinned_worker_ != 0) {
    slot_ = pool_->slot_of(pinned_worker_);
  } else if (session_ != 0) {
    if (const auto home = pool_->sessions().find(session_, now)) slot_ = pool_->slot_of(*home);
  }
  if (slot_ == kNoSlot || !pool.reserve_on(slot_, view_, now)) {
    const std::optional<Slot> chosen = pool.reserve(view_, now);
    if (!chosen) return false;
    slot_ = *chosen;
  }
  return true;
}

/// What of the client's head goes on to the worker, the same for every attempt.
void Exchange::append_fields() {
  const HttpHead& head = connection_->head();
  std::string joined;
  const std::string_view nominated = connection_options(head, joined);
  fields_.clear();
  credentials_.clear();
  for (const HeaderField& field : head.fields) {
    if (is_hop_by_hop(field.name) || is_replaced(field.name) || is_nominated(nominated, field.name)) continue;
    if (is_credential(field.name) && !gateway_.config_.forward_authorization) continue;
    std::string& fields = is_credential(field.name) ? credentials_ : fields_;
    fields.append(field.name).append(": ").append(field.value).append("\r\n");
  }
  fields_.append("x-request-id: ").append(id_).append("\r\nx-forwarded-for: ").append(peer_).append("\r\n");
}

void Exchange::attempt() {
  const Instant now = gateway_.loop_.now();
  ++attempts_;
  reserved_ = true;
  attempt_started_ = now;
  worker_ = pool_->shared_worker(slot_);
  ++worker_->in_flight;
  pool_->count_assignment(slot_);
  if (session_ != 0) pool_->sessions().put(session_, worker_->identity(), now);
  worker_->health().on_attempt_started(now);
  pool_->pool().set_eligible(slot_, worker_->health().eligible());
  const WorkerConfig& worker = worker_->config();
  const std::string& own_name = pool_->worker_model(slot_);
  const std::string& wanted = !own_name.empty() ? own_name : pool_->model() == "*" ? model_ : pool_->model();
  const bool rename = model_token_size_ != 0 && wanted != model_;
  const bool quoted = rename && body_.view()[model_token_at_] == '"';
  const std::string token = !rename ? std::string() : quoted ? json_quote(wanted) : wanted;
  const std::size_t body_bytes = body_.size() - (rename ? model_token_size_ - token.size() : 0);
  request_.clear();
  for (const std::string_view part :
       {std::string_view(method_), std::string_view(" "), std::string_view(worker.base_path),
        std::string_view(target_), std::string_view(" HTTP/1.1\r\n"),
        std::string_view(worker_->address_fields()), std::string_view(fields_),
        worker.api_key.empty() ? std::string_view(credentials_) : std::string_view()}) {
    request_.append(part);
  }
  if (body_bytes != 0 || method_ == "POST" || method_ == "PUT" || method_ == "PATCH") {
    const auto length = fmt::format_to_n(request_.room(48), 48, "Content-Length: {}\r\n", body_bytes);
    request_.grow(length.size);
  }
  request_.append("\r\n");
  RequestBytes bytes{{}, body_.view(), method_ == "HEAD"};
  if (rename) {
    request_.append(body_.view().substr(0, model_token_at_));
    request_.append(token);
    request_.append(body_.view().substr(model_token_at_ + model_token_size_));
    bytes.body = {};
  }
  bytes.head = request_.view();
  const TimeoutConfig& limits = gateway_.config_.timeouts;
  upstream_ = &worker_->origin().send(bytes,
                                      {.connect = limits.connect,
                                       .first_byte = limits.first_byte,
                                       .idle = limits.idle,
                                       .total = limits.total},
                                      *this);
}

// --- the answer ---

void Exchange::on_response_head(const HttpHead& head) {
  const Instant now = gateway_.loop_.now();
  worker_->health().on_progress(now);
  const Outcome outcome = outcome_of(head.status);
  if (outcome != Outcome::ok && outcome != Outcome::client_error && head.status != 501 &&
      head.status != 505 && may_try_again(outcome)) {
    std::exchange(upstream_, nullptr)->cancel();
    try_again(outcome);
    return;
  }
  ttft_ = now - attempt_started_;
  last_piece_ = now;
  pool_->pool().first_byte(slot_, view_, ttft_, now);
  if (MemberMetrics* metrics = pool_->metrics(slot_); metrics != nullptr && head.status < 400) {
    metrics->ttft.observe(to_seconds(ttft_));
  }
  if (upstream_->request_sent()) {
    // No attempt will follow: a long prompt need not stay in memory while its answer streams.
    body_.release();
    if (request_.capacity() > kBufferKept) request_.release();
  }
  start_answer(head);
}

void Exchange::start_answer(const HttpHead& head) {
  status_ = head.status;
  std::vector<HeaderField>& fields = gateway_.answer_fields_;
  fields.clear();
  std::string joined;
  const std::string_view nominated = connection_options(head, joined);
  for (const HeaderField& field : head.fields) {
    if (is_hop_by_hop(field.name) || is_nominated(nominated, field.name)) continue;
    if (equals_ignoring_case(field.name, "x-request-id") || starts_ignoring_case(field.name, "x-heng-"))
      continue;
    if (equals_ignoring_case(field.name, "content-type"))
      event_stream_ = starts_ignoring_case(field.value, "text/event-stream");
    fields.push_back(field);
  }
  fields.push_back({"x-request-id", id_});
  if (gateway_.config_.worker_header) fields.push_back({"x-heng-worker", pool_->worker_name(slot_)});
  BodyFraming framing = head.framing == BodyFraming::until_close ? BodyFraming::chunked : head.framing;
  if (method_ == "HEAD" && head.find("content-length")) framing = BodyFraming::length;
  length_told_ = framing == BodyFraming::length;
  connection_->start(head.status, head.reason, fields, framing, head.content_length);
}

void Exchange::on_response_body(std::span<const std::string_view> pieces, bool complete) {
  if (complete) upstream_ = nullptr;
  const Instant now = gateway_.loop_.now();
  worker_->health().on_progress(now);
  for (const std::string_view piece : pieces) {
    if (stores_resource_) note_stored_resource(piece);
    if (piece.size() > 24) find_usage(piece, usage_);
    bytes_out_ += piece.size();
    const std::string_view tail = piece.substr(piece.size() - std::min(piece.size(), sizeof last_bytes_));
    std::shift_left(std::begin(last_bytes_), std::end(last_bytes_), static_cast<std::ptrdiff_t>(tail.size()));
    std::ranges::copy(tail, std::end(last_bytes_) - tail.size());
  }
  if (event_stream_ && !pieces.empty()) {
    if (MemberMetrics* metrics = pool_->metrics(slot_); metrics != nullptr && pieces_ > 0) {
      metrics->inter_token.observe(to_seconds(now - last_piece_));
    }
    last_piece_ = now;
    pieces_ += static_cast<std::uint32_t>(pieces.size());
  }
  connection_->write(pieces, complete);
  if (complete) {
    end_attempt(outcome_of(status_));
    finish(End::completed);
  } else if (connection_->pending_bytes() > gateway_.config_.limits.stream_buffer_bytes) {
    upstream_->pause();
  }
}

void Exchange::on_drained() {
  if (upstream_ != nullptr) upstream_->resume();
}

void Exchange::on_response_failed(const ExchangeFailure& failure) {
  upstream_ = nullptr;
  if (failure.cause == Outcome::refused) worker_->origin().drop_idle();
  if (connection_->answer_started()) return break_off(failure);
  // An attempt that never reached the worker costs nothing to repeat.
  if (may_try_again(failure.request_sent ? failure.cause : Outcome::refused)) return try_again(failure.cause);
  end_attempt(failure.cause);
  answer_error(failure.cause == Outcome::timeout ? 504 : 502,
               fmt::format("worker '{}' failed: {}", pool_->worker_name(slot_), failure.message),
               "worker_failed", {});
  finish(End::failed);
}

/// A stream that ends in the middle must not look complete: between two events the client is told, inside one
/// nothing more can be said; then the connection breaks.
void Exchange::break_off(const ExchangeFailure& failure) {
  const std::string_view last(last_bytes_, sizeof last_bytes_);
  const bool between_events = bytes_out_ == 0 || last.ends_with("\n\n") || last == "\r\n\r\n";
  end_attempt(failure.cause);
  if (event_stream_ && between_events && !length_told_) {
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

void Exchange::on_client_gone() {
  connection_ = nullptr;
  if (upstream_ != nullptr) std::exchange(upstream_, nullptr)->cancel();
  end_attempt(Outcome::canceled);
  finish(End::canceled);
}

// --- attempts ---

/// One more attempt, on another worker, before the first byte of an answer, within the budget (which is
/// charged).
bool Exchange::may_try_again(Outcome outcome) {
  if (!gateway_.config_.retry.enabled || attempts_ > 1 || pinned_worker_ != 0 || connection_ == nullptr)
    return false;
  const auto eligible = pool_->pool().view().eligible;
  if (std::ranges::none_of(eligible, [&](Slot slot) { return slot != slot_; })) return false;
  return outcome == Outcome::refused || gateway_.retry_budget_.take(gateway_.loop_.now());
}

/// Only after may_try_again.
void Exchange::try_again(Outcome outcome) {
  end_attempt(outcome);
  const std::optional<Slot> next = pool_->pool().reserve(view_, gateway_.loop_.now(), slot_);
  HENG_ASSERT(next.has_value());
  pool_->retries().add();
  slot_ = *next;
  attempt();
}

void Exchange::end_attempt(Outcome outcome) {
  if (!reserved_) return;
  reserved_ = false;
  const Instant now = gateway_.loop_.now();
  AttemptEvent event;
  event.kind = AttemptEvent::Kind::ended;
  event.outcome = outcome;
  event.worker = slot_;
  event.request = view_.id;
  event.elapsed = now - attempt_started_;
  event.time_to_first_byte = ttft_;
  event.prompt_tokens = usage_.prompt_tokens != 0 ? usage_.prompt_tokens : view_.prompt_tokens;
  event.cached_tokens = usage_.cached_tokens;
  event.output_tokens = usage_.output_tokens != 0 ? usage_.output_tokens : pieces_;
  pool_->pool().end(event, now);
  --worker_->in_flight;
  worker_->health().on_attempt(outcome, now);
  if (pool_->pool().is_member(slot_)) pool_->pool().set_eligible(slot_, worker_->health().eligible());
}

// --- the end ---

/// Later requests about what this answer names ("id") must go to the worker that has it.
void Exchange::note_stored_resource(std::string_view piece) {
  const std::size_t at = piece.substr(0, 4096).find("\"id\"");
  if (at == piece.npos) return;
  const std::size_t open = piece.find('"', at + 4);
  const std::size_t close = open == piece.npos ? open : piece.find('"', open + 1);
  if (close == piece.npos || close == open + 1) return;
  gateway_.resources_.put(hash_bytes(piece.substr(open + 1, close - open - 1)), worker_->identity(),
                          gateway_.loop_.now());
  stores_resource_ = false;
}

void Exchange::refuse(int status, std::string_view message, std::string_view code, std::string_view param) {
  answer_error(status, message, code, param);
  finish(End::refused);
}

void Exchange::answer_error(int status, std::string_view message, std::string_view code,
                            std::string_view param) {
  status_ = status;
  std::array<HeaderField, 3> fields{
      {{"Content-Type", "application/json"}, {"x-request-id", id_}, {"Retry-After", "1"}}};
  const bool retry_after = status == 503 || status == 429;
  connection_->respond(status, {fields.data(), retry_after ? 3u : 2u},
                       api_error_body(status, message, code, param));
}

void Exchange::finish(End end) {
  const Duration took = gateway_.loop_.now() - arrived_;
  RequestTotals& totals = gateway_.totals_;
  ++(end == End::completed ? totals.completed
     : end == End::refused ? totals.refused
     : end == End::failed  ? totals.failed
                           : totals.canceled);
  --totals.in_flight;
  if (end == End::canceled) status_ = 499;
  if (pool_) {
    if (end == End::completed && status_ < 400) pool_->duration().observe(to_seconds(took));
    if (usage_.prompt_tokens != 0) pool_->learn_tokens(facts_.prompt_bytes, usage_.prompt_tokens);
    MemberMetrics* metrics = slot_ == kNoSlot || !worker_ ? nullptr : pool_->metrics(slot_);
    if (metrics != nullptr) {
      metrics->count_answer(status_);
      metrics->prompt_tokens.add(usage_.prompt_tokens);
      metrics->output_tokens.add(usage_.output_tokens);
      metrics->cached_tokens.add(usage_.cached_tokens);
    }
  }
  if (gateway_.access_log_) write_access_line(end, took);
  if (connection_ != nullptr) connection_->observe(nullptr);
  connection_ = nullptr;
  pool_.reset();
  worker_.reset();
  slot_ = kNoSlot;
  view_ = {};
  model_token_at_ = model_token_size_ = 0;
  usage_ = {};
  ttft_ = Duration(0);
  bytes_out_ = 0;
  pieces_ = attempts_ = 0;
  pinned_worker_ = 0;
  status_ = 0;
  event_stream_ = stores_resource_ = false;
  std::ranges::fill(last_bytes_, '\0');
  body_.clear();
  if (body_.capacity() > kBufferKept) body_.release();
  if (request_.capacity() > kBufferKept) request_.release();
  gateway_.recycle(this);
}

/// One JSON line. Prompts and answers never appear in it, nor credentials.
void Exchange::write_access_line(End end, Duration took) {
  static constexpr std::array<std::string_view, 4> kEnds{"completed", "refused", "failed", "canceled"};
  fmt::memory_buffer line;
  fmt::format_to(
      std::back_inserter(line),
      R"({{"time":{:.3f},"id":{},"client":"{}","method":"{}","path":{},"model":{},"worker":{},"status":{},)"
      R"("end":"{}","attempts":{},"stream":{},"ttft_ms":{:.3f},"duration_ms":{:.3f},"bytes_in":{},)"
      R"("bytes_out":{},"prompt_tokens":{},"cached_tokens":{},"output_tokens":{}}})",
      gateway_.wall_time_s(), json_quote(id_), peer_, method_, json_quote(path_of(target_)),
      json_quote(model_), pool_ && worker_ ? json_quote(pool_->worker_name(slot_)) : "null", status_,
      kEnds[static_cast<std::size_t>(end)], attempts_, event_stream_, to_milliseconds(ttft_),
      to_milliseconds(took), bytes_in_, bytes_out_, usage_.prompt_tokens, usage_.cached_tokens,
      usage_.output_tokens != 0 ? usage_.output_tokens : pieces_);
  gateway_.access_log_->append({line.data(), line.size()});
}

}  // namespace heng
