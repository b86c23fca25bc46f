// Finds an engine's load on its metrics page (Prometheus' text format 0.0.4), as the page comes in.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/pool_view.h"

namespace heng {

/// Knows vLLM, SGLang, llama-server and TGI by the names of their gauges. Requests are summed over label sets
/// (the engines of a data-parallel server), the share of the KV cache is their mean; sets that differ only in
/// which part of one engine speaks (`tp_rank`, `pp_rank`, ...) count once. Keeps no more than one line of the
/// page.
class EngineLoadReader {
 public:
  static constexpr std::size_t kLineMax = 16 << 10;

  /// For a new page; what was kept of another is forgotten.
  void begin();
  /// The next bytes, cut anywhere.
  void take(std::string_view bytes);
  /// The load, without the time of its reading. Fails if the page does not give the requests running and
  /// waiting, or a line about them cannot be read: a wrong number would be worse than none.
  Result<EngineLoad> finish();

 private:
  static constexpr std::size_t kSeries = 12;
  static constexpr std::size_t kSetsMax = 256;
  struct Sum {
    double total = 0;
    std::vector<std::uint64_t> sets;  // hashes of the label sets counted
  };

  void read_line(std::string_view line);
  bool read_sample(std::string_view rest, Sum& sum);

  std::string line_;       // its beginning
  bool skipping_ = false;  // the rest of a line too long
  std::string_view bad_;   // the series that could not be read
  std::array<Sum, kSeries> sums_;
};

}  // namespace heng
