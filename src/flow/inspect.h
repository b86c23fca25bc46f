// Looks once into a request's body for what routing needs, and refuses what gateway and worker could read
// differently.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "flow/api_error.h"

namespace heng {

/// Views point into the inspected body, or into the inspector until its next call.
struct RequestFacts {
  std::string_view model;                 // "" = none given
  std::string_view model_token;           // the JSON string token of `model`, quotes included; for renaming
  std::string_view previous_response_id;  // "" = none
  std::string_view user;                  // "" = none
  std::uint64_t prompt_start_hash = 0;    // equal for all turns of a conversation; 0 = no prompt
  std::uint64_t prompt_bytes = 0;         // JSON bytes of messages, prompt or input
  std::string_view prompt;                // these bytes; the longest of them, if it has several
  std::uint32_t output_tokens_max = 0;    // 0 = not given
  bool stream = false;
};

/// Reuses its memory; one for each loop.
class RequestInspector {
 public:
  RequestInspector();
  ~RequestInspector();

  /// `body` must be a JSON object with Buffer::kPadding readable bytes behind it. The whole text is validated
  /// as RFC 8259 asks (simdjson's stage 1 checks UTF-8 and strings' control characters); nesting beyond
  /// `depth_max`, duplicate top-level keys, trailing bytes and absurd numbers are refused. One pass, no copy
  /// of the body.
  std::optional<ApiError> inspect_json(std::string_view body, std::uint32_t depth_max, RequestFacts& facts);

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

/// The `model` field of a multipart/form-data body (audio and file uploads); "" if it has none. Forms that
/// workers could read in more than one way are refused.
std::expected<std::string_view, ApiError> multipart_model(std::string_view content_type,
                                                          std::string_view body);

}  // namespace heng
