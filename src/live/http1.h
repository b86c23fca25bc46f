// HTTP/1.1 heads and bodies: parsing on llhttp, with the stricter checks that a gateway needs.
#pragma once

#include <llhttp.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/ascii.h"

namespace heng {

struct HeaderField {
  std::string_view name;
  std::string_view value;
};

/// The field `known`, also as "X_Api_Key": some servers take that for "X-Api-Key".
bool reads_as(std::string_view name, std::string_view known);

enum class BodyFraming : std::uint8_t { none, length, chunked, until_close };

/// A parsed head. Views point into the bytes it was parsed from.
struct HttpHead {
  std::string_view method;  // requests
  std::string_view target;  // requests: path and query, also if the client sent an absolute URL
  int status = 0;           // responses
  std::string_view reason;
  int minor_version = 1;  // of HTTP/1.x
  std::vector<HeaderField> fields;
  BodyFraming framing = BodyFraming::none;
  std::uint64_t content_length = 0;
  bool keep_alive = true;
  bool expect_continue = false;

  /// The first field of that name (case-insensitive), or nothing.
  std::optional<std::string_view> find(std::string_view name) const;
  /// Lets all views point to the same offsets of another copy of the bytes.
  void rebase(std::string_view from, std::string_view to);
};

struct HeadLimits {
  std::uint32_t head_bytes = 32 << 10;
  std::uint32_t header_count = 100;
  std::uint32_t target_bytes = 8 << 10;
};

/// What is wrong with a head, as the status and sentence to answer with (502 for responses).
struct HeadError {
  int status = 400;
  const char* message = nullptr;
};

/// Where the head at the start of `bytes` ends.
struct HeadScan {
  enum class State : std::uint8_t { incomplete, complete, invalid } state = State::incomplete;
  std::size_t size = 0;  // complete: bytes up to and with the empty line; incomplete: where to go on scanning
  HeadError error;
};
/// Line by line from `from`, which a previous incomplete scan returned. Refuses bare LF, bare CR, NUL, folded
/// lines.
HeadScan scan_head(std::string_view bytes, std::size_t from, const HeadLimits& limits);

/// Parses a whole head (as delimited by scan_head). `parser` is left ready to decode a chunked body.
std::optional<HeadError> parse_request_head(std::string_view bytes, const HeadLimits& limits, HttpHead& head,
                                            llhttp_t& parser);
/// `head_request`: the answer to a HEAD, which has no body whatever its fields say.
std::optional<HeadError> parse_response_head(std::string_view bytes, const HeadLimits& limits,
                                             bool head_request, HttpHead& head, llhttp_t& parser);

/// Decodes as much of a chunked body as `bytes` holds; payload views are appended to `pieces`.
struct ChunkResult {
  enum class State : std::uint8_t { more, end, invalid } state = State::more;
  std::size_t consumed = 0;  // `end`: bytes that belonged to this message
};
ChunkResult decode_chunks(llhttp_t& parser, std::string_view bytes, std::vector<std::string_view>& pieces);

// Chunk extensions and trailers have no size of their own and keep a connection's deadline moving: whoever
// decodes ends a body that is longer on the wire than this. A chunk of one byte takes six.
constexpr std::uint64_t kChunkOverheadMax = 64 << 10;
constexpr std::uint64_t kChunkOverheadRatio = 16;  // of the payload

/// Fields that belong to one connection and are never forwarded (RFC 9110 7.6.1), Content-Length and Host
/// included, since the gateway frames and addresses messages itself.
bool is_hop_by_hop(std::string_view name);

std::string_view reason_phrase(int status);

}  // namespace heng
