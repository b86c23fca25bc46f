// From recorded calls back to calls.
#include "flow/pool_event.h"

#include <cmath>

#include "base/result.h"
#include "flow/pool.h"

namespace heng {

namespace {

bool at_least_0(double value) { return value >= 0 && std::isfinite(value); }
/// Policies count in blocks, as integers.
bool is_tokens(double value) { return value >= 0 && value <= 1e9; }
bool is_block(double tokens) { return tokens == 0 || (tokens >= 1e-3 && tokens <= 1e9); }
bool above_0(double value) { return value > 0 && std::isfinite(value); }

constexpr std::uint32_t kElsewhereMax = 1 << 24;  // sums stay far below the end of the counter

bool fits(const RequestView& request) {
  return is_tokens(request.prompt_tokens) && is_block(request.block_tokens);
}

bool fits(const AttemptEvent& attempt) {
  return attempt.elapsed >= Duration(0) && attempt.time_to_first_byte >= Duration(0) &&
         is_tokens(attempt.prompt_tokens) &&
         (attempt.cached_tokens < 0 || is_tokens(attempt.cached_tokens)) && is_tokens(attempt.output_tokens);
}

bool fits(const EngineLoad& load) {
  return at_least_0(load.running) && at_least_0(load.waiting) && load.kv_used >= 0 && load.kv_used <= 1;
}

}  // namespace

bool fits(const Pool& pool, const PoolEvent& event) {
  using Kind = PoolEvent::Kind;
  switch (event.kind) {
    case Kind::add:
      return above_0(event.weight) && at_least_0(event.capacity);
    case Kind::set_weight:
      return pool.is_member(event.worker) && above_0(event.weight) && at_least_0(event.capacity);
    case Kind::set_ramp:
      return pool.is_member(event.worker) && above_0(event.weight) && event.weight <= 1;
    case Kind::set_eligible:
    case Kind::set_limit:
      return event.worker < pool.slots();
    case Kind::remove:
    case Kind::set_drained:
      return pool.is_member(event.worker);
    case Kind::set_reported:
      return pool.is_member(event.worker) && fits(event.reported);
    case Kind::set_elsewhere:
      return event.limit <= kElsewhereMax && (event.worker == kNoSlot || pool.is_member(event.worker));
    case Kind::set_pool_limit:
    case Kind::tick:
      return true;
    case Kind::reserve:
      return fits(event.request) && (event.asked == kNoSlot || event.asked < pool.slots());
    case Kind::reserve_on:
      return fits(event.request) && event.asked < pool.slots();
    case Kind::first_byte:
    case Kind::end:
      return fits(event.attempt) && event.worker < pool.slots() &&
             pool.in_flight(event.worker) > pool.elsewhere(event.worker);
    case Kind::report_load:
      return event.asked < pool.slots();
  }
  return false;
}

Slot apply(Pool& pool, const PoolEvent& event) {
  using Kind = PoolEvent::Kind;
  const auto answer = [&](bool yes) { return yes ? event.asked : kNoSlot; };
  switch (event.kind) {
    case Kind::add:
      return pool.add(event.identity, event.weight, event.capacity);
    case Kind::set_weight:
      pool.set_weight(event.worker, event.weight, event.capacity);
      break;
    case Kind::remove:
      pool.remove(event.worker);
      break;
    case Kind::set_eligible:
      pool.set_eligible(event.worker, event.yes, event.usable);
      break;
    case Kind::set_drained:
      pool.set_drained(event.worker, event.yes);
      break;
    case Kind::set_ramp:
      pool.set_ramp(event.worker, event.weight);
      break;
    case Kind::set_reported:
      pool.set_reported(event.worker, event.reported);
      break;
    case Kind::set_limit:
      pool.set_limit(event.worker, event.limit);
      break;
    case Kind::set_pool_limit:
      pool.set_pool_limit(event.limit);
      break;
    case Kind::set_elsewhere:
      pool.set_elsewhere(event.worker, event.limit);
      break;
    case Kind::reserve:
      return pool.reserve(event.request, event.at, event.asked).value_or(kNoSlot);
    case Kind::reserve_on:
      return answer(pool.reserve_on(event.asked, event.request, event.at, event.yes));
    case Kind::first_byte:
      pool.first_byte(event.attempt, event.at);
      break;
    case Kind::end:
      pool.end(event.attempt, event.at);
      break;
    case Kind::tick:
      pool.tick(event.at);
      break;
    case Kind::report_load:
      return answer(pool.report_load(event.asked, event.weight, event.at));
  }
  return event.worker;
}

}  // namespace heng
