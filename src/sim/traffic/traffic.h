// One request of a stream of traffic, and the interface of whatever makes such streams.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace heng {

/// So many tokens of the text named `id`, from its beginning.
struct PromptPiece {
  std::uint64_t id = 0;
  std::uint32_t tokens = 0;
};

inline constexpr std::uint32_t kTrafficTokensMax = 1 << 24;  // of one prompt, and of one answer

struct TrafficRequest {
  Duration at{};  // since the traffic's start
  std::uint32_t prompt_tokens = 0;
  std::uint32_t output_tokens = 0;  // hidden from policies; 0 = prefill only
  std::uint64_t client = 0;         // client, user or session it belongs to; 0 = unknown
  std::optional<bool> stream{};     // its answer comes token by token, or as a whole; nothing = unknown
  /// What the prompt consists of, as far as it may be shared: two requests have a prefix in common exactly
  /// where their pieces agree. May go on into the answer, where a later prompt repeats that.
  std::vector<PromptPiece> pieces{};
};

/// Hashes of the complete blocks of the pieces laid end to end, each covering all before it: what an engine's
/// prefix cache knows a prompt by. O(blocks + pieces).
std::vector<std::uint64_t> block_chain(std::span<const PromptPiece> pieces, std::uint32_t block_tokens);

/// Called with what a user should know of a stream that is read all the same; may come again with the next
/// reading.
using TrafficWarning = std::function<void(const std::string&)>;

/// A stream of requests in order of time. Owned and drained by one simulation; deterministic.
class TrafficSource {
 public:
  virtual ~TrafficSource() = default;
  /// The next request into `out`, whose storage is reused; false at the end. Fails with file and line.
  virtual Result<bool> next(TrafficRequest& out) = 0;
};

}  // namespace heng
