// What the admin API answers, and the pieces its JSON is made of.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flow/api_error.h"
#include "gateway/model_pool.h"

namespace heng {

struct AdminAnswer {
  int status = 200;
  std::string body;
  std::string_view type = "application/json";
};

inline AdminAnswer admin_error(int status, std::string_view message, std::string_view code = {}) {
  return {status, api_error_body(status, message, code)};
}

/// A finite number in JSON; shares and milliseconds need no more digits.
inline std::string json_number(double value) {
  return std::isfinite(value) ? fmt::format("{:.6g}", value) : "null";
}

inline void append_element(std::string& list, const std::string& element) {
  if (!list.empty()) list += ',';
  list += element;
}

/// The slots that have a worker, ascending.
std::vector<Slot> members_of(const ModelPool& pool);
/// Share each member is meant to get, [slots]: the policy's weights, or else the configured ones.
std::vector<double> shares_of(const ModelPool& pool);
/// The values of these slots as a JSON list; null where there is none. "[]" for no values at all.
std::string slot_values(std::span<const double> values, std::span<const Slot> slots);

/// Value of `key` in a query, as it stands there; "" if it is not.
std::string query_value(std::string_view query, std::string_view key);
/// %41 becomes A. Nothing if a % is not followed by two hexadecimal digits.
std::optional<std::string> percent_decoded(std::string_view text);

}  // namespace heng
