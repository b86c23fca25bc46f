// Any bytes as an HTTP head: where it ends does not depend on how it arrives, and what is accepted keeps the
// promises of HttpHead.

// fuzz-layer: live

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/buffer.h"
#include "live/http1.h"

namespace {

using heng::HeadScan;

constexpr heng::HeadLimits kLimits{.head_bytes = 1024, .header_count = 20, .target_bytes = 256};

/// As a connection does it: bytes come in two reads, then one by one.
HeadScan scan_in_parts(std::string_view bytes, std::size_t first) {
  HeadScan scan;
  for (std::size_t size = std::min(first, bytes.size());; ++size) {
    scan = heng::scan_head(bytes.substr(0, size), scan.size, kLimits);
    if (scan.state != HeadScan::State::incomplete || size >= bytes.size()) return scan;
  }
}

bool is_token(std::string_view name) {
  constexpr std::string_view kSymbols = "!#$%&'*+-.^_`|~";
  return !name.empty() && std::ranges::all_of(name, [&](char c) {
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || kSymbols.contains(c);
  });
}

bool lies_in(std::string_view part, std::string_view whole) {
  return part.empty() || (part.data() >= whole.data() && part.end() <= whole.end());
}

/// `bytes` is the whole head.
void check_accepted(const heng::HttpHead& head, std::string_view bytes) {
  using heng::equals_ignoring_case;
  int lengths = 0;
  int codings = 0;
  for (const heng::HeaderField& field : head.fields) {
    HENG_ASSERT(is_token(field.name) && lies_in(field.name, bytes) && lies_in(field.value, bytes));
    HENG_ASSERT(field.value.find_first_of(std::string_view("\r\n\0", 3)) == field.value.npos);
    lengths += equals_ignoring_case(field.name, "content-length");
    codings += equals_ignoring_case(field.name, "transfer-encoding");
  }
  HENG_ASSERT(lengths + codings <= 1 && head.fields.size() <= kLimits.header_count);
  HENG_ASSERT(head.framing != heng::BodyFraming::chunked || (codings == 1 && head.minor_version == 1));
  HENG_ASSERT(head.framing != heng::BodyFraming::length || lengths == 1);
  HENG_ASSERT(lies_in(head.target, bytes) && lies_in(head.reason, bytes));
  heng::HttpHead moved = head;
  const std::string copy(bytes);
  moved.rebase(bytes, copy);
  HENG_ASSERT(moved.fields.size() == head.fields.size() && moved.target == head.target);
  for (std::size_t i = 0; i < head.fields.size(); ++i) {
    HENG_ASSERT(moved.fields[i].value == head.fields[i].value && lies_in(moved.fields[i].name, copy));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  // First byte: 'Q' request, 'A' answer, 'H' answer to a HEAD; second: where the first read ends.
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  const HeadScan whole = heng::scan_head(bytes, 0, kLimits);
  const HeadScan parts = scan_in_parts(bytes, data[1]);
  HENG_ASSERT(whole.state == parts.state && whole.size == parts.size &&
              whole.error.status == parts.error.status);
  if (whole.state != HeadScan::State::complete) return 0;
  const std::string_view cut = bytes.substr(0, whole.size);
  HENG_ASSERT(cut.ends_with("\r\n\r\n") && cut.size() <= kLimits.head_bytes);
  heng::HttpHead head;
  llhttp_t parser;
  if (data[0] == 'Q') {
    if (const auto error = heng::parse_request_head(cut, kLimits, head, parser)) {
      HENG_ASSERT(error->status >= 400 && error->status < 600 && error->message != nullptr);
      return 0;
    }
    check_accepted(head, cut);
    HENG_ASSERT(head.target.starts_with('/') || head.target == "*");
    HENG_ASSERT(head.target.size() <= kLimits.target_bytes && is_token(head.method));
    HENG_ASSERT(head.minor_version == 0 || head.find("host").has_value());
    HENG_ASSERT(head.target.find_first_of(" \t\r\n") == head.target.npos);
  } else {
    const bool head_request = data[0] == 'H';
    if (const auto error = heng::parse_response_head(cut, kLimits, head_request, head, parser)) {
      HENG_ASSERT(error->status == 502 && error->message != nullptr);
      return 0;
    }
    check_accepted(head, cut);
    HENG_ASSERT(head.status >= 100 && head.status <= 599);
    const bool no_body = head_request || head.status < 200 || head.status == 204 || head.status == 304;
    HENG_ASSERT(no_body == (head.framing == heng::BodyFraming::none));
  }
  return 0;
}
