// What an answer says it has cost.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace heng {

/// What a worker says it has processed.
struct Usage {
  std::uint32_t prompt_tokens = 0;
  std::uint32_t cached_tokens = 0;  // of the prompt
  bool cached_known = false;        // 0 may also mean that the worker does not say
  std::uint32_t output_tokens = 0;
};

/// Finds the last `usage` object in an answer (plain JSON or server-sent events), or else llama-server's
/// `timings`. Text in strings is never taken for one, since its quotes are escaped. Cheap enough for every
/// event of a stream; allocates nothing.
class UsageReader {
 public:
  /// The bytes of the answer in order, cut anywhere.
  void take(std::string_view piece);
  const Usage& usage() const { return usage_; }
  void reset();

 private:
  enum class Found : std::uint8_t { none, cut, whole };
  static constexpr std::size_t kHeldMax = 768;  // engines' objects have up to 400 bytes

  Found read(std::string_view text);
  void note_usage(std::string_view object);
  void note_timings(std::string_view object);
  bool resume(std::string_view piece);

  Usage usage_;
  bool standard_ = false;  // by a `usage`
  std::size_t held_ = 0;
  std::array<char, kHeldMax> held_bytes_;  // what a cut object, or its name, begins with
};

}  // namespace heng
