// What a decision may know about a request.
#pragma once

#include <cstdint>

namespace heng {

/// Seen by policies. No output length: nobody knows it in advance.
struct RequestView {
  std::uint64_t id = 0;
  std::uint64_t affinity = 0;  // hash of the configured key (header, user, prompt start); 0 = it has none
  double prompt_tokens = 0;    // estimated from bytes, with the ratio that `usage` has taught
  std::uint32_t output_tokens_max = 0;  // the client's max_tokens; 0 = not given
  bool stream = false;
};

}  // namespace heng
