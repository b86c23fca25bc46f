// Any bytes as measurements: no crash, and what is read could have been measured.

// fuzz-layer: sim

#include <cstdint>
#include <string_view>

#include "sim/traffic/measured.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  heng::MeasuredLineReader reader;
  heng::MeasuredLine line;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const heng::Result<bool> read = reader.read(text.substr(0, end), line);
    HENG_ASSERT(read.has_value() || !read.error().message.empty());
    if (read && *read) {
      HENG_ASSERT(line.measured.ttft >= heng::Duration(0) && line.measured.duration >= line.measured.ttft);
      HENG_ASSERT(line.measured.cached_tokens <= line.measured.request.prompt_tokens);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return 0;
}
