// Any bytes as an engine's metrics page: what is read keeps to its ranges, wherever the page is cut.

// fuzz-layer: host

#include <cstdint>
#include <string_view>
#include <vector>

#include "host/engine_load_reader.h"

/// The first byte seeds the cuts.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::uint32_t cut = data[0];
  const std::string_view page(reinterpret_cast<const char*>(data + 1), size - 1);
  heng::EngineLoadReader whole, cuts;
  whole.begin();
  whole.take(page);
  const auto load = whole.finish();
  if (load) {
    HENG_ASSERT(load->running >= 0 && load->waiting >= 0);
    HENG_ASSERT(load->kv_used >= 0 && load->kv_used <= 1);
  } else {
    HENG_ASSERT(!load.error().message.empty());
  }
  cuts.begin();
  for (std::size_t at = 0; at < page.size();) {
    cut = cut * 1664525 + 1013904223;
    const std::string_view part = page.substr(at, 1 + (cut >> 24) % 40);
    const std::vector<char> piece(part.begin(), part.end());  // in memory of its own
    cuts.take({piece.data(), piece.size()});
    at += part.size();
  }
  const auto again = cuts.finish();
  HENG_ASSERT(again.has_value() == load.has_value());
  if (!load) {
    HENG_ASSERT(again.error().message == load.error().message);
  } else {
    HENG_ASSERT(again->running == load->running && again->waiting == load->waiting);
    HENG_ASSERT(again->kv_used == load->kv_used);
  }
  return 0;
}
