// Error bodies as OpenAI's API gives them, so that every official client raises the right exception.
#pragma once

#include <string>
#include <string_view>

#include "base/time.h"

namespace heng {

/// Why the gateway itself refuses a request.
struct ApiError {
  int status = 400;
  std::string message;
  std::string param;
  std::string code;
  Duration retry_after{};  // when it is worth another try; 0 = nothing to say
};

/// JSON string literal with quotes; control characters and invalid UTF-8 are escaped or replaced.
std::string json_quote(std::string_view text);

/// {"error":{"message":...,"type":...,"param":...,"code":...}}; `type` follows from the status, empty `param`
/// and `code` become null.
std::string api_error_body(int status, std::string_view message, std::string_view code = {},
                           std::string_view param = {});

}  // namespace heng
