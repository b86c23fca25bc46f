// Heads are cut out line by line, parsed by llhttp, then held against rules llhttp is lenient about.
#include "live/http1.h"

#include <algorithm>
#include <cstring>

namespace heng {

namespace {

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// Calls `use` with each element of a comma-separated list.
template <class Use>
void for_each_element(std::string_view list, Use use) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    const std::string_view element = trim(list.substr(0, comma));
    if (!element.empty()) use(element);
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
}

HttpHead& head_of(llhttp_t* parser) { return *static_cast<HttpHead*>(parser->data); }

/// llhttp hands a span over in one piece as long as its input is one piece; continue it if it ever does not.
void extend(std::string_view& view, const char* at, std::size_t size) {
  view = view.empty() ? std::string_view(at, size)
                      : std::string_view(view.data(), size + static_cast<std::size_t>(at - view.data()));
}

int on_target(llhttp_t* parser, const char* at, std::size_t size) {
  extend(head_of(parser).target, at, size);
  return 0;
}

int on_reason(llhttp_t* parser, const char* at, std::size_t size) {
  extend(head_of(parser).reason, at, size);
  return 0;
}

int on_name(llhttp_t* parser, const char* at, std::size_t size) {
  head_of(parser).fields.push_back({.name = {at, size}, .value = {at + size, 0}});
  return 0;
}

int on_value(llhttp_t* parser, const char* at, std::size_t size) {
  if (size != 0) extend(head_of(parser).fields.back().value, at, size);
  return 0;
}

/// Stop before the body: the caller frames it.
int on_head_complete(llhttp_t*) { return HPE_PAUSED; }

int on_payload(llhttp_t* parser, const char* at, std::size_t size) {
  static_cast<std::vector<std::string_view>*>(parser->data)->emplace_back(at, size);
  return 0;
}

int on_message_end(llhttp_t*) { return HPE_PAUSED; }

const llhttp_settings_t& head_settings() {
  static const llhttp_settings_t kSettings = [] {
    llhttp_settings_t settings;
    llhttp_settings_init(&settings);
    settings.on_url = on_target;
    settings.on_status = on_reason;
    settings.on_header_field = on_name;
    settings.on_header_value = on_value;
    settings.on_headers_complete = on_head_complete;
    return settings;
  }();
  return kSettings;
}

/// Trailers are read over and dropped: nobody downstream was promised any.
const llhttp_settings_t& body_settings() {
  static const llhttp_settings_t kSettings = [] {
    llhttp_settings_t settings;
    llhttp_settings_init(&settings);
    settings.on_body = on_payload;
    settings.on_message_complete = on_message_end;
    return settings;
  }();
  return kSettings;
}

bool is_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

/// A name or an address as RFC 3986 3.2.2 writes it (but without escapes, which no name has), and perhaps a
/// port.
bool is_host(std::string_view text) {
  const bool is_address = text.starts_with('[');
  const std::size_t end = is_address ? text.find(']') : std::min(text.find(':'), text.size());
  if (end == text.npos) return false;
  const std::string_view host = text.substr(is_address ? 1 : 0, is_address ? end - 1 : end);
  const std::string_view port = text.substr(is_address ? end + 1 : end);
  if (!port.empty() &&
      !(port == ":" || (port.front() == ':' && port.size() <= 6 && is_digits(port.substr(1)))))
    return false;
  const std::string_view marks = is_address ? ":." : "-._~!$&'()*+;=";
  return !host.empty() && std::ranges::all_of(host, [&](char c) {
    return is_digits({&c, 1}) || (lower(c) >= 'a' && lower(c) <= 'z') || marks.find(c) != marks.npos;
  });
}

/// A transfer coding of RFC 9112 7.2, perhaps under "chunked": well-formed, but nothing that is done here.
bool is_unsupported_coding(std::string_view value) {
  const std::size_t comma = std::min(value.find(','), value.size());
  const std::string_view coding = trim(value.substr(0, comma));
  const std::string_view rest = value.substr(std::min(comma + 1, value.size()));
  constexpr std::string_view kCodings[] = {"gzip", "x-gzip", "compress", "x-compress", "deflate"};
  return std::ranges::any_of(kCodings,
                             [&](std::string_view known) { return equals_ignoring_case(coding, known); }) &&
         (comma == value.size() || equals_ignoring_case(trim(rest), "chunked"));
}

struct FramingFields {
  const HeaderField* content_length = nullptr;
  const HeaderField* transfer_encoding = nullptr;
  const HeaderField* host = nullptr;
  const HeaderField* expect = nullptr;
  const char* problem = nullptr;  // a second one of its kind
};

/// One pass over the fields; sets keep_alive from Connection.
FramingFields find_framing(HttpHead& head) {
  FramingFields found;
  head.keep_alive = head.minor_version >= 1;
  const auto once = [&](const HeaderField*& slot, const HeaderField& field, const char* problem) {
    if (slot != nullptr) found.problem = problem;
    slot = &field;
  };
  for (HeaderField& field : head.fields) {
    field.value = trim(field.value);
    switch (field.name.size()) {
      case 4:
        if (equals_ignoring_case(field.name, "host")) once(found.host, field, "more than one Host header");
        break;
      case 6:
        if (equals_ignoring_case(field.name, "expect"))
          once(found.expect, field, "more than one Expect header");
        break;
      case 10:
        if (equals_ignoring_case(field.name, "connection")) {
          for_each_element(field.value, [&](std::string_view option) {
            if (equals_ignoring_case(option, "close")) head.keep_alive = false;
            if (equals_ignoring_case(option, "keep-alive") && head.minor_version == 0) head.keep_alive = true;
          });
        }
        break;
      case 14:
        if (equals_ignoring_case(field.name, "content-length")) {
          once(found.content_length, field, "more than one Content-Length header");
        }
        break;
      case 17:
        if (equals_ignoring_case(field.name, "transfer-encoding")) {
          once(found.transfer_encoding, field, "more than one Transfer-Encoding header");
        }
        break;
      default:
        break;
    }
  }
  return found;
}

std::optional<HeadError> read_framing(HttpHead& head, const FramingFields& found, int status) {
  if (found.problem != nullptr) return HeadError{status, found.problem};
  if (found.transfer_encoding != nullptr) {
    if (found.content_length != nullptr)
      return HeadError{status, "both Content-Length and Transfer-Encoding"};
    if (head.minor_version == 0) return HeadError{status, "Transfer-Encoding in HTTP/1.0"};
    if (!equals_ignoring_case(found.transfer_encoding->value, "chunked")) {
      const bool unsupported = status == 400 && is_unsupported_coding(found.transfer_encoding->value);
      return HeadError{unsupported ? 501 : status, "Transfer-Encoding must be 'chunked'"};
    }
    head.framing = BodyFraming::chunked;
  } else if (found.content_length != nullptr) {
    const std::string_view digits = found.content_length->value;
    if (!is_digits(digits) || digits.size() > 18) return HeadError{status, "Content-Length is not a number"};
    for (const char c : digits)
      head.content_length = head.content_length * 10 + static_cast<std::uint64_t>(c - '0');
    head.framing = BodyFraming::length;
  }
  return std::nullopt;
}

std::optional<HeadError> run_llhttp(std::string_view bytes, llhttp_type_t type, HttpHead& head,
                                    llhttp_t& parser) {
  head.method = head.target = head.reason = {};
  head.fields.clear();
  head.framing = BodyFraming::none;
  head.content_length = 0;
  head.expect_continue = false;
  llhttp_init(&parser, type, &head_settings());
  parser.data = &head;
  const llhttp_errno_t error = llhttp_execute(&parser, bytes.data(), bytes.size());
  if (error != HPE_PAUSED && error != HPE_PAUSED_UPGRADE) {
    const char* reason = llhttp_get_error_reason(&parser);
    return HeadError{400, reason == nullptr || *reason == '\0' ? "malformed HTTP head" : reason};
  }
  parser.data = nullptr;
  parser.settings = const_cast<llhttp_settings_t*>(&body_settings());
  parser.upgrade = 0;  // never: an upgraded connection would be a tunnel past all checks
  head.minor_version = parser.http_minor;
  if (parser.http_major != 1 || parser.http_minor > 1)
    return HeadError{505, "only HTTP/1.0 and HTTP/1.1 are spoken here"};
  for (const HeaderField& field : head.fields) {
    if (field.name.empty()) return HeadError{400, "empty header name"};
  }
  return std::nullopt;
}

}  // namespace

bool reads_as(std::string_view name, std::string_view known) {
  return std::ranges::equal(name, known, [](char a, char b) { return lower(a == '_' ? '-' : a) == b; });
}

std::optional<std::string_view> HttpHead::find(std::string_view name) const {
  for (const HeaderField& field : fields) {
    if (equals_ignoring_case(field.name, name)) return field.value;
  }
  return std::nullopt;
}

void HttpHead::rebase(std::string_view from, std::string_view to) {
  const auto move = [&](std::string_view& view) {
    if (!view.empty()) view = to.substr(static_cast<std::size_t>(view.begin() - from.begin()), view.size());
  };
  for (std::string_view* view : {&method, &target, &reason}) move(*view);
  for (HeaderField& field : fields) {
    move(field.name);
    move(field.value);
  }
}

HeadScan scan_head(std::string_view bytes, std::size_t from, const HeadLimits& limits) {
  const auto invalid = [](int status, const char* message) {
    return HeadScan{HeadScan::State::invalid, 0, {status, message}};
  };
  std::size_t line = from;
  while (line < bytes.size()) {
    const void* found = std::memchr(bytes.data() + line, '\n', bytes.size() - line);
    const std::size_t end = found == nullptr
                                ? bytes.size()
                                : static_cast<std::size_t>(static_cast<const char*>(found) - bytes.data());
    // In this order, so that a long first line has the same fate in one piece and in many.
    if (line == 0 && end > limits.target_bytes + 32) return invalid(414, "request target too long");
    if (end >= limits.head_bytes) return invalid(431, "request head too large");
    if (found == nullptr) break;
    if (end == line || bytes[end - 1] != '\r') return invalid(400, "line ends with a bare line feed");
    const std::string_view text = bytes.substr(line, end - 1 - line);
    if (text.empty() && line != 0) return {HeadScan::State::complete, end + 1, {}};
    if (text.find('\r') != text.npos) return invalid(400, "carriage return inside a line");
    if (text.find('\0') != text.npos) return invalid(400, "NUL byte in the head");
    if (line != 0 && (text.front() == ' ' || text.front() == '\t')) return invalid(400, "folded header line");
    line = end + 1;
  }
  return {HeadScan::State::incomplete, line, {}};
}

std::optional<HeadError> parse_request_head(std::string_view bytes, const HeadLimits& limits, HttpHead& head,
                                            llhttp_t& parser) {
  if (bytes.starts_with("PRI * HTTP/2")) return HeadError{505, "only HTTP/1.0 and HTTP/1.1 are spoken here"};
  if (const auto error = run_llhttp(bytes, HTTP_REQUEST, head, parser)) return error;
  head.method = bytes.substr(0, bytes.find(' '));
  // llhttp takes more than one space, and other protocols' names.
  constexpr std::size_t kVersionBytes = std::string_view(" HTTP/1.1").size();
  if (bytes.find('\r') != head.method.size() + 1 + head.target.size() + kVersionBytes)
    return HeadError{400, "malformed request line"};
  if (head.fields.size() > limits.header_count) return HeadError{431, "too many headers"};
  if (head.target.size() > limits.target_bytes) return HeadError{414, "request target too long"};
  if (head.method == "CONNECT" || head.method == "TRACE")
    return HeadError{405, "CONNECT and TRACE are not offered here"};
  const FramingFields found = find_framing(head);
  if (const auto error = read_framing(head, found, 400)) return error;
  if (head.minor_version >= 1 && found.host == nullptr) return HeadError{400, "Host header missing"};
  if (found.host != nullptr && !is_host(found.host->value)) return HeadError{400, "malformed Host header"};
  if (found.expect != nullptr) {
    if (!equals_ignoring_case(found.expect->value, "100-continue"))
      return HeadError{417, "unknown expectation"};
    head.expect_continue = head.minor_version >= 1 && head.framing != BodyFraming::none;
  }
  if (!head.target.starts_with('/') && head.target != "*") {
    const std::size_t scheme = head.target.find("://");
    if (scheme == head.target.npos) return HeadError{400, "malformed request target"};
    const std::size_t path = head.target.find_first_of("/?#", scheme + 3);
    if (path != head.target.npos && head.target[path] != '/')
      return HeadError{400, "request target without a path"};
    // Without a path, the slash before the host serves as one: views must lie in the head's bytes (rebase).
    head.target = path == head.target.npos ? head.target.substr(scheme + 1, 1) : head.target.substr(path);
  }
  return std::nullopt;
}

std::optional<HeadError> parse_response_head(std::string_view bytes, const HeadLimits& limits,
                                             bool head_request, HttpHead& head, llhttp_t& parser) {
  const auto bad = [](const char* message) { return HeadError{502, message}; };
  if (const auto error = run_llhttp(bytes, HTTP_RESPONSE, head, parser)) return bad(error->message);
  head.status = parser.status_code;
  if (head.fields.size() > limits.header_count) return bad("too many headers");
  if (head.status < 100 || head.status > 599) return bad("status outside 100-599");
  const FramingFields found = find_framing(head);
  if (const auto error = read_framing(head, found, 502)) return error;
  if (head_request || head.status < 200 || head.status == 204 || head.status == 304) {
    head.framing = BodyFraming::none;
  } else if (head.framing == BodyFraming::none) {
    head.framing = BodyFraming::until_close;
    head.keep_alive = false;
  }
  return std::nullopt;
}

ChunkResult decode_chunks(llhttp_t& parser, std::string_view bytes, std::vector<std::string_view>& pieces) {
  if (bytes.empty()) return {};
  // Between the calls `data` keeps the last byte seen.
  const auto last_seen = static_cast<char>(reinterpret_cast<std::uintptr_t>(parser.data));
  parser.data = &pieces;
  if (llhttp_get_errno(&parser) == HPE_PAUSED) llhttp_resume(&parser);
  const llhttp_errno_t error = llhttp_execute(&parser, bytes.data(), bytes.size());
  parser.data = reinterpret_cast<void*>(std::uintptr_t{static_cast<unsigned char>(bytes.back())});
  if (error == HPE_OK) return {ChunkResult::State::more, bytes.size()};
  if (error == HPE_PAUSED) {
    const auto consumed = static_cast<std::size_t>(llhttp_get_error_pos(&parser) - bytes.data());
    // llhttp takes a bare line feed for the empty line at the end; who is in front of us may not.
    const bool ends_with_crlf = (consumed >= 2 ? bytes[consumed - 2] : last_seen) == '\r';
    if (ends_with_crlf) return {ChunkResult::State::end, consumed};
  }
  return {ChunkResult::State::invalid, 0};
}

bool is_hop_by_hop(std::string_view name) {
  static constexpr std::string_view kNames[] = {"connection",
                                                "keep-alive",
                                                "proxy-connection",
                                                "proxy-authenticate",
                                                "proxy-authorization",
                                                "te",
                                                "trailer",
                                                "transfer-encoding",
                                                "upgrade",
                                                "content-length",
                                                "expect",
                                                "host",
                                                "http2-settings"};
  return std::ranges::any_of(kNames, [&](std::string_view hop) { return reads_as(name, hop); });
}

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

}  // namespace heng
