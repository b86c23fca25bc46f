// Measured requests of real or simulated engines: when each came, its lengths, its first token and its end.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/traffic/traffic.h"

namespace heng {

struct MeasuredRequest {
  TrafficRequest request;           // `at` counts from the run's first arrival
  Duration ttft{};                  // > 0
  Duration duration{};              // to the last token, >= ttft
  std::uint32_t cached_tokens = 0;  // of the prompt, as the engine reported it; 0 = unknown
};

/// What one engine was asked, in order of arrival.
struct MeasuredRun {
  std::string name;
  std::vector<MeasuredRequest> requests;
};

/// One line of measurements, see docs/engine-model.md for its keys.
struct MeasuredLine {
  MeasuredRequest measured;
  std::string run;     // of the key `run` or `policy`; "" = the file has one
  std::string worker;  // "" = the file has one
};

/// Knows neither files nor order; the caller adds the place to messages.
class MeasuredLineReader {
 public:
  MeasuredLineReader();
  ~MeasuredLineReader();

  /// False: an empty line, or a request that did not complete. Fails with what is wrong in the line.
  Result<bool> read(std::string_view line, MeasuredLine& out);

 private:
  struct Json;
  std::unique_ptr<Json> json_;
};

struct MeasuredChoice {
  std::string run;     // "" = the only one there is
  std::string worker;  // "" = all, each an engine of its own
};

/// Reads JSON lines, plain or gzipped. Fails with file and line, or if the choice leaves nothing or, of a
/// file of several runs, does not say which.
Result<std::vector<MeasuredRun>> read_measured(std::span<const std::string> paths,
                                               const MeasuredChoice& choice);

}  // namespace heng
