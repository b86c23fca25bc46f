// Any bytes as a trace: no crash, and what is read keeps to the limits.

// fuzz-layer: sim

#include <cstdint>
#include <string_view>

#include "sim/traffic/trace_line.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view first = text.substr(0, text.find('\n'));
  const auto format = heng::recognise_trace(first);
  heng::TraceLineReader reader(format.value_or(heng::TraceFormat::json_lines));
  heng::TrafficRequest request;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const heng::Result<bool> read = reader.read(text.substr(0, end), request);
    HENG_ASSERT(read.has_value() || !read.error().message.empty());
    if (read && *read) {
      HENG_ASSERT(request.prompt_tokens <= heng::kTrafficTokensMax);
      HENG_ASSERT(request.output_tokens <= heng::kTrafficTokensMax);
      std::uint64_t tokens = 0;
      for (const heng::PromptPiece& piece : request.pieces) tokens += piece.tokens;
      if (tokens < 1 << 20) HENG_ASSERT(heng::block_chain(request.pieces, 16).size() == tokens / 16);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return 0;
}
