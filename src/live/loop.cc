// libevent behind four small types.
#include "live/loop.h"

#include <ctime>

namespace heng {

namespace {

timeval to_timeval(Duration span) {
  const auto micros =
      std::chrono::duration_cast<std::chrono::microseconds>(std::max(span, Duration(0))).count();
  return {.tv_sec = micros / 1'000'000, .tv_usec = micros % 1'000'000};
}

constexpr Duration kStall = 500ms;      // no turn takes that long, and the pulse begins one twice as often
constexpr Duration kTimerSlack = 50ms;  // libevent's own clock is a little coarser than ours

event_base* make_base(Loop::Timers timers) {
  std::unique_ptr<event_config, void (*)(event_config*)> config(event_config_new(), event_config_free);
  if (timers == Loop::Timers::precise) event_config_set_flag(config.get(), EVENT_BASE_FLAG_PRECISE_TIMER);
  event_config_set_flag(config.get(), EVENT_BASE_FLAG_NOLOCK);
  return event_base_new_with_config(config.get());
}

}  // namespace

Loop::Loop(Timers timers)
    : base_(make_base(timers)), read_buffer_(new char[kReadBytes + Buffer::kPadding]()) {
  HENG_ASSERT(base_ != nullptr);
}

Loop::~Loop() {
  pulse_.reset();
  event_base_free(base_);
}

Instant Loop::now() {
  if (!now_known_) {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    const Duration slept_before = clock_.slept();
    now_ = clock_.read(Instant(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec)));
    now_known_ = true;
    if (clock_.slept() != slept_before) on_stall_(clock_.slept() - slept_before);
  }
  return now_;
}

void Loop::forgive_stalls(std::function<void(Duration slept)> on_stall) {
  on_stall_ = std::move(on_stall);
  now_known_ = false;
  now();  // what has passed until here is no stall
  clock_.forgive_gaps(kStall);
  pulse_ = std::make_unique<Timer>(*this, [this] { now(); });
  pulse_->every(kStall / 2);
}

void Loop::run() {
  stopped_ = false;
  while (!stopped_) {
    now_known_ = false;
    const int flags = bulk_.empty() ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK;
    if (event_base_loop(base_, flags) != 0) break;
    run_bulk();
    run_deferred();
  }
}

void Loop::run_bulk() {
  constexpr std::size_t kPerTurn = 64;  // about a millisecond of relaying
  constexpr std::size_t kForgetAfter =
      4096;  // done entries, under a load that never lets the queue run empty
  for (std::size_t i = 0; i < kPerTurn && bulk_done_ < bulk_.size(); ++i) {
    FdWatch* watch = bulk_[bulk_done_++];
    if (watch == nullptr) continue;
    watch->queued_at_ = FdWatch::kNotQueued;
    watch->callback_(watch->context_, std::exchange(watch->waiting_, {}));
  }
  if (bulk_done_ < bulk_.size() && bulk_done_ < kForgetAfter) return;
  bulk_.erase(bulk_.begin(), bulk_.begin() + static_cast<std::ptrdiff_t>(bulk_done_));
  for (FdWatch* watch : bulk_) {
    if (watch != nullptr) watch->queued_at_ -= bulk_done_;
  }
  bulk_done_ = 0;
}

void Loop::run_deferred() {
  while (!deferred_.empty()) {
    running_.swap(deferred_);
    for (auto& call : running_) call();
    running_.clear();
  }
}

void FdWatch::start(Loop& loop, int fd, Callback callback, void* context) {
  loop_ = &loop;
  callback_ = callback;
  context_ = context;
  event_.reset(
      event_new(loop.base(), fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST, &FdWatch::fire, this));
  HENG_ASSERT(event_ && event_add(event_.get(), nullptr) == 0);
}

void FdWatch::stop() {
  event_.reset();
  if (queued_at_ != kNotQueued) loop_->bulk_[queued_at_] = nullptr;
  queued_at_ = kNotQueued;
  is_bulk_ = false;
  waiting_ = {};
}

void FdWatch::fire(int, short what, void* self) {
  FdWatch* watch = static_cast<FdWatch*>(self);
  const Ready ready{.read = (what & (EV_READ | EV_CLOSED)) != 0,
                    .write = (what & EV_WRITE) != 0,
                    .closed = (what & EV_CLOSED) != 0};
  if (!watch->is_bulk_) return watch->callback_(watch->context_, ready);
  watch->enqueue(ready);
}

void FdWatch::enqueue(Ready ready) {
  waiting_.read |= ready.read;
  waiting_.write |= ready.write;
  waiting_.closed |= ready.closed;
  if (queued_at_ != kNotQueued) return;
  queued_at_ = loop_->bulk_.size();
  loop_->bulk_.push_back(this);
}

void FdWatch::read_on_later() { enqueue({.read = true, .write = false, .closed = true}); }

Timer::Timer(Loop& loop, std::function<void()> call) : loop_(loop), call_(std::move(call)) {}

Timer::~Timer() = default;

void Timer::once(Duration after) {
  due_ = loop_.now() + after;
  arm(after, false);
}

void Timer::every(Duration period) { arm(period, true); }

void Timer::stop() {
  if (event_) event_del(event_.get());
}

void Timer::arm(Duration after, bool repeat) {
  const short flags = repeat ? EV_PERSIST : 0;
  if (event_ && (event_get_events(event_.get()) & EV_PERSIST) != flags) event_.reset();
  if (!event_) event_.reset(event_new(loop_.base(), -1, flags, &Timer::fire, this));
  const timeval time = to_timeval(after);
  HENG_ASSERT(event_ && event_add(event_.get(), &time) == 0);
}

void Timer::fire(int, short, void* self) {
  Timer* timer = static_cast<Timer*>(self);
  const bool repeats = (event_get_events(timer->event_.get()) & EV_PERSIST) != 0;
  const Duration left = repeats ? Duration(0) : timer->due_ - timer->loop_.now();
  if (left > kTimerSlack) return timer->arm(left, false);  // libevent knows nothing of forgiven stalls
  timer->call_();
}

SignalWatch::SignalWatch(Loop& loop, int number, std::function<void()> call) : call_(std::move(call)) {
  event_.reset(evsignal_new(
      loop.base(), number, [](int, short, void* self) { static_cast<SignalWatch*>(self)->call_(); }, this));
  HENG_ASSERT(event_ && event_add(event_.get(), nullptr) == 0);
}

}  // namespace heng
