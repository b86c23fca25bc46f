// Implementation: requests into the engine model, its tokens out to the clients.
#include "app/engine_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "app/engine_answer.h"
#include "base/hash.h"
#include "flow/api_error.h"
#include "sim/prompt.h"
#include "sim/text.h"

namespace heng {
namespace {

constexpr unsigned kPartBits = 12;  // engine ids are job number and part; embeddings have up to 2048 parts
constexpr std::size_t kStoredMax = 1000;
constexpr std::size_t kStoredBytesMax = 64 << 20;
constexpr HeaderField kJson{"Content-Type", "application/json"};
constexpr HeaderField kEventStream[] = {{"Content-Type", "text/event-stream; charset=utf-8"},
                                        {"Cache-Control", "no-cache"}};

std::string_view id_prefix(CallKind kind) {
  switch (kind) {
    case CallKind::chat:
      return "chatcmpl-";
    case CallKind::completion:
      return "cmpl-";
    case CallKind::response:
      return "resp_";
    case CallKind::embedding:
      return "embd-";
  }
  return "";
}

std::string_view prompt_field(CallKind kind) {
  return kind == CallKind::chat ? "messages" : kind == CallKind::completion ? "prompt" : "input";
}

struct CallRoute {
  std::string_view path;
  CallKind kind;
};
constexpr CallRoute kCallRoutes[] = {{"/v1/chat/completions", CallKind::chat},
                                     {"/v1/completions", CallKind::completion},
                                     {"/v1/responses", CallKind::response},
                                     {"/v1/embeddings", CallKind::embedding}};

}  // namespace

/// One HTTP request under way.
struct EngineServer::Job : AnswerObserver {
  EngineServer* server = nullptr;
  ServerConnection* connection = nullptr;
  std::uint64_t number = 0;
  Instant submitted;
  EngineCall call;
  std::string id;
  std::string conversation;  // responses: what the next turn builds on; the answer joins at the end
  std::string answer;
  std::vector<EngineRequest> requests;  // until they are submitted
  std::size_t parts = 0;
  std::size_t parts_open = 0;
  bool first_token_seen = false;
  AnswerFacts facts;
  std::unique_ptr<AnswerStream> stream;

  void on_client_gone() override { server->drop(number); }
};

Result<void> check(const EngineServerOptions& options) {
  if (options.model.empty()) return fail(ErrorCode::invalid, "the model's name must not be empty");
  if (options.output_tokens == 0) return fail(ErrorCode::invalid, "output_tokens must be at least 1");
  if (options.embedding_dimensions == 0)
    return fail(ErrorCode::invalid, "embedding_dimensions must be at least 1");
  return check(options.engine);
}

EngineServer::EngineServer(Loop& loop, EngineServerOptions options)
    : loop_(loop),
      options_(std::move(options)),
      engine_(options_.engine),
      labels_{{"model_name", options_.model}},
      time_to_first_token_(registry_.histogram("vllm:time_to_first_token_seconds", "Arrival to first token.",
                                               ttft_buckets(), labels_)),
      request_latency_(registry_.histogram("vllm:e2e_request_latency_seconds", "Arrival to last token.",
                                           duration_buckets(), labels_)),
      stopped_(ended("stop")),
      cut_(ended("length")),
      aborted_(ended("abort")),
      timer_(loop, [this] { pump(); }),
      http_(loop, *this, {}) {
  HENG_ASSERT(check(options_).has_value());
}

EngineServer::~EngineServer() = default;

Counter& EngineServer::ended(std::string_view reason) {
  MetricLabels labels = labels_;
  labels.emplace_back("finished_reason", reason);
  return registry_.counter("vllm:request_success_total", "Requests ended, by reason.", labels);
}

Result<void> EngineServer::start() {
  const Result<void> listening = http_.listen(options_.listen);
  if (listening) id_seed_ = combine(options_.seed, http_.endpoint().port);
  return listening;
}

void EngineServer::set_speed(double speed) {
  engine_.set_speed(speed, loop_.now());
  rearm();
}

// --- requests ---

void EngineServer::on_request(ServerConnection& connection) {
  const HttpHead& head = connection.head();
  const std::string_view path = head.target.substr(0, head.target.find('?'));
  const bool reads = head.method == "GET" || head.method == "HEAD";
  const bool posts = head.method == "POST";
  for (const CallRoute& route : kCallRoutes) {
    if (posts && path == route.path) return take_call(connection, route.kind);
  }
  constexpr std::string_view kStored = "/v1/responses/";
  constexpr std::string_view kModel = "/v1/models/";
  if (path.starts_with(kStored) && (reads || head.method == "DELETE")) {
    return answer_stored(connection, path.substr(kStored.size()));
  }
  if (reads && path == "/v1/models") return answer_models(connection, {});
  if (reads && path.starts_with(kModel)) return answer_models(connection, path.substr(kModel.size()));
  if (reads && path == "/health") return connection.respond(200, {}, {});
  if (reads && path == "/metrics") {
    const HeaderField type{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"};
    return connection.respond(200, {&type, 1}, metrics());
  }
  if ((reads || posts) && path == "/control") return take_control(connection);
  respond_error(connection, {404, fmt::format("There is no {} {}.", head.method, path), "not_found", ""});
}

void EngineServer::respond_json(ServerConnection& connection, int status, std::string_view body) {
  connection.respond(status, {&kJson, 1}, body);
}

void EngineServer::respond_error(ServerConnection& connection, const CallError& error) {
  respond_json(connection, error.status,
               api_error_body(error.status, error.message, error.code, error.param));
}

void EngineServer::take_control(ServerConnection& connection) {
  if (connection.head().method == "POST") {
    const auto speed = reader_.read_speed(connection.body());
    if (!speed) return respond_error(connection, speed.error());
    set_speed(*speed);
  }
  pump();
  respond_json(connection, 200,
               fmt::format(R"({{"speed":{},"running":{},"waiting":{},"kv_usage":{}}})",
                           engine_.params().speed, engine_.running(), engine_.waiting(), engine_.kv_usage()));
}

void EngineServer::answer_models(ServerConnection& connection, std::string_view id) {
  const std::string model =
      fmt::format(R"({{"id":{},"object":"model","created":0,"owned_by":"heng","max_model_len":{}}})",
                  json_quote(options_.model), engine_.context_tokens());
  if (id.empty())
    return respond_json(connection, 200, fmt::format(R"({{"object":"list","data":[{}]}})", model));
  if (id == options_.model) return respond_json(connection, 200, model);
  respond_error(connection,
                {404, fmt::format("The model `{}` does not exist.", id), "model_not_found", "model"});
}

void EngineServer::answer_stored(ServerConnection& connection, std::string_view id) {
  const auto found = stored_by_id_.find(id);
  if (found == stored_by_id_.end()) {
    return respond_error(connection,
                         {404, fmt::format("Response with id '{}' not found.", id), "not_found", ""});
  }
  if (connection.head().method != "DELETE") return respond_json(connection, 200, found->second->body);
  const std::string body =
      fmt::format(R"({{"id":"{}","object":"response","deleted":true}})", found->second->id);
  const auto entry = found->second;
  stored_by_id_.erase(found);
  stored_bytes_ -= entry->body.size() + entry->conversation.size();
  stored_.erase(entry);
  respond_json(connection, 200, body);
}

void EngineServer::take_call(ServerConnection& connection, CallKind kind) {
  auto call = reader_.read(kind, connection.body(), options_.model);
  if (!call) return respond_error(connection, call.error());
  auto job = std::make_unique<Job>();
  job->server = this;
  job->connection = &connection;
  job->number = next_number_++;
  job->submitted = loop_.now();
  CallError error;
  if (!prepare(std::move(*call), *job, error) || !submit(*job, error))
    return respond_error(connection, error);
  connection.observe(job.get());
  Job& accepted = *job;
  jobs_.emplace(accepted.number, std::move(job));
  rearm();
  if (!accepted.stream) return;
  connection.start(200, "OK", kEventStream, BodyFraming::chunked);
  scratch_.clear();
  accepted.stream->append_head(accepted.facts, scratch_);
  const std::string_view bytes = scratch_;
  if (!bytes.empty()) connection.write({&bytes, 1}, false);
}

/// Turns the call into what the model computes. False: `error` says why not.
bool EngineServer::prepare(EngineCall call, Job& job, CallError& error) {
  job.call = std::move(call);
  job.id = make_id(id_prefix(job.call.kind), job.number);
  const std::uint32_t block_size = options_.engine.block_size;
  for (std::size_t i = 0; i < job.call.inputs.size(); ++i) {
    EngineRequest request;
    request.id = job.number << kPartBits | i;
    request.prompt_tokens = static_cast<std::uint32_t>(count_tokens(job.call.inputs[i].size()));
    request.blocks = prompt_blocks(job.call.inputs[i], block_size);
    job.requests.push_back(std::move(request));
  }
  if (job.call.kind == CallKind::embedding) return true;
  std::string prompt = std::move(job.call.prompt);
  if (job.call.kind == CallKind::response) {
    if (!job.call.previous_response_id.empty()) {
      const auto previous = stored_by_id_.find(job.call.previous_response_id);
      if (previous == stored_by_id_.end()) {
        error = {404, fmt::format("Previous response with id '{}' not found.", job.call.previous_response_id),
                 "previous_response_not_found", "previous_response_id"};
        return false;
      }
      prompt.insert(0, previous->second->conversation);
    }
    job.conversation = prompt;
    if (!job.call.instructions.empty()) {
      std::string system;
      append_message(system, "system", job.call.instructions);
      prompt.insert(0, system);
    }
  }
  EngineRequest request;
  request.id = job.number << kPartBits;
  request.prompt_tokens = static_cast<std::uint32_t>(count_tokens(prompt.size()));
  request.every_token = job.call.stream;
  request.output_tokens = job.call.max_tokens != 0 ? job.call.max_tokens : options_.output_tokens;
  request.reason = job.call.max_tokens != 0 ? FinishReason::length : FinishReason::stop;
  if (request.prompt_tokens < engine_.context_tokens()) {
    const std::uint32_t room = engine_.context_tokens() - request.prompt_tokens;
    if (request.output_tokens > room) request.reason = FinishReason::length;
    request.output_tokens = std::min(request.output_tokens, room);
    job.answer = filler_text(hash_bytes(prompt), request.output_tokens);
    prompt += job.answer;  // hashed too, so that the next turn finds the answer in the cache
    request.blocks = prompt_blocks(prompt, block_size);
  }
  job.facts = {.kind = job.call.kind,
               .id = job.id,
               .model = options_.model,
               .created = std::chrono::duration_cast<std::chrono::seconds>(
                              std::chrono::system_clock::now().time_since_epoch())
                              .count(),
               .include_usage = job.call.include_usage,
               .store = job.call.store,
               .max_tokens = job.call.max_tokens,
               .instructions = job.call.instructions,
               .previous_response_id = job.call.previous_response_id,
               .text = job.answer,
               .prompt_tokens = request.prompt_tokens,
               .finish = request.reason};
  job.requests.push_back(std::move(request));
  if (job.call.stream) job.stream = std::make_unique<AnswerStream>(job.facts);
  return true;
}

/// Submits all parts or none. False: `error` says why not.
bool EngineServer::submit(Job& job, CallError& error) {
  const Instant now = loop_.now();
  for (EngineRequest& request : job.requests) {
    const std::uint32_t tokens = request.prompt_tokens;
    const Refusal refusal = engine_.submit(std::move(request), now);
    if (refusal == Refusal::none) {
      ++job.parts;
      continue;
    }
    HENG_ASSERT(refusal ==
                Refusal::prompt_too_long);  // the reader lets no empty prompt pass, and ids are ours
    for (std::size_t i = 0; i < job.parts; ++i) engine_.cancel(job.number << kPartBits | i, now);
    error = {
        400,
        fmt::format(
            "This model's maximum context length is {} tokens. However, your request has {} prompt tokens. "
            "Please reduce the length of the {}.",
            engine_.context_tokens(), tokens, prompt_field(job.call.kind)),
        "context_length_exceeded", std::string(prompt_field(job.call.kind))};
    return false;
  }
  job.parts_open = job.parts;
  job.requests.clear();
  job.requests.shrink_to_fit();
  return true;
}

// --- tokens ---

void EngineServer::rearm() {
  const Instant next = engine_.next_event();
  if (next == Engine::kNever) return timer_.stop();
  if (options_.one_thread) {
    // No call is answered, no connection looked at until the step is over.
    std::this_thread::sleep_for(next - loop_.now());
    return timer_.once(Duration(0));
  }
  timer_.once(std::max(Duration(0), next - loop_.now()));
}

void EngineServer::pump() {
  events_.clear();
  engine_.advance(loop_.now(), events_);
  for (const EngineEvent& event : events_) take_event(event);
  rearm();
}

void EngineServer::take_event(const EngineEvent& event) {
  const auto found = jobs_.find(event.id >> kPartBits);
  HENG_ASSERT(found != jobs_.end());
  Job& job = *found->second;
  if (event.tokens == 1 || (event.tokens == 0 && !job.first_token_seen)) {
    job.first_token_seen = true;
    job.facts.cached_tokens = event.cached_tokens;
    time_to_first_token_.observe(to_seconds(event.at - job.submitted));
  }
  if (event.finish != FinishReason::none) --job.parts_open;
  const bool complete = job.parts_open == 0;
  if (complete) {
    request_latency_.observe(to_seconds(event.at - job.submitted));
    (event.finish == FinishReason::stop ? stopped_ : cut_).add();
    // Before the last write: an answer that waits for its client outlives the job.
    job.connection->observe(nullptr);
  }
  if (job.stream) take_token(job, event);
  if (complete) finish(job);
}

void EngineServer::take_token(Job& job, const EngineEvent& event) {
  scratch_.clear();
  if (event.tokens == 1) job.stream->append_opening(job.facts, scratch_);
  job.stream->append_token(job.facts, event.tokens - 1, scratch_);
  const bool last = event.finish != FinishReason::none;
  if (last) job.stream->append_ending(job.facts, scratch_);
  const std::string_view bytes = scratch_;
  job.connection->write({&bytes, 1}, last);
}

/// Sends an answer that is not streamed, keeps what must be kept, and forgets the job.
void EngineServer::finish(Job& job) {
  std::string body;
  if (job.call.kind == CallKind::embedding) {
    const std::uint32_t dimensions =
        job.call.dimensions != 0 ? job.call.dimensions : options_.embedding_dimensions;
    std::vector<std::vector<float>> vectors;
    std::uint32_t tokens = 0;
    for (const std::string& input : job.call.inputs) {
      vectors.push_back(embed(input, dimensions));
      tokens += static_cast<std::uint32_t>(count_tokens(input.size()));
    }
    body = embedding_answer(options_.model, vectors, job.call.base64, tokens);
  } else if (!job.stream || job.call.kind == CallKind::response) {
    body = whole_answer(job.facts);
  }
  if (!job.stream) respond_json(*job.connection, 200, body);
  if (job.call.kind == CallKind::response && job.call.store) {
    store({job.id, std::move(body), std::move(job.conversation) + job.answer});
  }
  jobs_.erase(job.number);
}

void EngineServer::drop(std::uint64_t number) {
  const auto found = jobs_.find(number);
  HENG_ASSERT(found != jobs_.end());
  for (std::size_t i = 0; i < found->second->parts; ++i) engine_.cancel(number << kPartBits | i, loop_.now());
  jobs_.erase(found);
  aborted_.add();
  rearm();
}

void EngineServer::store(StoredResponse response) {
  stored_bytes_ += response.body.size() + response.conversation.size();
  stored_.push_front(std::move(response));
  stored_by_id_.emplace(stored_.front().id, stored_.begin());
  while (stored_.size() > kStoredMax || stored_bytes_ > kStoredBytesMax) {
    const StoredResponse& oldest = stored_.back();
    stored_bytes_ -= oldest.body.size() + oldest.conversation.size();
    stored_by_id_.erase(oldest.id);
    stored_.pop_back();
  }
}

std::string EngineServer::make_id(std::string_view prefix, std::uint64_t number) const {
  return fmt::format("{}{:016x}{:016x}", prefix, combine(id_seed_, number), combine(number, id_seed_));
}

std::string EngineServer::metrics() {
  pump();  // the model may have passed over steps without events
  const EngineCounters& counters = engine_.counters();
  const auto gauge = [&](std::string_view name, std::string_view help, double value) {
    registry_.gauge(name, help, labels_).set(value);
  };
  const auto counter = [&](std::string_view name, std::string_view help, std::uint64_t value) {
    registry_.counter(name, help, labels_).value = static_cast<double>(value);
  };
  gauge("vllm:num_requests_running", "Requests in the batch.", engine_.running());
  gauge("vllm:num_requests_waiting", "Requests in the queue.", engine_.waiting());
  gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use; 1 means all.", engine_.kv_usage());
  counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
          counters.prefix_query_tokens);
  counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
          counters.prefix_hit_tokens);
  counter("vllm:num_preemptions_total", "Requests preempted for want of KV blocks.", counters.preemptions);
  counter("vllm:prompt_tokens_total", "Prompt tokens processed.", counters.prompt_tokens);
  counter("vllm:generation_tokens_total", "Tokens generated.", counters.generation_tokens);
  MetricLabels cache = labels_;
  cache.emplace_back("block_size", fmt::format("{}", options_.engine.block_size));
  cache.emplace_back("num_gpu_blocks", fmt::format("{}", options_.engine.kv_blocks));
  registry_.gauge("vllm:cache_config_info", "The KV cache's configuration.", cache).set(1);
  return registry_.expose();
}

}  // namespace heng
