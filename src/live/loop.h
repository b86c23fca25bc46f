// The event loop of the live world: readiness of descriptors, timers, signals and deferred calls, on
// libevent.
#pragma once

#include <event2/event.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/buffer.h"
#include "base/lived_clock.h"
#include "base/time.h"

namespace heng {

class FdWatch;
class Timer;

constexpr Instant kNever = Instant::max();
/// A span of zero sets no limit.
constexpr Instant deadline_after(Instant now, Duration span) {
  return span == Duration(0) ? kNever : now + span;
}

/// One loop per thread; everything that uses it lives on that thread and dies before it.
class Loop {
 public:
  /// With precise timers to the microsecond (one more system call a turn), else to the millisecond.
  enum class Timers : std::uint8_t { coarse, precise };
  explicit Loop(Timers timers = Timers::coarse);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// Monotonic time, the same for all callbacks of one turn.
  Instant now();
  /// From here on now() stands still while the process does not run: stopped, suspended, or its machine
  /// frozen. `on_stall` hears of every such gap, and how long it was.
  void forgive_stalls(std::function<void(Duration slept)> on_stall);
  /// Turns until stop().
  void run();
  void stop() { stopped_ = true; }
  /// Runs at the end of this turn, when no callback is on the stack: the place to delete what is being
  /// called.
  void defer(std::function<void()> call) { deferred_.push_back(std::move(call)); }

  /// Scratch for one read, shared by all connections: its contents are valid until the next read of anyone.
  static constexpr std::size_t kReadBytes = 128 << 10;
  char* read_buffer() { return read_buffer_.get(); }

  event_base* base() { return base_; }

 private:
  friend class FdWatch;
  void run_deferred();
  void run_bulk();

  event_base* base_;
  bool stopped_ = false;
  bool now_known_ = false;
  Instant now_;
  LivedClock clock_;
  std::function<void(Duration)> on_stall_;
  std::unique_ptr<Timer> pulse_;  // so that a gap between two turns is not just a quiet time
  std::vector<FdWatch*> bulk_;    // ready and waiting for their callback; null where one has stopped
  std::size_t bulk_done_ = 0;     // of bulk_, from its front
  std::vector<std::function<void()>> deferred_;
  std::vector<std::function<void()>> running_;
  std::unique_ptr<char[]> read_buffer_;
};

/// Edge-triggered readiness of one descriptor, registered once for its whole life. Does not own the
/// descriptor.
class FdWatch {
 public:
  struct Ready {
    bool read = false;    // data, end or error: read until it would block
    bool write = false;   // room again
    bool closed = false;  // the peer sends no more: go on reading until the end even after a short read
  };
  using Callback = void (*)(void* context, Ready ready);

  FdWatch() = default;
  ~FdWatch() { stop(); }
  FdWatch(const FdWatch&) = delete;
  FdWatch& operator=(const FdWatch&) = delete;

  void start(Loop& loop, int fd, Callback callback, void* context);
  void stop();
  /// Bulk callbacks come after all others of a turn and only so many of them, in order: new requests and
  /// first bytes need not wait until every stream under way has been relayed, and no stream starves.
  void set_bulk(bool bulk) { is_bulk_ = bulk; }
  /// One more callback, to read on, after all others of a turn: whoever reads much gives way meanwhile.
  void read_on_later();
  /// Ready, and its callback is still to come: whoever thinks the peer silent must wait for that.
  bool queued() const { return queued_at_ != kNotQueued; }

 private:
  friend class Loop;
  static constexpr std::size_t kNotQueued = ~std::size_t{0};
  static void fire(int fd, short what, void* self);
  void enqueue(Ready ready);

  std::unique_ptr<event, void (*)(event*)> event_{nullptr, event_free};
  Loop* loop_ = nullptr;
  bool is_bulk_ = false;
  std::size_t queued_at_ = kNotQueued;  // in the loop's bulk_
  Ready waiting_{};
  Callback callback_ = nullptr;
  void* context_ = nullptr;
};

/// Calls once after a span, or again and again. Stops when destroyed.
class Timer {
 public:
  Timer(Loop& loop, std::function<void()> call);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void once(Duration after);
  void every(Duration period);
  void stop();

 private:
  static void fire(int fd, short what, void* self);
  void arm(Duration after, bool repeat);

  Loop& loop_;
  std::function<void()> call_;
  Instant due_;  // of once(), in the loop's time
  std::unique_ptr<event, void (*)(event*)> event_{nullptr, event_free};
};

/// Calls in the loop, not in the handler's context, when the process gets the signal.
class SignalWatch {
 public:
  SignalWatch(Loop& loop, int number, std::function<void()> call);

 private:
  std::function<void()> call_;
  std::unique_ptr<event, void (*)(event*)> event_{nullptr, event_free};
};

}  // namespace heng
