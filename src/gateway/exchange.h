// One request on its way through the gateway: from the client's whole request to the last byte of its answer.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "flow/event_boundary.h"
#include "flow/rate_limit.h"
#include "flow/request_queue.h"
#include "gateway/attempt.h"
#include "gateway/client_request.h"
#include "gateway/model_pool.h"
#include "gateway/tenant_uses.h"
#include "live/http_client.h"
#include "live/http_server.h"

namespace heng {

class Gateway;

/// Between the client's connection and the workers'. Owned and recycled by the gateway. Every exchange ends
/// in exactly one call of finish(), which releases what it has reserved.
class Exchange final : public AnswerObserver, public QueuedRequest {
 public:
  explicit Exchange(Gateway& gateway) : gateway_(gateway) {}

  /// Takes the request from the connection and starts the first attempt, or answers with an error.
  void begin(ServerConnection& connection);
  // from the line in which it waits:
  /// Reserves a worker for it; false if none that it may go to has room.
  bool take_turn(Instant now);
  /// Goes to the worker of take_turn, after it has left the line; says how long it has waited.
  Duration begin_turn(Instant now);
  /// `timeouts.total` has passed since it arrived.
  bool is_overdue(Instant now) const { return now >= ends_; }
  /// It has left the line without a turn.
  void turn_away(ApiError error);
  /// It has left the line of a pool that `pool` takes the place of.
  void change_pool(std::shared_ptr<ModelPool> pool);

  /// `worker` has stopped answering: what waits there for its first byte goes to another.
  void leave_worker(const Worker& worker);
  /// The worker in this slot is taken away now: what is under way there fails like a lost connection.
  void cut(const ModelPool& pool, Slot slot);
  /// The first byte is late: one more attempt beside the first, if there is still nothing to relay.
  void hedge();
  /// Which of the requests it has carried this is; for calls that come back later.
  std::uint64_t request_id() const { return view_.id; }

 private:
  friend class Attempt;
  enum class End : std::uint8_t { completed, refused, failed, canceled };

  // AnswerObserver: the client's side
  void on_client_gone() override;
  void on_drained() override;
  // from the attempts: the workers' side
  void on_head(Attempt& attempt, const HttpHead& head);
  void on_body(std::span<const std::string_view> pieces, bool complete);
  void on_failed(Attempt& attempt, const ExchangeFailure& failure);

  bool find_pool();
  bool owns_what_it_names();
  std::uint64_t resource_key(std::string_view id) const;
  std::shared_ptr<ModelPool> pool_of_resource();
  std::uint64_t affinity_key() const;
  std::uint64_t session_key() const;
  bool read_queueing();
  bool admit_by_key();
  void append_rate_limits(std::vector<HeaderField>& fields, std::vector<std::string>& values);
  Duration spread(Duration wait);
  Slot choose_worker();
  RequestView view_for_choice();
  void start_attempt(Slot slot);
  void wait_in_line();
  void settle(End end);
  Attempt* other_active(const Attempt& attempt);
  bool has_alternative(const Attempt& attempt) const;
  bool may_try_again(const Attempt& attempt, Outcome outcome);
  void try_again(Attempt& attempt, Outcome outcome);
  void end_attempts(Outcome outcome);
  std::uint32_t output_tokens() const {
    return usage().output_tokens != 0 ? usage().output_tokens : boundary_.events();
  }
  const Usage& usage() const { return usage_.usage(); }
  AnswerTokens tokens() const { return {usage(), boundary_.events()}; }
  double charged_output() const;
  void start_answer(const HttpHead& head);
  void note_first_byte(Instant now);
  void note_stored_resource(std::string_view piece);
  void run_out_of_time(const ExchangeFailure& failure);
  void break_off(const ExchangeFailure& failure);
  bool cut_short() const;
  void refuse(const ApiError& error);
  void answer_error(const ApiError& error);
  void finish(End end);
  void count_end(End end, Duration took);
  void write_access_line(End end, Duration took);

  Gateway& gateway_;
  ServerConnection* connection_ = nullptr;  // until the answer is complete or the client is gone
  TenantPtr tenant_;                        // null: the API is open
  TenantUse* tenant_use_ = nullptr;
  std::shared_ptr<ModelPool> pool_;
  ClientRequest request_;
  std::array<Attempt, 2> attempts_{Attempt(*this), Attempt(*this)};  // at once only while hedging
  Attempt* current_ = &attempts_[0];  // the one whose answer is relayed, or that was started last
  RequestView view_;
  std::string id_;
  std::uint64_t pinned_worker_ = 0;  // identity of the worker where the named resource lives
  std::uint64_t session_ = 0;        // hash of the session header's value; 0 = none
  Instant arrived_;
  Instant ends_ = kNever;  // by timeouts.total
  Instant last_piece_;
  Instant waits_since_;
  Duration waited_{0};
  Duration client_timeout_{0};  // as its client says; 0 = it does not
  Slot turn_slot_ = kNoSlot;    // reserved by take_turn
  Slot avoid_ = kNoSlot;        // has just failed it
  KeyUse* key_use_ = nullptr;   // of a key with limits
  double reserved_tokens_ = 0;  // of the key's
  bool counted_by_key_ = false;
  double charged_ = 0;  // for turns
  UsageReader usage_;
  std::uint64_t bytes_in_ = 0;
  std::uint64_t bytes_out_ = 0;
  std::uint32_t attempts_made_ = 0;
  int status_ = 0;
  bool left_worker_ = false;      // has been moved off a worker that had stopped answering
  bool answering_ = false;        // the head of the answer has been passed on
  bool flowing_ = false;          // bytes came once more after the first of the body
  bool stores_resource_ = false;  // its answer names a resource that later requests will ask for
  bool event_stream_ = false;     // ... in which an event of our own can be put
  bool length_told_ = false;      // the client knows how long the answer is to be
  bool ends_by_close_ = false;    // nothing but the end of its connection says that the stream is complete
  EventBoundary boundary_;
  std::string answer_start_;  // while its id is looked for
  std::string peer_;
};

}  // namespace heng
