// The formats of recorded traffic in which one line is one request.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/traffic/traffic.h"

namespace heng {

enum class TraceFormat : std::uint8_t {
  azure,       // CSV: TIMESTAMP,ContextTokens,GeneratedTokens
  json_lines,  // Mooncake's keys or our own, see docs/simulator.md
  access_log,  // what `heng serve` writes: lines in order of the requests' ends
};

/// What the first line that is not empty tells; nothing if no format begins so.
std::optional<TraceFormat> recognise_trace(std::string_view first_line);

/// Reads single lines. Knows neither files nor order; the caller adds the place to messages.
class TraceLineReader {
 public:
  explicit TraceLineReader(TraceFormat format);
  ~TraceLineReader();
  TraceLineReader(TraceLineReader&&) noexcept;

  /// Fills `out`, whose `at` then counts from the format's own zero (1970, or the trace's). False: the line
  /// is no request (a heading, an empty line, a request that was refused). Fails with what is wrong in the
  /// line.
  Result<bool> read(std::string_view line, TrafficRequest& out);
  /// Keys of JSON lines (json_lines only) that say nothing to us, in the order of their appearance; the first
  /// twenty.
  const std::vector<std::string>& unknown_keys() const { return unknown_keys_; }

 private:
  Result<bool> read_azure(std::string_view line, TrafficRequest& out) const;
  Result<bool> read_json(std::string_view line, TrafficRequest& out);

  struct Json;
  TraceFormat format_;
  std::vector<std::string> unknown_keys_;
  std::unique_ptr<Json> json_;
};

}  // namespace heng
