// What a process tells its successor: one JSON object. Both may be of different versions: unknown keys are
// left alone, missing ones are nothing to know.
#include <fmt/format.h>
#include <simdjson.h>
#include <spdlog/spdlog.h>

#include "flow/api_error.h"
#include "gateway/gateway.h"

namespace heng {

namespace {

namespace dom = simdjson::dom;

std::string to_json(const StickyTable& table) {
  std::string list;
  table.for_each([&](std::uint64_t key, std::uint64_t value) {
    fmt::format_to(std::back_inserter(list), "{}[{},{}]", list.empty() ? "" : ",", key, value);
  });
  return "[" + list + "]";
}

void put_all(StickyTable& table, dom::array entries, Instant now) {
  for (const dom::array entry : entries) table.put(entry.at(0), entry.at(1), now);
}

}  // namespace

std::string Gateway::handover_state() const {
  std::string sessions;
  for (const auto& [model, pool] : pools_) {
    sessions +=
        fmt::format("{}{}:{}", sessions.empty() ? "" : ",", json_quote(model), to_json(pool->sessions()));
  }
  return fmt::format(R"({{"changes":{},"resources":{},"owners":{},"sessions":{{{}}}}})",
                     heng::to_json(roster_.overlay()), to_json(resources_), to_json(owners_), sessions);
}

Result<void> Gateway::take_changes(std::string_view state) {
  dom::parser parser;
  dom::element changes;
  if (parser.parse(state.data(), state.size())["changes"].get(changes) != simdjson::SUCCESS)
    return fail(ErrorCode::invalid, "what the predecessor passed on is not understood");
  auto overlay = parse_overlay(simdjson::minify(changes));
  if (!overlay) return std::unexpected(overlay.error());
  roster_.set_overlay(std::move(*overlay));
  return {};
}

void Gateway::take_memory(std::string_view state) {
  const Instant now = loop_.now();
  try {
    dom::parser parser;
    const dom::object known = parser.parse(state.data(), state.size());
    dom::array resources, owners;
    if (known["resources"].get(resources) == simdjson::SUCCESS) put_all(resources_, resources, now);
    if (known["owners"].get(owners) == simdjson::SUCCESS) put_all(owners_, owners, now);
    dom::object sessions;
    if (known["sessions"].get(sessions) != simdjson::SUCCESS) return;
    for (const auto [model, entries] : sessions) {
      if (const auto pool = pools_.find(std::string(model)); pool != pools_.end())
        put_all(pool->second->sessions(), entries, now);
    }
  } catch (const simdjson::simdjson_error& problem) {
    spdlog::warn("where sessions and stored resources live is not known: {}", problem.what());
  }
}

}  // namespace heng
