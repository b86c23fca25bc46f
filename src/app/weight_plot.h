// A picture of weights over iterations, as SVG or PNG.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace heng {

struct WeightPlot {
  std::string title;
  std::vector<std::string> workers;
  std::vector<std::vector<double>> shares;   // [iterations x workers], each row summing to 1
  std::vector<std::vector<double>> targets;  // [iterations x workers], drawn dashed; may be empty
  std::vector<std::pair<std::size_t, std::string>> marks;  // iteration and what happened there
};

/// The name's ending chooses the format: .svg or .png. Fails for others, and if the file cannot be written.
Result<void> write_plot(const WeightPlot& plot, const std::string& path);
/// Whether write_plot knows the ending.
bool is_plot_path(const std::string& path);

}  // namespace heng
