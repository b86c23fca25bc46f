// The file format of a recording: what every pool of a gateway was told, one JSON object in a line.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "flow/pool_event.h"

namespace heng {

/// One line. Processes may share a file (at a hand-over, or one after the other), so each line names its own.
struct LogLine {
  enum class Kind : std::uint8_t {
    run,       // the process began: version, time_s, name = its program's version
    pool,      // a pool was made: name = model, policy, options, seed
    worker,    // event.worker is called `name`
    request,   // `request` came: name = its id, as in answers and in the access log
    done,      // `request` has ended
    event,     // the pool was told `event`
    pool_end,  // the pool is no more
  };
  Kind kind = Kind::event;
  std::uint64_t process = 0;  // a `run` line begins another one of the same number
  Instant at{};               // of the process's own clock
  std::uint32_t pool = 0;     // unique in the process; not of `run`, `request` and `done`
  std::string name{};
  std::uint32_t version = 0;
  double time_s = 0;  // at `at`, since 1970
  std::string policy{};
  std::vector<std::pair<std::string, double>> options{};
  std::uint64_t seed = 0;  // of the pool's random numbers
  std::uint64_t request = 0;
  PoolEvent event{};  // `at` and the attempt's kind are filled in
};

inline constexpr std::uint32_t kEventLogVersion = 1;

/// Appends the line without its end. Members that a kind does not use, or with their default, are left out.
void write_log_line(const LogLine& line, std::string& text);

/// Whether a file that begins so is a recording.
bool is_event_log(std::string_view first_line);

/// Reads lines. What a line refers to is valid until the next one is read.
class LogLineReader {
 public:
  LogLineReader();
  ~LogLineReader();
  LogLineReader(LogLineReader&&) noexcept;

  /// Fails with what is wrong; unknown members are left alone, an unknown kind or version is wrong.
  Result<void> read(std::string_view text, LogLine& line);

 private:
  struct Json;
  std::unique_ptr<Json> json_;
};

}  // namespace heng
