// Secrets in files: readable by their owner, not by everybody.
#pragma once

#include <string>

#include "base/result.h"

namespace heng {

/// Fails with the reason if it cannot be read or, `is_private`, if everybody can.
Result<void> check_file(const std::string& path, bool is_private);
/// `path`, or `directory`/`path` when it is relative.
std::string resolve_path(const std::string& path, const std::string& directory);
/// The file's only line. Fails when the file is missing, readable by everybody, empty, over 16 KiB, or not
/// fit for an HTTP header.
Result<std::string> read_secret(const std::string& path);
/// May every user of the machine read or write it? False when it cannot be examined.
bool is_open_to_all(const std::string& path);

}  // namespace heng
