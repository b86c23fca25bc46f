// One request on its way through the gateway: from the client's whole request to the last byte of its answer.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "flow/inspect.h"
#include "gateway/model_pool.h"
#include "live/http_client.h"
#include "live/http_server.h"

namespace heng {

class Gateway;

/// Between the client's connection and the worker's. Owned and recycled by the gateway. Every exchange ends
/// in exactly one call of finish(), which releases what it has reserved.
class Exchange final : public AnswerObserver, public ResponseObserver {
 public:
  explicit Exchange(Gateway& gateway) : gateway_(gateway) {}
  ~Exchange() override;

  /// Takes the request from the connection and starts the first attempt, or answers with an error.
  void begin(ServerConnection& connection);

 private:
  enum class End : std::uint8_t { completed, refused, failed, canceled };

  // AnswerObserver: the client's side
  void on_client_gone() override;
  void on_drained() override;
  // ResponseObserver: the worker's side
  void on_response_head(const HttpHead& head) override;
  void on_response_body(std::span<const std::string_view> pieces, bool complete) override;
  void on_response_failed(const ExchangeFailure& failure) override;

  bool read_facts();
  bool find_pool();
  std::shared_ptr<ModelPool> pool_of_resource();
  bool reserve();
  void attempt();
  void append_fields();
  void end_attempt(Outcome outcome);
  void try_again(Outcome outcome);
  bool may_try_again(Outcome outcome);
  void start_answer(const HttpHead& head);
  void note_stored_resource(std::string_view piece);
  void break_off(const ExchangeFailure& failure);
  void refuse(int status, std::string_view message, std::string_view code = {}, std::string_view param = {});
  void answer_error(int status, std::string_view message, std::string_view code, std::string_view param);
  void finish(End end);
  void write_access_line(End end, Duration took);
  std::uint64_t affinity_key() const;
  std::uint64_t session_key() const;

  Gateway& gateway_;
  ServerConnection* connection_ = nullptr;  // until the answer is complete or the client is gone
  ClientConnection* upstream_ = nullptr;    // while an attempt is under way
  std::shared_ptr<ModelPool> pool_;
  std::shared_ptr<Worker> worker_;  // of the current or last attempt
  Slot slot_ = kNoSlot;
  RequestView view_;
  RequestFacts facts_;  // string views are valid in begin() only
  std::string id_;
  std::string method_;
  std::string target_;
  std::string model_;               // as the client named it
  std::size_t model_token_at_ = 0;  // of the JSON token in body_; size 0 = no renaming possible
  std::size_t model_token_size_ = 0;
  std::string fields_;       // forwarded fields, ready to send
  std::string credentials_;  // those that only workers without a key of their own get
  Buffer request_;           // head of the attempt, and the body if that is small
  Buffer body_;
  std::uint64_t pinned_worker_ = 0;  // identity of the worker where the named resource lives
  std::uint64_t session_ = 0;        // hash of the session header's value; 0 = none
  Instant arrived_;
  Instant attempt_started_;
  Instant last_piece_;
  Duration ttft_{0};
  Usage usage_;
  std::uint64_t bytes_in_ = 0;
  std::uint64_t bytes_out_ = 0;
  std::uint32_t pieces_ = 0;
  std::uint32_t attempts_ = 0;
  int status_ = 0;
  bool reserved_ = false;
  bool stores_resource_ = false;  // its answer names a resource that later requests will ask for
  bool event_stream_ = false;
  bool length_told_ = false;  // the client knows how long the answer is to be
  char last_bytes_[4] = {};   // of the relayed payload: "\n\n" or "\r\n\r\n" ends an SSE event
  std::string peer_;
};

}  // namespace heng
