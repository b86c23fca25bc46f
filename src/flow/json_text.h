// The checks of JSON's text that simdjson's on-demand parser leaves to its callers.
#pragma once

#include <string_view>

namespace heng {

/// RFC 8259 section 7, of the text between a string's quotes; UTF-8 and control characters are simdjson's.
bool valid_escapes(std::string_view text);

/// RFC 8259 section 6: [-] int [frac] [exp].
bool valid_number(std::string_view text);

}  // namespace heng
