// Writes down what all pools are told, for `heng replay`.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/rng.h"
#include "config/config.h"
#include "flow/pool_event.h"
#include "host/event_log.h"
#include "live/line_writer.h"

namespace heng {

class PoolRecording;

/// Owned by the gateway, on its loop. Formats into memory that it keeps; the disk is the writer's affair. If
/// it takes no more, the recording ends, for a gap would make all that follows worthless.
class Recorder {
 public:
  /// Fails if the file cannot be opened.
  static Result<std::unique_ptr<Recorder>> open(Loop& loop, const std::string& path);

  /// To be observed by the pool from its beginning. The recorder must outlive it.
  std::unique_ptr<PoolRecording> record_pool(std::string model, const PoolConfig& config, const Rng& rng);
  /// A request has come, of this id to its client; and gone.
  void request(std::uint64_t request, std::string_view id);
  void done(std::uint64_t request);
  bool stopped() const { return writer_->stopped(); }

 private:
  friend class PoolRecording;
  Recorder(Loop& loop, std::unique_ptr<LineWriter> writer);
  void write(LogLine& line);

  Loop& loop_;
  std::unique_ptr<LineWriter> writer_;
  std::uint64_t process_;
  std::uint32_t pools_ = 0;
  LogLine line_;  // scratch, like the next
  std::string text_;
};

/// One pool's part. Owned by whoever owns the pool.
class PoolRecording final : public PoolObserver {
 public:
  PoolRecording(Recorder& recorder, std::uint32_t pool) : recorder_(recorder), pool_(pool) {}
  ~PoolRecording() override;
  PoolRecording(const PoolRecording&) = delete;
  PoolRecording& operator=(const PoolRecording&) = delete;

  void on_event(const PoolEvent& event) override;
  void name_worker(Slot slot, std::string_view name);

 private:
  LogLine& line_of(LogLine::Kind kind) const;

  Recorder& recorder_;
  std::uint32_t pool_;
};

}  // namespace heng
