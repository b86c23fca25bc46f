// Keeps the books of one attempt; what its answer means is the exchange's affair.
#include "gateway/attempt.h"

#include <algorithm>
#include <utility>

#include "gateway/exchange.h"

namespace heng {

Attempt::~Attempt() {
  if (connection_ != nullptr) connection_->cancel();
}

void Attempt::start(ModelPool& pool, Slot slot, const RequestView& view, const ClientRequest& request,
                    const ExchangeTimeouts& timeouts, Instant now) {
  HENG_ASSERT(!active_);
  active_ = true;
  pool_ = &pool;
  slot_ = slot;
  worker_ = pool.shared_worker(slot);
  request_id_ = view.id;
  prompt_tokens_ = view.prompt_tokens;
  started_ = now;
  ttft_ = Duration(0);
  pool.count_assignment(slot);
  worker_->attempt_started(view, now);
  const std::string& own_name = pool.worker_model(slot);
  const std::string& model = !own_name.empty()     ? own_name
                             : pool.model() == "*" ? request.model()
                                                   : pool.model();
  connection_ = &worker_->origin().send(request.bytes_for(*worker_, model, bytes_), timeouts, *this);
}

void Attempt::note_first_byte(const RequestView& view, Instant now) {
  ttft_ = std::max(now - started_, Duration(1));
  pool_->pool().first_byte(slot_, view, ttft_, now);
  const bool sent = connection_ == nullptr || connection_->request_sent();
  if (sent && bytes_.capacity() > kBufferKept) bytes_.release();
}

void Attempt::fail(std::string message) {
  const bool sent = connection_ == nullptr || connection_->request_sent();
  if (connection_ != nullptr) std::exchange(connection_, nullptr)->cancel();
  exchange_.on_failed(*this, {Outcome::reset, sent, std::move(message)});
}

void Attempt::end(Outcome outcome, const AnswerTokens& tokens, Instant now) {
  if (!active_) return;
  active_ = false;
  if (connection_ != nullptr) std::exchange(connection_, nullptr)->cancel();
  const Usage& usage = tokens.usage;
  AttemptEvent event;
  event.kind = AttemptEvent::Kind::ended;
  event.outcome = outcome;
  event.worker = slot_;
  event.request = request_id_;
  event.elapsed = now - started_;
  event.time_to_first_byte = ttft_;
  event.prompt_tokens = usage.prompt_tokens != 0 ? usage.prompt_tokens : prompt_tokens_;
  if (usage.cached_known) event.cached_tokens = usage.cached_tokens;
  event.output_tokens = usage.output_tokens != 0 ? usage.output_tokens : tokens.pieces;
  pool_->pool().end(event, now);
  worker_->attempt_ended(request_id_, outcome, now);
  if (outcome == Outcome::overloaded && pool_->pool().is_member(slot_)) pool_->learn_refusal(slot_);
  pool_->serve_line_later();
}

void Attempt::change_pool(const ModelPool& pool) {
  if (worker_) slot_ = pool.slot_of(worker_->identity());
}

void Attempt::reset() {
  pool_ = nullptr;
  worker_.reset();
  slot_ = kNoSlot;
  ttft_ = Duration(0);
  if (bytes_.capacity() > kBufferKept) bytes_.release();
  bytes_.charge_to(nullptr);
}

void Attempt::on_response_head(const HttpHead& head) { exchange_.on_head(*this, head); }

void Attempt::on_response_body(std::span<const std::string_view> pieces, bool complete) {
  if (complete) connection_ = nullptr;
  exchange_.on_body(pieces, complete);
}

void Attempt::on_response_failed(const ExchangeFailure& failure) {
  connection_ = nullptr;
  exchange_.on_failed(*this, failure);
}

}  // namespace heng
