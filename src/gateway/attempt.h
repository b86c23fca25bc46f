// One try of a request on one worker: its reservation, its connection, its time.
#pragma once

#include <memory>

#include "flow/usage.h"
#include "gateway/client_request.h"
#include "gateway/model_pool.h"
#include "live/http_client.h"

namespace heng {

class Exchange;

/// What an answer has cost, as far as known.
struct AnswerTokens {
  Usage usage;               // as the worker reported it
  std::uint32_t pieces = 0;  // events of a stream: stands in for output tokens that nobody reported
};

/// Owned and reused by its exchange. Active from start() to end(); every start has exactly one end, which
/// releases the worker.
class Attempt final : public ResponseObserver {
 public:
  explicit Attempt(Exchange& exchange) : exchange_(exchange) {}
  ~Attempt() override;

  /// `slot` has been reserved in `pool` for it. `request` must outlive the attempt's sending.
  void start(ModelPool& pool, Slot slot, const RequestView& view, const ClientRequest& request,
             const ExchangeTimeouts& timeouts, Instant now);
  /// Closes the connection unless the answer is complete, and tells policy and health how it went.
  void end(Outcome outcome, const AnswerTokens& tokens, Instant now);
  /// Breaks it off as if the worker had: the exchange hears of the failure.
  void fail(std::string message);
  /// The answer's first bytes are here; a request that has been sent is not kept.
  void note_first_byte(const RequestView& view, Instant now);

  bool active() const { return active_; }
  bool answered() const { return ttft_ > Duration(0); }  // it has had its first byte
  Worker& worker() { return *worker_; }
  /// kNoSlot before the first start, and where the worker is none of the pool's.
  Slot slot() const { return slot_; }
  Duration ttft() const { return ttft_; }
  Instant started() const { return started_; }
  /// Null once the answer is complete or failed.
  ClientConnection* connection() { return connection_; }
  /// Its request waits for another pool's worker now, with slots of its own: names its last one there.
  void change_pool(const ModelPool& pool);
  void reset();

 private:
  void on_response_head(const HttpHead& head) override;
  void on_response_body(std::span<const std::string_view> pieces, bool complete) override;
  void on_response_failed(const ExchangeFailure& failure) override;

  Exchange& exchange_;
  ModelPool* pool_ = nullptr;
  std::shared_ptr<Worker> worker_;  // of this or the last attempt
  ClientConnection* connection_ = nullptr;
  Slot slot_ = kNoSlot;
  std::uint64_t request_id_ = 0;
  double prompt_tokens_ = 0;  // estimated
  Instant started_;
  Duration ttft_{0};
  Buffer bytes_;  // head of the request, and the body if the model has another name there
  bool active_ = false;
};

}  // namespace heng
