// A request that waits for its turn: how urgent it is, how long it may take, and what it is charged.
#include <fmt/format.h>

#include <charconv>

#include "base/hash.h"
#include "gateway/exchange.h"
#include "gateway/gateway.h"

namespace heng {

namespace {

std::optional<std::uint32_t> whole_number(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

constexpr Duration kRetryAfterMin = 500ms, kRetryAfterMax = 60s;  // clients heed no more than 60 s

}  // namespace

/// What the head says about waiting. False: the request has been refused.
bool Exchange::read_queueing() {
  const HttpHead& head = connection_->head();
  priority = kPriorityNormal;
  if (const auto wanted = head.find("x-heng-priority")) {
    const auto given = whole_number(*wanted);
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
  tenant = hash_bytes(peer_);
  // The official clients tell how long they wait, in whole seconds.
  if (const auto seconds = head.find("x-stainless-timeout"))
    client_timeout_ = std::chrono::seconds(whole_number(*seconds).value_or(0));
  return true;
}

void Exchange::wait_in_line() {
  const Instant now = gateway_.loop_.now();
  waits_since_ = now;
  again = attempts_made_ != 0;
  deadline = now + gateway_.config_.queue.timeout;
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
  turn_slot_ = avoid_ == kNoSlot ? choose_worker() : pool.reserve(view_, now, avoid_).value_or(kNoSlot);
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

/// Those turned away together must not come back together.
void Exchange::turn_away(ApiError error) {
  waited_ += gateway_.loop_.now() - waits_since_;
  const double jitter = 1 + gateway_.rng_.uniform() / 2;
  error.retry_after =
      std::clamp(from_seconds(to_seconds(error.retry_after) * jitter), kRetryAfterMin, kRetryAfterMax);
  refuse(error);
}

void Exchange::change_pool(std::shared_ptr<ModelPool> pool) {
  pool_ = std::move(pool);
  avoid_ = kNoSlot;
  pool_->line().join(*this, gateway_.loop_.now());
}

/// The tenant pays for what the request has taken, whatever was expected.
void Exchange::settle() {
  if (!pool_ || !pool_->line().keeps_accounts()) return;
  const double prompt = usage_.prompt_tokens != 0 ? usage_.prompt_tokens : view_.prompt_tokens;
  const double taken = attempts_made_ == 0 ? 0 : service_cost(prompt, output_tokens());
  pool_->line().settle(*this, taken - charged_);
}

}  // namespace heng
