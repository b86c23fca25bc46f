// The load of `heng demo`: streamed chats at random times, as many users would send them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "live/http_client.h"
#include "live/loop.h"

namespace heng {

struct DemoLoadOptions {
  Endpoint gateway;
  std::string model;
  double requests_per_second = 100;
  std::uint32_t output_tokens_min = 8;
  std::uint32_t output_tokens_max = 24;
  std::uint64_t seed = 1;
};

/// Open loop: arrivals are Poisson and do not wait for answers. Lives on its loop; destroyed between turns.
class DemoLoad {
 public:
  DemoLoad(Loop& loop, DemoLoadOptions options);
  ~DemoLoad();

  void start();
  void stop() { timer_.stop(); }
  /// Times to first token in seconds of the answers that began since the last call.
  std::vector<double> take_ttfts() { return std::exchange(ttfts_, {}); }
  std::uint64_t failed() const { return failed_; }
  std::uint64_t completed() const { return completed_; }

 private:
  class Call;
  void arrive();
  void next();

  Loop& loop_;
  DemoLoadOptions options_;
  Rng rng_;
  Resolver resolver_;
  HttpOrigin origin_;
  Timer timer_;
  Instant due_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::vector<Call*> free_;
  std::vector<double> ttfts_;
  std::uint64_t completed_ = 0;
  std::uint64_t failed_ = 0;
};

}  // namespace heng
