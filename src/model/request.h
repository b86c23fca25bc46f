// What a decision may know about a request.
#pragma once

#include <cstdint>
#include <span>

namespace heng {

/// Seen by policies. No output length: nobody knows it in advance.
struct RequestView {
  std::uint64_t id = 0;
  std::uint64_t affinity = 0;  // hash of the configured key (header, user, prompt start); 0 = it has none
  double prompt_tokens = 0;    // estimated from bytes, with the ratio that `usage` has taught
  std::uint32_t output_tokens_max = 0;  // the client's max_tokens; 0 = not given
  bool stream = false;
  /// [blocks] Chained hashes: two requests with the same i-th value have the same prompt up to the end of its
  /// i-th block. The rest of the prompt, shorter than a block, has none. Valid during the call only.
  std::span<const std::uint64_t> prefix{};
  double block_tokens = 0;  // of one block, estimated like prompt_tokens
};

}  // namespace heng
