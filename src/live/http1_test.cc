// HTTP/1.1 heads and chunked bodies: what is accepted, with what framing, and which status refuses the rest.
#include "live/http1.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>

namespace heng {
namespace {

constexpr HeadLimits kLimits;

/// A parsed head that owns its bytes. `status` 0: accepted, else what it is refused with.
struct Parsed {
  std::string bytes;
  int status = 0;
  HttpHead head;
  llhttp_t parser;
};

Parsed parse(std::string bytes, bool request, bool head_request = false) {
  Parsed parsed;
  parsed.bytes = std::move(bytes);
  const HeadScan scan = scan_head(parsed.bytes, 0, kLimits);
  if (scan.state != HeadScan::State::complete) {
    parsed.status = scan.state == HeadScan::State::invalid ? scan.error.status : -1;
    return parsed;
  }
  const std::string_view cut = std::string_view(parsed.bytes).substr(0, scan.size);
  const auto error = request ? parse_request_head(cut, kLimits, parsed.head, parsed.parser)
                             : parse_response_head(cut, kLimits, head_request, parsed.head, parsed.parser);
  if (error) parsed.status = error->status;
  return parsed;
}

Parsed parse_request(std::string bytes) { return parse(std::move(bytes), true); }
Parsed parse_answer(std::string bytes, bool head_request = false) {
  return parse(std::move(bytes), false, head_request);
}

/// The status that refuses a POST with these fields besides Host; 0 if it is accepted.
int status_of_post(std::string_view fields, std::string_view version = "1.1") {
  return parse_request(fmt::format("POST / HTTP/{}\r\nHost: a\r\n{}\r\n", version, fields)).status;
}

struct FieldsCase {
  std::string fields;
  int status;
};

TEST(RequestFraming, AmbiguousLengthsAreRefused) {
  for (const auto& [fields, status] :
       std::vector<FieldsCase>{{"Content-Length: 5\r\n", 0},
                               {"content-length:5\r\n", 0},
                               {"Content-Length: \t 5 \r\n", 0},
                               {"Content-Length: 0\r\n", 0},
                               {"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400},
                               {"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400},
                               {"Content-Length: 5\r\nContent-Length: 6\r\n", 400},
                               {"Content-Length: 5\r\nContent-Length: 5\r\n", 400},
                               {"Content-Length: 5, 10\r\n", 400},
                               {"Content-Length: 5, 5\r\n", 400},
                               {"Content-Length: +5\r\n", 400},
                               {"Content-Length: -0\r\n", 400},
                               {"Content-Length: -5\r\n", 400},
                               {"Content-Length: 0x5\r\n", 400},
                               {"Content-Length: 5_0\r\n", 400},
                               {"Content-Length: 5 0\r\n", 400},
                               {"Content-Length: 5.0\r\n", 400},
                               {"Content-Length:\r\n", 400},
                               {"Content-Length: 123456789012345678901234567890\r\n", 400},
                               {"Content-Length: 18446744073709551621\r\n", 400}}) {
    EXPECT_EQ(status_of_post(fields), status) << fields;
  }
}

TEST(RequestFraming, OnlyPlainChunkedIsTaken) {
  for (const auto& [fields, status] :
       std::vector<FieldsCase>{{"Transfer-Encoding: chunked\r\n", 0},
                               {"transfer-encoding:CHUNKED\r\n", 0},
                               {"Transfer-Encoding: xchunked\r\n", 400},
                               {"Transfer-Encoding: chunkedx\r\n", 400},
                               {"Transfer-Encoding: chunked, identity\r\n", 400},
                               {"Transfer-Encoding: identity, chunked\r\n", 400},
                               {"Transfer-Encoding: gzip, chunked\r\n", 501},
                               {"Transfer-Encoding: Deflate\r\n", 501},
                               {"Transfer-Encoding: gzip, gzip\r\n", 400},
                               {"Transfer-Encoding: chunked, gzip\r\n", 400},
                               {"Transfer-Encoding: identity\r\n", 400},
                               {"Transfer-Encoding: \"chunked\"\r\n", 400},
                               {"Transfer-Encoding: \vchunked\r\n", 400},
                               {"Transfer-Encoding: chunked\v\r\n", 400},
                               {"Transfer-Encoding:\r\n chunked\r\n", 400},
                               {"Transfer-Encoding:\r\n", 400},
                               {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400},
                               {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400},
                               {"Transfer-Encoding : chunked\r\n", 400}}) {
    EXPECT_EQ(status_of_post(fields), status) << fields;
  }
  EXPECT_EQ(status_of_post("Transfer-Encoding: chunked\r\n", "1.0"), 400);
}

TEST(RequestFraming, IsReadFromTheFields) {
  const Parsed with_length = parse_request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0017\r\n\r\n");
  EXPECT_EQ(with_length.head.framing, BodyFraming::length);
  EXPECT_EQ(with_length.head.content_length, 17u);
  const Parsed chunked = parse_request("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
  EXPECT_EQ(chunked.head.framing, BodyFraming::chunked);
  const Parsed without = parse_request("POST / HTTP/1.1\r\nHost: a\r\n\r\nrest");
  EXPECT_EQ(without.head.framing, BodyFraming::none);
  EXPECT_EQ(without.head.content_length, 0u);
}

TEST(RequestHead, LinesMustBeClean) {
  using namespace std::string_literals;
  for (const std::string& bytes :
       {"GET / HTTP/1.1\nHost: a\n\n"s, "GET / HTTP/1.1\r\nHost: a\n\r\n"s,
        "GET / HTTP/1.1\r\nHost: a\r\n\n"s, "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"s,
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"s, "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"s,
        "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n"s, "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"s,
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"s,
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n"s, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"s,
        "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n"s, "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"s}) {
    EXPECT_EQ(parse_request(bytes).status, 400) << bytes;
  }
}

TEST(RequestHead, NamesAreTokens) {
  for (const std::string_view line :
       {": b", "X : b", "X\t: b", "(X): b", "X[1]: b", "\xc3\xa9: b", "X", "X Y: b"}) {
    EXPECT_EQ(status_of_post(fmt::format("{}\r\n", line)), 400) << line;
  }
  EXPECT_EQ(status_of_post("!#$%&'*+-.^_`|~09Az: b\r\n"), 0);
}

TEST(RequestHead, HostIsThereOnceAndWellFormed) {
  const auto status = [](std::string_view fields, std::string_view version = "1.1") {
    return parse_request(fmt::format("GET / HTTP/{}\r\n{}\r\n", version, fields)).status;
  };
  EXPECT_EQ(status(""), 400);
  EXPECT_EQ(status("", "1.0"), 0);
  EXPECT_EQ(status("Host: a\r\nHost: a\r\n"), 400);
  EXPECT_EQ(status("Host: a\r\nhost: b\r\n", "1.0"), 400);
  EXPECT_EQ(status("Host:\r\n"), 400);
  EXPECT_EQ(status("Host: a b\r\n"), 400);
  EXPECT_EQ(status("Host: a/b\r\n"), 400);
  EXPECT_EQ(status("Host: a@b\r\n"), 400);
  EXPECT_EQ(status("Host: a, b\r\n"), 400);
  for (const char* bad :
       {"[::1", "::1]", "[]", "[::1]x", "a:b", "a:80:80", "a:123456", ":80", "a%41", "[::g/]"})
    EXPECT_EQ(status(fmt::format("Host: {}\r\n", bad)), 400) << bad;
  for (const char* good : {"[::1]:8080", "[::1]", "[::1]:", "a:8080", "a:", "xn--a_b.c.", "127.0.0.1:1"})
    EXPECT_EQ(status(fmt::format("Host: {}\r\n", good)), 0) << good;
  EXPECT_EQ(status("HOST: a.example:80\r\n"), 0);
}

TEST(RequestHead, OnlyHttp1IsSpoken) {
  const auto status = [](std::string_view line) {
    return parse_request(fmt::format("{}\r\nHost: a\r\n\r\n", line)).status;
  };
  EXPECT_EQ(status("GET / HTTP/1.1"), 0);
  EXPECT_EQ(status("GET / HTTP/1.0"), 0);
  for (const std::string_view line :
       {"GET / HTTP/1.2", "GET / HTTP/2.0", "GET / HTTP/0.9", "GET /", "GET / http/1.1", "GET / HTTP/11",
        "GET / HTTP/1.1 ", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "get / HTTP/1.1", "G T / HTTP/1.1",
        "GET HTTP/1.1", "", "GET / FTP/1.1", "SOURCE / ICE/1.0", "GET \x80 HTTP/1.1", "HTTP/1.1 200 OK"}) {
    const int refused = status(line);
    EXPECT_TRUE(refused == 400 || refused == 505) << line << " -> " << refused;
  }
  EXPECT_EQ(parse_request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status, 505);
  EXPECT_EQ(parse_request("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").status, 405);
}

TEST(RequestHead, UpgradeNeverOpensATunnel) {
  Parsed parsed = parse_request(
      "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: "
      "chunked\r\n\r\n");
  ASSERT_EQ(parsed.status, 0);
  EXPECT_EQ(parsed.head.framing, BodyFraming::chunked);
  std::vector<std::string_view> pieces;
  const ChunkResult result = decode_chunks(parsed.parser, "1\r\nx\r\n0\r\n\r\n", pieces);
  EXPECT_EQ(result.state, ChunkResult::State::end);
  EXPECT_EQ(pieces, std::vector<std::string_view>{"x"});
  EXPECT_TRUE(is_hop_by_hop("Upgrade"));
  EXPECT_TRUE(is_hop_by_hop("HTTP2-Settings"));
  EXPECT_TRUE(is_hop_by_hop("Transfer_Encoding"));
  EXPECT_TRUE(is_hop_by_hop("CONTENT-length"));
  EXPECT_FALSE(is_hop_by_hop("Content-Lengths"));
  EXPECT_FALSE(is_hop_by_hop("Authorization"));
}

TEST(RequestHead, ExpectationsAreMetOrRefused) {
  const auto expects = [](std::string_view value, std::string_view version, std::string_view framing) {
    const Parsed parsed = parse_request(
        fmt::format("POST / HTTP/{}\r\nHost: a\r\nExpect: {}\r\n{}\r\n", version, value, framing));
    return parsed.status != 0 ? parsed.status : static_cast<int>(parsed.head.expect_continue);
  };
  EXPECT_EQ(expects("100-continue", "1.1", "Content-Length: 1\r\n"), 1);
  EXPECT_EQ(expects("100-Continue", "1.1", "Transfer-Encoding: chunked\r\n"), 1);
  EXPECT_EQ(expects("100-continue", "1.0", "Content-Length: 1\r\n"), 0);
  EXPECT_EQ(expects("100-continue", "1.1", ""), 0);
  EXPECT_EQ(expects("200-ok", "1.1", "Content-Length: 1\r\n"), 417);
  EXPECT_EQ(expects("100-continue\r\nExpect: 100-continue", "1.1", "Content-Length: 1\r\n"), 400);
}

TEST(RequestHead, TargetIsAPath) {
  const auto path_of = [](std::string_view target) {
    const Parsed parsed = parse_request(fmt::format("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", target));
    return parsed.status != 0 ? std::to_string(parsed.status) : std::string(parsed.head.target);
  };
  EXPECT_EQ(path_of("/v1/models?x=1"), "/v1/models?x=1");
  EXPECT_EQ(path_of("http://b:1/v1/models?x=1"), "/v1/models?x=1");
  EXPECT_EQ(path_of("http://b"), "/");
  EXPECT_EQ(path_of("http://b?x=/admin"), "400");
  EXPECT_EQ(path_of("*"), "*");
  EXPECT_EQ(path_of("v1/models"), "400");
  EXPECT_EQ(path_of("a:80"), "400");
}

TEST(RequestHead, ConnectionOptionsDecideOnReuse) {
  const auto keeps = [](std::string_view version, std::string_view fields) {
    const Parsed parsed = parse_request(fmt::format("GET / HTTP/{}\r\nHost: a\r\n{}\r\n", version, fields));
    EXPECT_EQ(parsed.status, 0) << fields;
    return parsed.head.keep_alive;
  };
  EXPECT_TRUE(keeps("1.1", ""));
  EXPECT_FALSE(keeps("1.1", "Connection: close\r\n"));
  EXPECT_FALSE(keeps("1.1", "Connection: TE , Close\r\n"));
  EXPECT_FALSE(keeps("1.1", "Connection: keep-alive\r\nConnection: close\r\n"));
  EXPECT_TRUE(keeps("1.1", "Connection: authorization\r\n"));
  EXPECT_FALSE(keeps("1.0", ""));
  EXPECT_TRUE(keeps("1.0", "Connection: keep-alive\r\n"));
}

TEST(HeadLimits, AreHeldToTheByteAndField) {
  const auto with_target = [](std::size_t bytes) {
    return parse_request("GET /" + std::string(bytes - 1, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n").status;
  };
  EXPECT_EQ(with_target(kLimits.target_bytes), 0);
  EXPECT_EQ(with_target(kLimits.target_bytes + 1), 414);
  EXPECT_EQ(with_target(kLimits.target_bytes + 1000), 414);
  EXPECT_EQ(with_target(kLimits.head_bytes * 2), 414);
  const auto with_fields = [](std::size_t count) {
    std::string fields;
    for (std::size_t i = 1; i < count; ++i) fields += "X: 1\r\n";
    return status_of_post(fields);
  };
  EXPECT_EQ(with_fields(kLimits.header_count), 0);
  EXPECT_EQ(with_fields(kLimits.header_count + 1), 431);
  const auto with_bytes = [](std::size_t bytes) {
    constexpr std::string_view kRest = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
    return parse_request("GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(bytes - kRest.size(), 'x') +
                         "\r\n\r\n")
        .status;
  };
  EXPECT_EQ(with_bytes(kLimits.head_bytes), 0);
  EXPECT_EQ(with_bytes(kLimits.head_bytes + 1), 431);
  EXPECT_EQ(with_bytes(kLimits.head_bytes * 3), 431);
}

TEST(HeadLimits, EndARequestThatNeverEnds) {
  // Refused before the line or the head is complete: an attacker need not be helpful.
  const auto refused = [](std::string bytes) {
    const HeadScan scan = scan_head(bytes, 0, kLimits);
    return scan.state == HeadScan::State::invalid ? scan.error.status : 0;
  };
  EXPECT_EQ(refused("GET /" + std::string(kLimits.target_bytes + 100, 'a')), 414);
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nX: " + std::string(kLimits.head_bytes, 'a')), 431);
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nX: " + std::string(100, 'a')), 0);
}

TEST(AnswerHead, FramingFollowsStatusAndMethod) {
  const auto framing = [](std::string bytes, bool head_request = false) {
    const Parsed parsed = parse_answer(std::move(bytes), head_request);
    EXPECT_EQ(parsed.status, 0) << parsed.bytes;
    return parsed.head.framing;
  };
  EXPECT_EQ(framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"), BodyFraming::length);
  EXPECT_EQ(framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), BodyFraming::chunked);
  EXPECT_EQ(framing("HTTP/1.1 200 OK\r\n\r\n"), BodyFraming::until_close);
  EXPECT_EQ(framing("HTTP/1.0 200\r\n\r\n"), BodyFraming::until_close);
  EXPECT_EQ(framing("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n"), BodyFraming::none);
  EXPECT_EQ(framing("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"), BodyFraming::none);
  EXPECT_EQ(framing("HTTP/1.1 100 Continue\r\n\r\n"), BodyFraming::none);
  EXPECT_EQ(framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true), BodyFraming::none);
  const Parsed parsed = parse_answer("HTTP/1.1 404 Not Found here\r\nX: y\r\n\r\n");
  EXPECT_EQ(parsed.head.status, 404);
  EXPECT_EQ(parsed.head.reason, "Not Found here");
  EXPECT_EQ(parsed.head.find("x"), "y");
  EXPECT_EQ(parsed.head.find("z"), std::nullopt);
  EXPECT_FALSE(parsed.head.keep_alive);
}

TEST(AnswerHead, NonsenseIsABadGateway) {
  using namespace std::string_literals;
  for (const std::string& bytes :
       {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"s,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n"s,
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"s,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"s,
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"s, "HTTP/1.1 099 X\r\n\r\n"s,
        "HTTP/1.1 600 X\r\n\r\n"s, "HTTP/1.1 20 X\r\n\r\n"s, "HTTP/2.0 200 OK\r\n\r\n"s,
        "SSH-2.0-OpenSSH_9.2\r\n\r\n"s, "GET / HTTP/1.1\r\n\r\n"s, "HTTP/1.1 200 OK\r\n: x\r\n\r\n"s}) {
    EXPECT_EQ(parse_answer(bytes).status, 502) << bytes;
  }
  EXPECT_EQ(scan_head("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n"s, 0, kLimits).state, HeadScan::State::invalid);
  EXPECT_EQ(scan_head("HTTP/1.1 200 OK\r\nX: " + std::string(40 << 10, 'x'), 0, kLimits).error.status, 431);
}

TEST(HttpHead, RebaseMovesEveryView) {
  Parsed parsed = parse_request("GET /p HTTP/1.1\r\nHost: a\r\nEmpty:\r\n\r\n");
  const std::string copy = parsed.bytes;
  parsed.head.rebase(parsed.bytes, copy);
  parsed.bytes.assign(parsed.bytes.size(), '!');
  EXPECT_EQ(parsed.head.method, "GET");
  EXPECT_EQ(parsed.head.target, "/p");
  EXPECT_EQ(parsed.head.find("host"), "a");
  EXPECT_EQ(parsed.head.find("empty"), "");
  Parsed absolute = parse_request("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n");
  const std::string copy_of_absolute = absolute.bytes;
  absolute.head.rebase(absolute.bytes, copy_of_absolute);
  EXPECT_EQ(absolute.head.target, "/");
}

// --- scanning in pieces

HeadScan scan_in_pieces(std::string_view bytes, const std::vector<std::size_t>& sizes) {
  HeadScan scan;
  std::size_t have = 0;
  for (std::size_t turn = 0;; ++turn) {
    have = std::min(bytes.size(), have + sizes[turn % sizes.size()]);
    scan = scan_head(bytes.substr(0, have), scan.size, kLimits);
    if (scan.state != HeadScan::State::incomplete || have == bytes.size()) return scan;
  }
}

TEST(ScanHead, FindsTheEndWithoutTouchingTheBody) {
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\n\r\n";
  const HeadScan scan = scan_head(head + "body\n\r\n\r\n", 0, kLimits);
  EXPECT_EQ(scan.state, HeadScan::State::complete);
  EXPECT_EQ(scan.size, head.size());
  for (std::size_t size = 0; size < head.size(); ++size) {
    EXPECT_EQ(scan_head(head.substr(0, size), 0, kLimits).state, HeadScan::State::incomplete) << size;
  }
}

/// Whatever llhttp may come to think of them.
TEST(ScanHead, RefusesUncleanLinesByItself) {
  using namespace std::string_literals;
  for (const std::string& bytes :
       {"GET / HTTP/1.1\nHost: a\r\n\r\n"s, "GET / HTTP/1.1\r\nHost: a\n\r\n"s, "\nGET / HTTP/1.1\r\n\r\n"s,
        "GET / HTTP/1.1\r\nX: a\rb\r\n\r\n"s, "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n"s,
        "GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n"s, "GET / HTTP/1.1\r\nX: a\r\n\tb\r\n\r\n"s})
    EXPECT_EQ(scan_head(bytes, 0, kLimits).state, HeadScan::State::invalid) << bytes;
}

TEST(ScanHead, AnySplitGivesTheSameResult) {
  EXPECT_TRUE(rc::check("scanning in pieces is scanning the whole", [] {
    const auto tokens =
        *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(std::vector<std::string>{
            "\r\n", "\r\n", "\r\n", "\n", "\r", " ", "\t", ":", "GET / HTTP/1.1", "Host: a", "X: y",
            std::string(1, '\0'), std::string(500, 'a'), std::string(9000, 'b'), std::string(40000, 'c')}));
    std::string bytes = *rc::gen::element<std::string>("", "GET / HTTP/1.1\r\nHost: a\r\n");
    for (const std::string& token : tokens) bytes += token;
    const auto sizes = *rc::gen::nonEmpty(
        rc::gen::container<std::vector<std::size_t>>(rc::gen::inRange<std::size_t>(1, 5000)));
    const HeadScan whole = scan_head(bytes, 0, kLimits);
    const HeadScan pieces = scan_in_pieces(bytes, sizes);
    RC_ASSERT(whole.state == pieces.state);
    RC_ASSERT(whole.size == pieces.size);
    RC_ASSERT(whole.error.status == pieces.error.status);
  }));
}

// --- chunked bodies

struct Decoded {
  ChunkResult::State state = ChunkResult::State::more;
  std::size_t consumed = 0;
  std::string payload;
};

/// Reads of `size` bytes, each in memory of its own.
Decoded decode(std::string_view bytes, std::size_t first, std::size_t size) {
  Parsed parsed = parse_request("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
  Decoded decoded;
  std::vector<std::string_view> pieces;
  while (decoded.state == ChunkResult::State::more && decoded.consumed < bytes.size()) {
    const std::string read(bytes.substr(decoded.consumed, decoded.consumed == 0 ? first : size));
    pieces.clear();
    const ChunkResult result = decode_chunks(parsed.parser, read, pieces);
    decoded.state = result.state;
    decoded.consumed += result.consumed;
    for (const std::string_view piece : pieces) decoded.payload += piece;
  }
  return decoded;
}

TEST(Chunks, DecodeAlikeHoweverTheyAreCut) {
  const std::string body =
      "5\r\nhello\r\n1;name=\"value\"\r\n,\r\n0A\r\n 0123\r\n\r\nx\r\n000\r\nX-Sum: 1\r\nLast: 2\r\n\r\n";
  const std::string bytes = body + "GET / HTTP/1.1\r\n";
  for (std::size_t first = 1; first < bytes.size(); ++first) {
    for (const std::size_t size : {std::size_t{1}, std::size_t{3}, bytes.size()}) {
      const Decoded decoded = decode(bytes, first, size);
      ASSERT_EQ(decoded.state, ChunkResult::State::end) << first << ' ' << size;
      EXPECT_EQ(decoded.payload, "hello, 0123\r\n\r\nx") << first << ' ' << size;
      EXPECT_EQ(decoded.consumed, body.size()) << first << ' ' << size;
    }
  }
}

TEST(Chunks, AreNotAtTheirEndBeforeTheLastByte) {
  const std::string body = "5\r\nhello\r\n0\r\nX: 1\r\n\r\n";
  for (std::size_t size = 0; size < body.size(); ++size) {
    EXPECT_EQ(decode(body.substr(0, size), body.size(), 1).state, ChunkResult::State::more) << size;
  }
}

TEST(Chunks, MalformedOnesNeverEndCleanly) {
  using namespace std::string_literals;
  for (const std::string& bytes : {"g\r\nx\r\n0\r\n\r\n"s,
                                   "\r\nx\r\n0\r\n\r\n"s,
                                   "-1\r\nx\r\n0\r\n\r\n"s,
                                   "+1\r\nx\r\n0\r\n\r\n"s,
                                   "0x1\r\nx\r\n0\r\n\r\n"s,
                                   " 1\r\nx\r\n0\r\n\r\n"s,
                                   "1_0\r\nx\r\n0\r\n\r\n"s,
                                   "10000000000000000\r\nx\r\n0\r\n\r\n"s,
                                   "fffffffffffffffff\r\nx\r\n0\r\n\r\n"s,
                                   "1\nx\r\n0\r\n\r\n"s,
                                   "1\rx\r\n0\r\n\r\n"s,
                                   "1\r\nx\n0\r\n\r\n"s,
                                   "1\r\nxy\r\n0\r\n\r\n"s,
                                   "1\r\nx0\r\n\r\n"s,
                                   "1\r\nx\r\n0\n\r\n"s,
                                   "1\r\nx\r\n0\r\n\n"s,
                                   "1\r\nx\r\n0\r\n\rx"s,
                                   "1\r\nx\r\n0\r\nX: 1\n\r\n"s,
                                   "1\r\nx\r\n0\r\nX: 1\r\n\n"s,

                                   "1;\0\r\nx\r\n0\r\n\r\n"s}) {
    for (const std::size_t size : {std::size_t{1}, bytes.size()}) {
      const Decoded decoded = decode(bytes, size, size);
      EXPECT_NE(decoded.state, ChunkResult::State::end) << bytes << ' ' << size;
    }
  }
}

TEST(ReasonPhrase, IsKnownForWhatWeSend) {
  EXPECT_EQ(reason_phrase(200), "OK");
  EXPECT_EQ(reason_phrase(431), "Request Header Fields Too Large");
  EXPECT_EQ(reason_phrase(599), "Unknown");
}

}  // namespace
}  // namespace heng
