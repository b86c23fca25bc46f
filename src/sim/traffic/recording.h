// What `heng serve --record` wrote: its lines, and the traffic in it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "host/event_log.h"
#include "sim/traffic/line_file.h"
#include "sim/traffic/traffic.h"

namespace heng {

/// Reads a recording in constant memory, plain or compressed by gzip. Owns the file. One thread.
class RecordingFile {
 public:
  static Result<RecordingFile> open(const std::string& path);

  /// The next line; what it refers to is valid until the next call. False at the end. A line that breaks off
  /// at the end, or before another process begins, is what a killed process leaves: it is passed over. Fails
  /// with the place of any other mistake.
  Result<bool> next(LogLine& line);
  /// Lines that were passed over.
  std::size_t unfinished() const { return unfinished_; }
  std::size_t line_number() const { return file_.line_number(); }
  Error mistake(std::string_view message) const { return file_.mistake(message); }

 private:
  explicit RecordingFile(LineFile file) : file_(std::move(file)) {}

  LineFile file_;
  LogLineReader reader_;
  std::size_t unfinished_ = 0;
};

/// The requests that reached a worker and got an answer. Prompt lengths are those the workers reported, where
/// they did; what prompts have in common is known by blocks, and guessed where they repeat answers
/// (Conversations). Memory: the requests under way at a time, and 100 bytes for each of the last million.
Result<std::unique_ptr<TrafficSource>> open_recording(const std::string& path);

}  // namespace heng
