// Any bytes as a request body: the inspector takes for an object exactly what a validating parser takes.

// fuzz-layer: flow

#include <simdjson.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/buffer.h"
#include "flow/inspect.h"

namespace {

constexpr std::uint32_t kDepthMax = 20;

/// Without what the validating parser refuses only since it decodes: numbers beyond a double (runs of digits
/// outside strings are cut to two) and lone surrogates ("\ud800" becomes "\u0800").
std::string without_limits(std::string_view text) {
  std::string plain;
  bool in_string = false;
  int digits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    digits = c >= '0' && c <= '9' ? digits + 1 : 0;
    if (!in_string && digits > 2) continue;
    plain += c;
    if (c == '"') in_string = !in_string;
    if (!in_string || c != '\\' || i + 1 == text.size()) continue;
    plain += text[++i];
    if (text[i] == 'u' && i + 1 < text.size() && (text[i + 1] | 0x20) == 'd') {
      plain += '0';
      ++i;
    }
  }
  return plain;
}

struct Strict {
  bool object = false;
  std::uint32_t depth = 0;
};

std::uint32_t depth_of(simdjson::dom::element element) {
  std::uint32_t below = 0;
  simdjson::dom::object object;
  simdjson::dom::array array;
  if (element.get(object) == simdjson::SUCCESS) {
    for (const auto field : object) below = std::max(below, depth_of(field.value));
  } else if (element.get(array) == simdjson::SUCCESS) {
    for (const auto each : array) below = std::max(below, depth_of(each));
  } else {
    return 0;
  }
  return below + 1;
}

Strict strict_reading(std::string_view text) {
  static simdjson::dom::parser parser;
  simdjson::dom::element element;
  if (parser.parse(simdjson::padded_string(text)).get(element) != simdjson::SUCCESS) return {};
  if (!element.is_object()) return {};
  return {true, depth_of(element)};
}

bool same_facts(const heng::RequestFacts& a, const heng::RequestFacts& b) {
  return a.model == b.model && a.model_token == b.model_token && a.user == b.user && a.stream == b.stream &&
         a.prompt_start_hash == b.prompt_start_hash && a.prompt_bytes == b.prompt_bytes &&
         a.output_tokens_max == b.output_tokens_max && a.previous_response_id == b.previous_response_id;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static heng::RequestInspector inspector;
  static heng::RequestInspector another;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  heng::Buffer padded;
  padded.append(text);
  padded.reserve(size + 1);
  std::memset(padded.room(0), '"', heng::Buffer::kPadding);  // what lies behind is no part
  heng::RequestFacts facts;
  const auto error = inspector.inspect_json(padded.view(), kDepthMax, facts);
  if (error) {
    HENG_ASSERT(error->status == 400 && !error->message.empty());
    if (!error->code.empty()) return 0;  // well-formed or not, a field is refused
    const Strict strict = strict_reading(text);
    HENG_ASSERT(!strict.object || strict.depth > kDepthMax);
    return 0;
  }
  const Strict strict = strict_reading(without_limits(text));
  HENG_ASSERT(strict.object && strict.depth <= kDepthMax);
  HENG_ASSERT(facts.prompt_bytes <= size);
  if (!facts.model_token.empty()) {
    HENG_ASSERT(facts.model_token.data() > padded.data() && facts.model_token.end() < padded.view().end());
    HENG_ASSERT(facts.model_token == "null" ||
                (facts.model_token.front() == '"' && facts.model_token.back() == '"'));
  }
  heng::RequestFacts again;
  HENG_ASSERT(!another.inspect_json(padded.view(), kDepthMax, again) && same_facts(facts, again));
  return 0;
}
