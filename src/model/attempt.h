// How one attempt of a request on one worker went: the facts that policies, health and metrics learn from.
#pragma once

#include <cstdint>
#include <span>

#include "base/time.h"
#include "model/pool_view.h"

namespace heng {

enum class Outcome : std::uint8_t {
  ok,            // complete answer, status below 400
  client_error,  // complete answer, 4xx: never the worker's fault
  overloaded,    // 429 or 503: the worker lives but takes no more
  server_error,  // any other 5xx
  refused,       // connection refused or unreachable, no byte sent
  reset,         // connection broke
  timeout,       // connect, first byte, idle or total limit passed
  protocol,      // the worker's answer was not valid HTTP
  canceled,      // the client left or the gateway gave up: says nothing about the worker
};

constexpr bool is_worker_fault(Outcome outcome) {
  return outcome >= Outcome::server_error && outcome <= Outcome::protocol;
}

struct AttemptEvent {
  enum class Kind : std::uint8_t { started, first_byte, ended };
  Kind kind = Kind::started;
  Outcome outcome = Outcome::ok;  // meaningful when `ended`
  Slot worker = kNoSlot;
  std::uint64_t request = 0;
  Duration elapsed{};             // since the attempt was reserved
  Duration time_to_first_byte{};  // `first_byte` and `ended`; zero if there was none
  double prompt_tokens = 0;       // estimated at start; as the worker reported it, where it did, when `ended`
  double cached_tokens = -1;      // of the prompt, as the worker reported it; negative: it did not
  double output_tokens = 0;       // reported, or estimated from bytes and events; `ended` only
  std::span<const std::uint64_t> prefix{};  // of the request, see RequestView; `started` only
  double block_tokens = 0;                  // `started` only
  bool stream = true;                       // `started` only; without, the first byte comes with all others
};

}  // namespace heng
