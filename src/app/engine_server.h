// `heng engine`: an OpenAI-compatible server whose answers take the time the engine model says.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "app/engine_call.h"
#include "host/metrics.h"
#include "live/http_server.h"
#include "live/loop.h"
#include "sim/engine.h"

namespace heng {

struct EngineServerOptions {
  Endpoint listen{"127.0.0.1", 8000};
  std::string model = "heng-8b";
  EngineParams engine;
  std::uint32_t output_tokens = 128;         // of answers to requests that give no maximum
  std::uint32_t embedding_dimensions = 256;  // of requests that give none
  bool one_thread = false;  // serve nobody while the model computes, as servers do that share its thread
  std::uint64_t seed = 0;   // of ids; with the port, so that servers on one machine make different ones
};

/// Fails with the option's name and what it must be.
Result<void> check(const EngineServerOptions& options);

/// One simulated replica. Lives on its loop's thread, beside others if wanted; destroyed between turns of the
/// loop.
///
/// An answer has exactly the tokens asked for (max_tokens, max_completion_tokens, max_output_tokens; finish
/// reason "length") or output_tokens of them ("stop"). A client that leaves cancels its request in the model.
/// Besides the OpenAI API: /health, /metrics under vLLM's names, GET /control (state) and POST /control
/// {"speed": x}, which changes the speed at once, for demonstrations and tests. There is no authentication:
/// keep it on loopback.
class EngineServer final : private RequestHandler {
 public:
  /// The options must pass `check`.
  EngineServer(Loop& loop, EngineServerOptions options);
  ~EngineServer() override;
  EngineServer(const EngineServer&) = delete;
  EngineServer& operator=(const EngineServer&) = delete;

  /// Fails with the address and the reason. Port 0 takes a free one.
  Result<void> start();
  Endpoint endpoint() const { return http_.endpoint(); }
  void set_speed(double speed);
  const Engine& engine() const { return engine_; }
  /// Accepts no more connections; answers under way go on.
  void drain() { http_.drain(); }
  std::size_t connections() const { return http_.connections(); }

 private:
  struct Job;
  struct StoredResponse {
    std::string id;
    std::string body;
    std::string conversation;  // rendered prompt and answer, without the instructions
  };

  void on_request(ServerConnection& connection) override;
  void take_call(ServerConnection& connection, CallKind kind);
  void take_control(ServerConnection& connection);
  void answer_stored(ServerConnection& connection, std::string_view id);
  void answer_models(ServerConnection& connection, std::string_view id);
  void respond_json(ServerConnection& connection, int status, std::string_view body);
  void respond_error(ServerConnection& connection, const CallError& error);

  bool prepare(EngineCall call, Job& job, CallError& error);
  bool submit(Job& job, CallError& error);
  void take_event(const EngineEvent& event);
  void take_token(Job& job, const EngineEvent& event);
  void finish(Job& job);
  void drop(std::uint64_t number);  // cancels what the model still works on
  void pump();
  void rearm();
  Counter& ended(std::string_view reason);
  std::string metrics();
  void store(StoredResponse response);
  std::string make_id(std::string_view prefix, std::uint64_t number) const;

  Loop& loop_;
  EngineServerOptions options_;
  Engine engine_;
  CallReader reader_;
  MetricRegistry registry_;
  MetricLabels labels_;
  Histogram& time_to_first_token_;
  Histogram& request_latency_;
  Counter& stopped_;
  Counter& cut_;
  Counter& aborted_;
  std::uint64_t id_seed_ = 0;
  std::uint64_t next_number_ = 1;
  std::unordered_map<std::uint64_t, std::unique_ptr<Job>> jobs_;
  std::list<StoredResponse> stored_;  // newest first
  std::unordered_map<std::string_view, std::list<StoredResponse>::iterator>
      stored_by_id_;  // keys point into stored_
  std::size_t stored_bytes_ = 0;
  std::vector<EngineEvent> events_;
  std::string scratch_;  // the bytes of one write
  Timer timer_;
  HttpServer http_;  // last, so that no connection outlives what it refers to
};

}  // namespace heng
