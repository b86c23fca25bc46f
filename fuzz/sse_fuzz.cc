// Any bytes as a relayed stream, cut anywhere: an error event put where EventBoundary allows it is read as an
// event of its own, and looking for usage in the pieces reads nothing outside of them.

// fuzz-layer: flow

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "flow/event_boundary.h"
#include "flow/usage.h"

namespace {

/// The data of each event, read as a browser does (WHATWG HTML 9.2.6); an event that no blank line ends is
/// none.
std::vector<std::string> events_of(std::string_view text) {
  std::vector<std::string> events;
  std::string data;
  while (!text.empty()) {
    const std::size_t end = text.find_first_of("\r\n");
    if (end == text.npos) break;
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + (text.substr(end).starts_with("\r\n") ? 2 : 1));
    if (line.empty()) {
      if (!data.empty()) events.push_back(std::exchange(data, {}));
    } else if (line.starts_with("data:")) {
      data.append(line.substr(5)).append("\n");
    }
  }
  return events;
}

}  // namespace

/// The first byte seeds the cuts.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::uint32_t cut = data[0];
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  heng::EventBoundary boundary;
  boundary.reset();
  for (std::size_t at = 0; at < text.size();) {
    cut = cut * 1664525 + 1013904223;
    const std::string_view part = text.substr(at, 1 + (cut >> 24) % 40);
    const std::vector<char> piece(part.begin(), part.end());  // in memory of its own
    boundary.take({piece.data(), piece.size()});
    heng::UsageReader usage;
    usage.take({piece.data(), piece.size()});
    if (usage.usage().prompt_tokens != 0)
      HENG_ASSERT(part.contains("\"usage\"") || part.contains("\"timings\""));
    at += part.size();
  }
  std::vector<std::string> before = events_of(text);
  const std::vector<std::string> after = events_of(std::string(text) + "data: E\n\n");
  before.push_back(" E\n");
  // What could be mistaken for a part of the event before it must not be sent.
  if (boundary.between_events()) HENG_ASSERT(after == before);
  return 0;
}
