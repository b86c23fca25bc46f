// From what happens to lines of the recording.
#include "gateway/recorder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gateway/gateway.h"

namespace heng {

namespace {

/// What is no recording is somebody's, and lines in the midst of it would be of no use either.
bool holds_something_else(const std::string& path) {
  std::error_code unknown;  // opening it will say why
  if (!std::filesystem::is_regular_file(path, unknown)) return false;
  std::ifstream file(path, std::ios::binary);
  std::string start(64, '\0');
  file.read(start.data(), static_cast<std::streamsize>(start.size()));
  return file.gcount() > 0 && !is_event_log(start);
}

}  // namespace

Result<std::unique_ptr<Recorder>> Recorder::open(Loop& loop, const std::string& path) {
  if (holds_something_else(path)) {
    return fail(
        ErrorCode::invalid,
        fmt::format("'{}' is there already and is no recording; name another file for `record`", path));
  }
  auto writer = LineWriter::open(loop, path, "the recording", AfterLoss::stop);
  if (!writer) return std::unexpected(writer.error());
  return std::unique_ptr<Recorder>(new Recorder(loop, std::move(*writer)));
}

Recorder::Recorder(Loop& loop, std::unique_ptr<LineWriter> writer)
    : loop_(loop), writer_(std::move(writer)), process_(static_cast<std::uint64_t>(::getpid())) {
  LogLine line{.kind = LogLine::Kind::run,
               .name = HENG_VERSION,
               .version = kEventLogVersion,
               .time_s = Gateway::wall_time_s()};
  write(line);
}

void Recorder::write(LogLine& line) {
  line.process = process_;
  if (line.at == Instant{}) line.at = loop_.now();
  text_.clear();
  write_log_line(line, text_);
  writer_->append(text_);
}

std::unique_ptr<PoolRecording> Recorder::record_pool(std::string model, const PoolConfig& config,
                                                     const Rng& rng) {
  LogLine line{.kind = LogLine::Kind::pool,
               .pool = ++pools_,
               .name = std::move(model),
               .policy = std::string(config.policy->name),
               .seed = rng.seed()};
  for (std::size_t i = 0; i < config.policy->fields.size(); ++i)
    line.options.emplace_back(config.policy->fields[i].key, config.policy_options[i]);
  write(line);
  return std::make_unique<PoolRecording>(*this, line.pool);
}

void Recorder::request(std::uint64_t request, std::string_view id) {
  line_.kind = LogLine::Kind::request;
  line_.at = {};
  line_.request = request;
  line_.name = id;
  write(line_);
}

void Recorder::done(std::uint64_t request) {
  line_.kind = LogLine::Kind::done;
  line_.at = {};
  line_.request = request;
  write(line_);
}

LogLine& PoolRecording::line_of(LogLine::Kind kind) const {
  LogLine& line = recorder_.line_;
  line.kind = kind;
  line.at = {};
  line.pool = pool_;
  return line;
}

PoolRecording::~PoolRecording() { recorder_.write(line_of(LogLine::Kind::pool_end)); }

void PoolRecording::on_event(const PoolEvent& event) {
  if (recorder_.stopped()) return;
  LogLine& line = line_of(LogLine::Kind::event);
  line.event = event;
  line.at = event.at;
  recorder_.write(line);
}

void PoolRecording::name_worker(Slot slot, std::string_view name) {
  LogLine& line = line_of(LogLine::Kind::worker);
  line.event.worker = slot;
  line.name = name;
  recorder_.write(line);
}

}  // namespace heng
