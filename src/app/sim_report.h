// The report of a simulation: one page of HTML that needs nothing else.
#pragma once

#include <string>
#include <vector>

#include "app/sim_command.h"

namespace heng {

/// Tables and inline SVG; no scripts, no links. Fails if the file cannot be written.
Result<void> write_sim_report(const Scenario& scenario, const std::vector<SimResult>& results,
                              const std::string& path);

}  // namespace heng
