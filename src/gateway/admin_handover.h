// POST /api/v1/handover: answered when the new process is ready, or has failed to be.
#pragma once

#include <sys/types.h>

#include <functional>

#include "base/result.h"
#include "live/http_server.h"

namespace heng {

/// Lives on the admin API's loop. One hand-over is asked for at a time.
class AdminHandover final : public AnswerObserver {
 public:
  /// Starts a hand-over; `told` hears once, perhaps at once, of the new process or why there is none.
  using Start = std::function<void(std::function<void(Result<pid_t>)> told)>;

  explicit AdminHandover(Start start) : start_(std::move(start)) {}

  /// Answers now or later. Whoever calls has made sure that the client may do this.
  void answer(ServerConnection& connection);

 private:
  void on_client_gone() override { waiting_ = nullptr; }
  void tell(const Result<pid_t>& successor);

  Start start_;
  ServerConnection* waiting_ = nullptr;
};

}  // namespace heng
