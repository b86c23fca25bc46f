// Files that only their owner may read.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace heng {

/// Replaces the file as a whole, or leaves it as it is. A new one gets the mode 0600, an old one keeps its
/// own. Fails with path and reason.
Result<void> write_private_file(const std::string& path, std::string_view text);

}  // namespace heng
