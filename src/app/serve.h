// `heng serve` and `heng check`: the gateway as a long-running program.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"

namespace heng {

/// HENG_* variables that name an option: HENG_TIMEOUTS_FIRST_BYTE=300s sets timeouts.first_byte. Unknown
/// HENG_* variables are an error, so that a typing mistake is not silently without effect.
Result<ConfigOverrides> environment_overrides();

/// Loads the file and prints what is wrong with it. Returns an ExitCode.
int check_configuration(const std::string& path, const ConfigOverrides& overrides);

/// Runs until SIGTERM or SIGINT has drained it (a second one ends it at once). SIGHUP reloads. Returns an
/// ExitCode.
int serve(const std::string& path, const ConfigOverrides& overrides, std::vector<std::string> command);

}  // namespace heng
