// Traffic from files: formats told apart by content.
#pragma once

#include <memory>
#include <string>

#include "sim/traffic/line_file.h"
#include "sim/traffic/trace_line.h"

namespace heng {

/// Opens recorded traffic of any format we know (docs/simulator.md lists them); times count from the first
/// request. `seed` is for ServeGen's client mixes, which are drawn, not recorded. Fails with what the file is
/// not. `warn` may be empty.
Result<std::unique_ptr<TrafficSource>> open_trace(const std::string& path, std::uint64_t seed,
                                                  const TrafficWarning& warn = {});

}  // namespace heng
