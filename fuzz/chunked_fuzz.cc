// Any bytes as a chunked body: the payload and its end do not depend on how the bytes arrive, and are those
// that a plain reading of RFC 9112 section 7.1 finds.

// fuzz-layer: live

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "live/http1.h"

namespace {

using heng::ChunkResult;
using State = heng::ChunkResult::State;

struct Decoded {
  State state = State::more;
  std::size_t consumed = 0;
  std::string payload;

  bool operator==(const Decoded&) const = default;
};

llhttp_t parser_of(std::string_view head_bytes, bool request) {
  heng::HttpHead head;
  llhttp_t parser;
  const auto error = request ? heng::parse_request_head(head_bytes, {}, head, parser)
                             : heng::parse_response_head(head_bytes, {}, false, head, parser);
  HENG_ASSERT(!error && head.framing == heng::BodyFraming::chunked);
  return parser;
}

/// `cuts`: sizes of the reads, used in turn.
Decoded decode(llhttp_t parser, std::string_view bytes, const std::vector<std::size_t>& cuts) {
  Decoded decoded;
  std::vector<std::string_view> pieces;
  for (std::size_t turn = 0; decoded.state == State::more && decoded.consumed < bytes.size(); ++turn) {
    const std::string_view read = bytes.substr(decoded.consumed, cuts[turn % cuts.size()]);
    // Memory of its own, so that a look beyond this read is noticed.
    const std::vector<char> copy(read.begin(), read.end());
    pieces.clear();
    const ChunkResult result = heng::decode_chunks(parser, {copy.data(), copy.size()}, pieces);
    HENG_ASSERT(result.consumed <= copy.size());
    HENG_ASSERT(result.state != State::more || result.consumed == copy.size());
    decoded.state = result.state;
    decoded.consumed += result.consumed;
    for (const std::string_view piece : pieces) {
      HENG_ASSERT(piece.data() >= copy.data() && piece.data() + piece.size() <= copy.data() + copy.size());
      decoded.payload += piece;
    }
  }
  return decoded;
}

/// The end and payload of the body at the start of `bytes`, leaving aside what extensions and trailers may
/// contain; nothing if it has no end or is malformed.
std::optional<Decoded> plain_reading(std::string_view bytes) {
  Decoded decoded;
  decoded.state = State::end;
  const auto line = [&]() -> std::optional<std::string_view> {
    const std::size_t end = bytes.find("\r\n", decoded.consumed);
    if (end == bytes.npos) return std::nullopt;
    const std::string_view text = bytes.substr(decoded.consumed, end - decoded.consumed);
    if (text.find_first_of("\r\n") != text.npos) return std::nullopt;
    decoded.consumed = end + 2;
    return text;
  };
  while (true) {
    const auto size_line = line();
    if (!size_line) return std::nullopt;
    const std::size_t digits =
        std::min(size_line->find_first_not_of("0123456789abcdefABCDEF"), size_line->size());
    if (digits == 0) return std::nullopt;
    const std::string_view rest = size_line->substr(digits);
    if (!rest.empty() && rest.find_first_not_of(" \t;") == 0) return std::nullopt;
    std::size_t size = 0;
    for (const char c : size_line->substr(0, digits)) {
      if (size > bytes.size()) return std::nullopt;
      size = size * 16 + static_cast<std::size_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (size == 0) break;
    if (bytes.size() - decoded.consumed < size) return std::nullopt;
    decoded.payload += bytes.substr(decoded.consumed, size);
    decoded.consumed += size;
    if (bytes.substr(decoded.consumed, 2) != "\r\n") return std::nullopt;
    decoded.consumed += 2;
  }
  while (true) {
    const auto trailer = line();
    if (!trailer) return std::nullopt;
    if (trailer->empty()) return decoded;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  static const llhttp_t kRequest =
      parser_of("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", true);
  static const llhttp_t kAnswer = parser_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false);
  const llhttp_t& parser = (data[0] & 1) != 0 ? kRequest : kAnswer;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 3, size - 3);
  const Decoded whole = decode(parser, bytes, {std::max<std::size_t>(bytes.size(), 1)});
  const Decoded cut = decode(parser, bytes, {data[1] % 16 + 1u, data[2] % 64 + 1u});
  const Decoded single = decode(parser, bytes, {1});
  HENG_ASSERT(whole.state == cut.state && whole.state == single.state);
  if (whole.state == State::invalid) return 0;
  HENG_ASSERT(whole == cut && whole == single);
  if (whole.state == State::end) {
    const std::optional<Decoded> plain = plain_reading(bytes);
    HENG_ASSERT(plain.has_value() && *plain == whole);
  }
  return 0;
}
