// What a fallible call returns, and the assertion that stays on in every build.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <utility>

namespace heng {

enum class ErrorCode : std::uint8_t {
  invalid,
  not_found,
  unavailable,
  refused,
  reset,
  timeout,
  protocol,
  too_large,
  io
};

struct Error {
  ErrorCode code{};
  std::string message;  // what went wrong, where, and what to do next; no secrets
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(ErrorCode code, std::string message) {
  return std::unexpected(Error{code, std::move(message)});
}

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace heng

/// A false expression is a bug in Heng: abort with its place. On in release builds too.
#define HENG_ASSERT(expression) \
  ((expression) ? static_cast<void>(0) : ::heng::assertion_failed(#expression, __FILE__, __LINE__))
