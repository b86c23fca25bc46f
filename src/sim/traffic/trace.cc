// Opening of traces; streaming of those whose lines come in order of arrival, sorting of access logs.
#include "sim/traffic/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <vector>

#include "config/issues.h"
#include "sim/traffic/recording.h"
#include "sim/traffic/servegen.h"

namespace heng {

namespace {

constexpr const char* kFormats =
    "known are Azure's CSV (TIMESTAMP,ContextTokens,GeneratedTokens), JSON lines (Mooncake's, or with "
    "arrival_s, prompt_tokens and output_tokens), heng's access log and recording, and ServeGen's "
    "rates (client,window_start_s,...)";

/// One line after the other; memory for one line.
class LineTrace final : public TrafficSource {
 public:
  LineTrace(LineFile file, TraceFormat format, TrafficWarning warn)
      : file_(std::move(file)), reader_(format), warn_(std::move(warn)) {}

  Result<bool> next(TrafficRequest& out) override {
    std::string_view line;
    while (true) {
      const Result<bool> more = file_.next(line);
      if (!more || !*more) return more;
      const Result<bool> read = reader_.read(line, out);
      if (!read) return std::unexpected(file_.mistake(read.error().message));
      for (; warned_ < reader_.unknown_keys().size(); ++warned_) warn(reader_.unknown_keys()[warned_]);
      if (*read) break;
    }
    if (!start_) start_ = out.at;
    out.at -= *start_;
    if (out.at < last_) {
      return std::unexpected(file_.mistake(
          fmt::format("the time goes back by {} s; sort the file by time", to_seconds(last_ - out.at))));
    }
    last_ = out.at;
    return true;
  }

 private:
  /// Once for each key: extra columns are common, but so are misspelt keys.
  void warn(const std::string& key) const {
    if (warn_)
      warn_(file_.mistake(fmt::format("a request has no key {}; it is passed over", quote(key))).message);
  }

  LineFile file_;
  TraceLineReader reader_;
  TrafficWarning warn_;
  std::size_t warned_ = 0;  // of the unknown keys
  std::optional<Duration> start_;
  Duration last_{};
};

/// Lines come in order of the requests' ends, so all must be read first; 32 bytes stay of each.
class AccessLogTrace final : public TrafficSource {
 public:
  /// A last line that breaks off is one that was being written: it is passed over.
  static Result<std::unique_ptr<TrafficSource>> read(LineFile file, const TrafficWarning& warn) {
    auto trace = std::make_unique<AccessLogTrace>();
    TraceLineReader reader(TraceFormat::access_log);
    TrafficRequest request;
    std::optional<Error> broken;
    for (std::string_view line;;) {
      const Result<bool> more = file.next(line);
      if (!more) return std::unexpected(more.error());
      if (!*more) break;
      if (broken) return std::unexpected(*broken);
      const Result<bool> read = reader.read(line, request);
      if (!read) broken = file.mistake(read.error().message);
      if (broken && line.ends_with('}')) return std::unexpected(*broken);
      if (read && *read)
        trace->rows_.push_back(
            {request.at, request.client, request.prompt_tokens, request.output_tokens, request.stream});
    }
    if (broken && warn) warn(file.mistake("the last line is unfinished; it is passed over").message);
    std::ranges::stable_sort(trace->rows_, {}, &Row::at);
    return trace;
  }

  Result<bool> next(TrafficRequest& out) override {
    if (at_ == rows_.size()) return false;
    const Row& row = rows_[at_++];
    out.at = row.at - rows_.front().at;
    out.client = row.client;
    out.prompt_tokens = row.prompt_tokens;
    out.output_tokens = row.output_tokens;
    out.stream = row.stream;
    out.pieces.clear();
    return true;
  }

 private:
  struct Row {
    Duration at;
    std::uint64_t client;
    std::uint32_t prompt_tokens, output_tokens;
    std::optional<bool> stream;
  };
  std::vector<Row> rows_;
  std::size_t at_ = 0;
};

}  // namespace

Result<std::unique_ptr<TrafficSource>> open_trace(const std::string& path, std::uint64_t seed,
                                                  const TrafficWarning& warn) {
  // Each policy reads it anew, and some formats twice: what a pipe gave once would be missing then.
  std::error_code unknown;  // opening it will say why
  if (std::filesystem::is_other(path, unknown)) {
    return fail(
        ErrorCode::invalid,
        fmt::format("{} is no regular file, and a trace is read several times; write it to a file first",
                    path));
  }
  auto file = LineFile::open(path);
  if (!file) return std::unexpected(file.error());
  std::string_view line;
  do {
    const Result<bool> more = file->next(line);
    if (!more) return std::unexpected(more.error());
    if (!*more) return fail(ErrorCode::invalid, fmt::format("{}: the file is empty", path));
  } while (line.find_first_not_of(" \t") == line.npos);
  if (is_servegen(line)) return open_servegen(path, seed);
  if (is_event_log(line)) return open_recording(path);
  const auto format = recognise_trace(line);
  if (!format) {
    return std::unexpected(file->mistake(fmt::format("this is no trace of requests; {}", kFormats)));
  }
  file = LineFile::open(path);
  if (!file) return std::unexpected(file.error());
  if (*format == TraceFormat::access_log) return AccessLogTrace::read(std::move(*file), warn);
  return std::make_unique<LineTrace>(std::move(*file), *format, warn);
}

}  // namespace heng
