// The numbers a simulation is judged by, each with its name: for tables, JSON and expectations.
#pragma once

#include <span>
#include <string_view>

#include "sim/tally.h"

namespace heng {

struct Measure {
  std::string_view name;  // ends in its unit
  std::string_view doc;
  double (*of)(const Tally& tally);
};

std::span<const Measure> measures();
/// nullptr if there is none of that name.
const Measure* find_measure(std::string_view name);

}  // namespace heng
