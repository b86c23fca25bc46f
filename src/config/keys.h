// The file of API keys: reading it, and writing entries for it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "model/api_key.h"

namespace heng {

struct KeyLoad {
  std::vector<ApiKey> keys;         // meaningful if `issues` is empty
  std::vector<ConfigIssue> issues;  // every mistake, in file order
};

KeyLoad parse_keys(std::string_view yaml);
/// Reads the file (at most 4 MiB), then as above. It must not be open to every user of the machine.
KeyLoad load_keys(const std::string& path);

/// One entry of the list `keys`, as parse_keys reads it.
std::string key_entry(const ApiKey& key);

/// Letters, digits, "-" and ".", at most 64: what may stand between the underscores of a key.
bool is_key_id(std::string_view text);
/// "2027-01-31": to the end of that day; "2027-01-31T12:00:00Z": to that second. In UTC, seconds since 1970.
Result<double> parse_expiry(std::string_view text);
/// The second form; "" for a key without expiry.
std::string format_expiry(double seconds);

}  // namespace heng
