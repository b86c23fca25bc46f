// Any bytes as a recording: no crash in reading and replaying; what was read is written and read again alike.

// fuzz-layer: host

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "host/event_log.h"
#include "host/replay.h"

namespace {

/// Pools with a large index of prompts would only use up memory.
bool is_modest(const heng::LogLine& line) {
  return std::ranges::all_of(line.options, [](const auto& option) { return option.second <= 64; });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  heng::LogLineReader reader, again;
  heng::LogLine line, copy;
  std::string written, rewritten;
  heng::Replay replay({}, "req_1", [](const heng::ReplayedChoice&) {});
  bool fits = true;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const auto read = reader.read(text.substr(0, end), line);
    text.remove_prefix(std::min(end + 1, text.size()));
    HENG_ASSERT(read.has_value() || !read.error().message.empty());
    if (!read) continue;
    written.clear();
    rewritten.clear();
    heng::write_log_line(line, written);
    HENG_ASSERT(again.read(written, copy).has_value());
    heng::write_log_line(copy, rewritten);
    HENG_ASSERT(written == rewritten);
    fits = fits && is_modest(line) && replay.take(line).has_value();
  }
  return 0;
}
