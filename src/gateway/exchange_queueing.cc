// A request among others: what its key allows, how urgent it is, how long it may wait, and what it is
// charged.
#include <fmt/format.h>

#include <charconv>

#include "base/hash.h"
#include "gateway/exchange.h"
#include "gateway/gateway.h"

namespace heng {

namespace {

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

constexpr double kClientTimeoutMaxSeconds = 1e6;                  // more is no news
constexpr Duration kRetryAfterMin = 500ms, kRetryAfterMax = 60s;  // clients heed no more than 60 s

}  // namespace

/// What the head says about waiting. False: the request has been refused.
bool Exchange::read_queueing() {
  const HttpHead& head = connection_->head();
  priority = tenant_ ? tenant_->priority : kPriorityNormal;
  weight = tenant_ ? tenant_->weight : 1;
  if (const auto wanted = head.find("x-heng-priority")) {
    const auto given = number<std::uint32_t>(*wanted);
    if (!given || *given > kPriorityMax) {
      refuse({400,
              fmt::format("x-heng-priority must be a whole number from 0 to {}", kPriorityMax),
              {},
              "invalid_priority"});
      return false;
    }
    priority = std::min(priority, *given);  // nobody raises their own
  }
  if (!pool_->pool().limited()) return true;
  tenant = hash_bytes(tenant_ ? tenant_->name : peer_);
  auto seconds = head.find("x-stainless-timeout");  // of the official clients; Python's has the other
  if (!seconds) seconds = head.find("x-stainless-read-timeout");
  const double timeout = seconds ? number<double>(*seconds).value_or(0) : 0;
  if (timeout > 0 && timeout < kClientTimeoutMaxSeconds) client_timeout_ = from_seconds(timeout);
  return true;
}

/// Counts the request against its key. False: it has been refused.
bool Exchange::admit_by_key() {
  if (!tenant_) return true;
  key_use_ = gateway_.key_uses_.of(*tenant_, arrived_);
  if (key_use_ == nullptr) return true;
  reserved_tokens_ = request_.is_inference() ? view_.prompt_tokens + view_.output_tokens_max : 0;
  const auto refusal = key_use_->admit(reserved_tokens_, arrived_);
  counted_by_key_ = !refusal;
  if (!refusal) return true;
  pool_->line().count_over_limit(refusal->limit);
  refuse({429,
          refusal->message,
          {},
          "rate_limit_exceeded",
          refusal->ever ? spread(refusal->retry_after) : Duration(0)});
  return false;
}

/// The x-ratelimit- fields, for the head of an answer. `values` keeps what they point to.
void Exchange::append_rate_limits(std::vector<HeaderField>& fields, std::vector<std::string>& values) {
  if (key_use_ == nullptr) return;
  values.reserve(6);  // stay where they are
  rate_limit_fields(*key_use_, gateway_.loop_.now(), [&](std::string_view name, std::string value) {
    values.push_back(std::move(value));
    fields.push_back({name, values.back()});
  });
}

/// Those refused together must not come back together.
Duration Exchange::spread(Duration wait) {
  const Duration spread = from_seconds(to_seconds(wait) * (1 + gateway_.rng_.uniform() / 2));
  return std::clamp(spread, kRetryAfterMin, kRetryAfterMax);
}

void Exchange::wait_in_line() {
  const Instant now = gateway_.loop_.now();
  waits_since_ = now;
  again = attempts_made_ != 0;
  deadline = std::min(now + gateway_.config_.queue.timeout, ends_);
  if (client_timeout_ > Duration(0)) deadline = std::min(deadline, arrived_ + client_timeout_);
  cost = 0;  // a second turn has been paid with the first
  if (charged_ == 0) {
    const bool answers = request_.is_inference();
    cost = service_cost(view_.prompt_tokens, answers ? pool_->expected_output(view_.output_tokens_max) : 0);
  }
  // There may be room although somebody waits: for a worker that alone has what is asked for.
  const bool room = pool_->pool().room() == Pool::Room::free;
  const std::shared_ptr<ModelPool> pool = pool_;  // joining may end this exchange
  pool->line().join(*this, now);
  if (room) pool->serve_line_later();
}

bool Exchange::take_turn(Instant now) {
  Pool& pool = pool_->pool();
  if (avoid_ != kNoSlot && pool.room(avoid_) == Pool::Room::none) avoid_ = kNoSlot;  // better than nobody
  turn_slot_ =
      avoid_ == kNoSlot ? choose_worker() : pool.reserve(view_for_choice(), now, avoid_).value_or(kNoSlot);
  return turn_slot_ != kNoSlot;
}

Duration Exchange::begin_turn(Instant now) {
  const Duration waited = now - waits_since_;
  waited_ += waited;
  charged_ += cost;
  start_attempt(turn_slot_);
  if (attempts_made_ == 1) gateway_.hedge_later(*this);
  return waited;
}

void Exchange::turn_away(ApiError error) {
  waited_ += gateway_.loop_.now() - waits_since_;
  error.retry_after = spread(error.retry_after);
  refuse(error);
}

void Exchange::change_pool(std::shared_ptr<ModelPool> pool) {
  pool_ = std::move(pool);
  avoid_ = kNoSlot;
  for (Attempt& attempt : attempts_) attempt.change_pool(*pool_);
  pool_->line().join(*this, gateway_.loop_.now());
}

/// Without a report, by the events of a stream, or else as if the answer's JSON were a prompt's.
double Exchange::charged_output() const {
  const bool told = usage().prompt_tokens != 0 || output_tokens() != 0;
  const bool writes = request_.is_inference() && request_.path() != "/v1/embeddings" && status_ < 400;
  return told || !writes || !answering_ ? output_tokens() : pool_->estimate_tokens(bytes_out_);
}

/// Tenant and key pay for what the request has taken, whatever was expected.
void Exchange::settle(End end) {
  const bool served = attempts_made_ != 0 && end != End::refused && (answering_ || end == End::canceled);
  const double prompt = !served                      ? 0
                        : usage().prompt_tokens != 0 ? usage().prompt_tokens
                                                     : view_.prompt_tokens;
  const double output = charged_output();
  if (pool_ && pool_->line().keeps_accounts())
    pool_->line().settle(*this, service_cost(prompt, output) - charged_);
  if (counted_by_key_) key_use_->end(reserved_tokens_, prompt + output, gateway_.loop_.now());
  counted_by_key_ = false;
  key_use_ = nullptr;
}

}  // namespace heng
