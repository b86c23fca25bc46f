// The table of routing policies. Being listed gives a policy its YAML keys, help, reference page, its row in
// comparisons and the property tests every policy must pass.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "policy/route/policy.h"

namespace heng {

/// One numeric option. Booleans are 0 and 1 (`is_flag`), durations are seconds (the key ends in `_s`).
struct OptionField {
  std::string_view key;
  double default_value;
  double min;
  double max;
  std::string_view doc;  // one line
  bool is_flag = false;
};

/// Values in the order of the entry's fields.
using OptionValues = std::vector<double>;

struct RoutePolicyEntry {
  std::string_view name;
  std::string_view summary;  // one line
  std::string_view details;  // a paragraph for the reference page: rule, when to use it, when not, source
  std::span<const OptionField> fields;
  /// Checks that values fit together (single ranges are checked by `check_values`); empty = fine. May be
  /// null.
  std::string (*validate)(const OptionValues& values);
  std::unique_ptr<RoutePolicy> (*make)(const OptionValues& values);
  bool uses_prefix = false;       // wants RequestView::prefix, which costs a pass over the prompt
  bool uses_engine_load = false;  // wants PoolView::reported, which costs every worker a request a second
};

/// All policies in the order of the reference page.
std::span<const RoutePolicyEntry> route_policies();
/// nullptr if there is none of that name.
const RoutePolicyEntry* find_route_policy(std::string_view name);
OptionValues default_values(const RoutePolicyEntry& entry);
/// Fails with a message that names the option and its range.
Result<void> check_values(const RoutePolicyEntry& entry, const OptionValues& values);
/// The reference page of all policies and their options (Markdown): docs/reference/policies.md.
std::string route_policy_reference();

}  // namespace heng
