// Any bytes as a multipart upload and as a piece of an answer: no read outside of them, and what is found is
// in them.

// fuzz-layer: flow

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "flow/inspect.h"
#include "flow/usage.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  heng::UsageReader reader;
  for (std::size_t at = 0; at < size;) {
    const std::string_view part = bytes.substr(at, 1 + at % 40);
    reader.take(std::string_view(std::vector<char>(part.begin(), part.end()).data(), part.size()));
    at += part.size();
  }
  const heng::Usage& usage = reader.usage();
  HENG_ASSERT((usage.prompt_tokens == 0 && usage.output_tokens == 0) || bytes.contains("\"usage\"") ||
              bytes.contains("\"timings\""));
  // The first line is the Content-Type, the rest the body, each in memory of its own.
  const std::size_t line = std::min(bytes.find('\n'), size);
  const std::vector<char> type(bytes.begin(), bytes.begin() + line);
  const std::string_view rest = bytes.substr(std::min(line + 1, size));
  const std::vector<char> body(rest.begin(), rest.end());
  const auto model = heng::multipart_model({type.data(), type.size()}, {body.data(), body.size()});
  HENG_ASSERT(!model || model->empty() ||
              (model->data() >= body.data() && model->data() + model->size() <= body.data() + body.size()));
  return 0;
}
