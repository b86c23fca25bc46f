// What of a head passes through the gateway, and what stays or is replaced.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "live/http1.h"

namespace heng {

/// A client's own id is kept if it is short and printable.
bool is_request_id(std::string_view id);

bool starts_ignoring_case(std::string_view text, std::string_view prefix);

/// When another try is worth it, as clients read it: seconds for all, milliseconds for the official ones.
class RetryAfter {
 public:
  explicit RetryAfter(Duration wait)
      : wait_ms_(std::chrono::ceil<std::chrono::milliseconds>(wait).count()),
        seconds_(std::to_string((wait_ms_ + 999) / 1000)),
        milliseconds_(std::to_string(wait_ms_)) {}

  /// Nothing if there is no wait. The fields point into this object.
  void append_to(std::vector<HeaderField>& fields) const {
    if (wait_ms_ <= 0) return;
    fields.push_back({"Retry-After", seconds_});
    fields.push_back({"retry-after-ms", milliseconds_});
  }

 private:
  std::int64_t wait_ms_;
  std::string seconds_;
  std::string milliseconds_;
};

/// Fields that only the gateway itself may set towards workers.
bool is_replaced(std::string_view name);

/// Fields that carry a client's key.
bool is_credential(std::string_view name);

/// True for "/v1/../x" and all the ways to write it: beyond a base path, or behind a server that resolves it,
/// such a target is not the /v1/ path it looks like.
bool has_dot_segments(std::string_view path);

/// The options of all Connection fields: a view of the one, or of `joined` if there are several.
std::string_view connection_options(const HttpHead& head, std::string& joined);

/// The official clients say how often they have repeated a request.
bool is_client_retry(const HttpHead& head);

/// A redirect to anywhere but the worker itself, which would lead the client past the gateway.
bool redirects_elsewhere(const HttpHead& head, const WorkerConfig& worker);

/// Named in Connection, so meant for us alone; but a client cannot strip what the worker needs to read the
/// body, nor the key it asks with.
bool is_nominated(std::string_view connection, std::string_view name);

}  // namespace heng
