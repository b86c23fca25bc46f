// The server side of HTTP/1.1: one state machine for each client connection.
#include "live/server_connection.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "flow/api_error.h"
#include "live/http_server.h"

namespace heng {

namespace {

constexpr Duration kLingerMax = 2s;  // how long a refused client's bytes are read and thrown away
constexpr HeadError kNoMemory{503, "requests under way take too much memory; try again"};
constexpr std::size_t kReadsMax = 512 << 10;          // of one connection until the others have had a turn
constexpr std::size_t kBodyStep = 512 << 10;          // reserved for a body of which nothing has come
constexpr std::size_t kPipelinedBytesMax = 64 << 10;  // read ahead while an answer is under way
constexpr std::size_t kHeadReadBytes = 16
                                       << 10;  // a long body is read into memory of its own, not copied there
constexpr std::size_t kSmallBuffer = 4 << 10;  // larger ones are given back when empty
constexpr std::size_t kPiecesMax = 512;        // below IOV_MAX with our own framing around

}  // namespace

struct ServerConnection::Incoming {
  /// For a body with Content-Length: memory grows with what arrives, not with what was declared.
  std::size_t make_room() {
    const std::size_t whole = body.size() + remaining;
    if (body.size() == body.capacity())
      body.reserve(std::min(whole, std::max(kBodyStep, 2 * body.capacity())));
    return std::min<std::size_t>(remaining, body.capacity() - body.size());
  }

  Buffer head_bytes;
  HttpHead head;
  llhttp_t parser;
  Buffer body;
  std::uint64_t remaining = 0;   // of a body with Content-Length
  std::uint64_t wire_bytes = 0;  // of a chunked body, with sizes, extensions and trailers
  std::vector<std::string_view> pieces;
};

ServerConnection::ServerConnection(HttpServer& server, Transport transport, const SocketAddress& peer)
    : server_(server),
      transport_(std::move(transport)),
      peer_(peer.is_unix() ? "unix" : peer.host()),  // a client's own path may be any bytes
      source_(peer.source()) {
  const TimeoutConfig& timeouts = server_.options_.timeouts;
  if (transport_.tls()) phase_ = Phase::handshake;
  deadline_ = deadline_after(server_.loop_.now(),
                             transport_.tls() ? timeouts.client_handshake : timeouts.client_idle);
  charge_to(&server_.strangers_);
  server_.add_idle(*this);
  watch_.start(
      server_.loop_, transport_.fd(),
      [](void* self, FdWatch::Ready ready) { static_cast<ServerConnection*>(self)->on_ready(ready); }, this);
}

ServerConnection::~ServerConnection() = default;

const HttpHead& ServerConnection::head() const { return incoming_ ? incoming_->head : server_.head_; }

void ServerConnection::charge_to(MemoryAccount* payer) {
  payer_ = payer;
  in_.charge_to(payer);
  out_.charge_to(payer);
}

bool ServerConnection::has_memory() const { return server_.has_memory_for(payer_, 0); }

std::optional<Buffer> ServerConnection::take_body() {
  if (!incoming_ || incoming_->body.empty()) return std::nullopt;
  return std::move(incoming_->body);
}

// --- reading ---

/// False: not through yet, or never.
bool ServerConnection::shake_hands() {
  if (!server_.may_shake_hands(*this)) return false;
  const IoResult result = transport_.handshake();
  if (result.state == IoResult::State::blocked) return false;
  if (result.state != IoResult::State::ok) {
    fail_handshake(transport_.last_error());
    return false;
  }
  phase_ = Phase::head;
  deadline_ = deadline_after(server_.loop_.now(), server_.options_.timeouts.client_idle);
  return true;
}

void ServerConnection::fail_handshake(const std::string& reason) {
  ++server_.handshake_failures_[reason];
  if (!transport_.fall_back_to_plain()) return close();
  refuse({400, "this port speaks TLS: use https:// instead of http://"});
}

void ServerConnection::on_ready(FdWatch::Ready ready) {
  if (phase_ == Phase::closed || broken_) return;
  if (phase_ == Phase::handshake) {
    if (!shake_hands()) return;
    ready.read = true;  // its bytes may lie in the session
  }
  if (ready.write && write_blocked_) {
    write_blocked_ = false;
    send({});
  }
  // Over TLS, reading may have waited until it could write.
  if ((!ready.read && !transport_.tls()) || phase_ == Phase::closed || broken_) return;
  input_ended_ ? check_for_reset() : read_available(ready.closed);
  if (!left_unread_ || phase_ != Phase::answering || broken_) return;
  // The read-ahead is full: reading on would not tell that the client has gone.
  check_for_reset();
  if (ready.closed && phase_ == Phase::answering) probe_half_closed();
}

void ServerConnection::check_for_reset() {
  if (phase_ == Phase::answering && !broken_ && socket_error(transport_.fd()) != 0) lose_client();
}

void ServerConnection::read_available(bool until_end) {
  std::size_t taken = 0;
  while (!input_ended_ && !broken_ && phase_ != Phase::closed) {
    left_unread_ = phase_ == Phase::answering && (in_.size() >= kPipelinedBytesMax || !has_memory());
    if (left_unread_) return;  // resumed by end_answer
    const bool reading_body = phase_ == Phase::body && incoming_->remaining > 0;
    const std::size_t wanted = reading_body ? incoming_->make_room() : kHeadReadBytes;
    char* to = reading_body ? incoming_->body.room(wanted) : server_.loop_.read_buffer();
    const IoResult result = transport_.read(to, wanted);
    switch (result.state) {
      case IoResult::State::blocked:
        return;
      case IoResult::State::failed:
        return lose_client();
      case IoResult::State::end:
        return on_end_of_input();
      case IoResult::State::ok:
        break;
    }
    if (reading_body) {
      incoming_->body.grow(result.bytes);
      incoming_->remaining -= result.bytes;
      if (!has_memory()) return refuse(kNoMemory);
      deadline_ = progress_deadline(result.bytes, server_.options_.timeouts.client_body);
      if (incoming_->remaining == 0) dispatch(incoming_->body.view());
    } else {
      take_bytes({to, result.bytes});
    }
    // A short read has emptied the socket, and the next bytes will raise a new edge.
    if (result.bytes < wanted && !until_end && !transport_.tls()) return;
    taken += result.bytes;
    if (taken >= kReadsMax && phase_ != Phase::closed) return watch_.read_on_later();
  }
}

void ServerConnection::take_bytes(std::string_view bytes) {
  if (phase_ == Phase::lingering) return;
  if (phase_ == Phase::answering) {
    in_.append(bytes);
    server_.check_soon(*this);
  } else if (in_.empty()) {
    const std::size_t used = parse(bytes);
    if (phase_ != Phase::closed) in_.append(bytes.substr(used));
  } else {
    in_.append(bytes);
    parse_stored();
  }
  if (phase_ == Phase::head && !in_.empty() && !has_memory()) refuse(kNoMemory);
}

void ServerConnection::parse_stored() {
  const std::size_t used = parse(in_.view());
  in_.consume(std::min(used, in_.size()));  // a refusal may have released it
  if (in_.empty() && in_.capacity() > kSmallBuffer) in_.release();
}

/// Takes whole requests, one after the other as long as they are answered at once. Returns the bytes used.
std::size_t ServerConnection::parse(std::string_view bytes) {
  std::size_t used = 0;
  while (used < bytes.size() && (phase_ == Phase::head || phase_ == Phase::body)) {
    const std::string_view rest = bytes.substr(used);
    const std::size_t step = phase_ == Phase::head ? take_head(rest) : continue_body(rest);
    used += step;
    if (step == 0) break;
  }
  return phase_ == Phase::lingering || phase_ == Phase::closed ? bytes.size() : used;
}

std::size_t ServerConnection::take_head(std::string_view bytes) {
  if (!head_begun_) {
    if (bytes.starts_with("\r\n"))
      return 2;  // RFC 9112 2.2: an empty line before the request line is ignored
    if (bytes == "\r") return 0;
    head_begun_ = true;
    server_.remove_idle(*this);
    head_request_ = client_is_old_ = false;  // not yet known: a refusal must not follow the request before
    head_started_ = server_.loop_.now();
    deadline_ = deadline_after(head_started_, server_.options_.timeouts.client_header);
  }
  const HeadScan scan = scan_head(bytes, scanned_, server_.head_limits_);
  if (scan.state == HeadScan::State::incomplete) {
    scanned_ = scan.size;
    return 0;
  }
  scanned_ = 0;
  head_begun_ = false;
  if (scan.state == HeadScan::State::invalid) {
    refuse(scan.error);
    return bytes.size();
  }
  return begin_body(bytes.substr(0, scan.size), bytes.substr(scan.size));
}

/// Asks the handler. False: it has answered; a body that is still to come will be thrown away.
bool ServerConnection::admit(bool whole) {
  phase_ = Phase::answering;  // so that it can
  tenant.reset();
  const bool kept_alive = std::exchange(keep_alive_, keep_alive_ && whole);
  if (!server_.handler_.on_head(*this)) return false;
  keep_alive_ = kept_alive;
  return true;
}

/// Returns the bytes used of head and body together.
std::size_t ServerConnection::begin_body(std::string_view head_bytes, std::string_view rest) {
  HttpHead& head = server_.head_;
  llhttp_t parser;
  if (const auto error = parse_request_head(head_bytes, server_.head_limits_, head, parser)) {
    refuse(*error);
    return head_bytes.size() + rest.size();
  }
  keep_alive_ = head.keep_alive && !server_.draining_ && !server_.retired_;
  client_is_old_ = head.minor_version == 0;
  head_request_ = head.method == "HEAD";
  const bool whole = head.framing == BodyFraming::none ||
                     (head.framing == BodyFraming::length && head.content_length <= rest.size());
  const std::size_t used = head_bytes.size() + (whole ? head.content_length : rest.size());
  if (head.framing == BodyFraming::length && head.content_length > server_.options_.limits.body_bytes) {
    refuse({413, "request body too large"});
    return head_bytes.size() + rest.size();
  }
  if (!admit(whole)) return used;
  if (head.framing != BodyFraming::none && !server_.has_memory_for(payer_, head.content_length)) {
    refuse(kNoMemory);
    return head_bytes.size() + rest.size();
  }
  if (whole) {
    dispatch(rest.substr(0, head.content_length));
    return used;
  }
  phase_ = Phase::body;
  begin_moving();
  deadline_ = progress_deadline(0, server_.options_.timeouts.client_body);
  incoming_ = std::make_unique<Incoming>();
  incoming_->head_bytes.charge_to(payer_);
  incoming_->body.charge_to(payer_);
  incoming_->head_bytes.append(head_bytes);
  incoming_->head = std::move(head);
  incoming_->head.rebase(head_bytes, incoming_->head_bytes.view());
  incoming_->parser = parser;
  incoming_->remaining = incoming_->head.content_length;
  incoming_->make_room();
  if (incoming_->head.expect_continue && rest.empty()) {
    const iovec go_on = as_iovec("HTTP/1.1 100 Continue\r\n\r\n");
    send({&go_on, 1});
  }
  return head_bytes.size() + (rest.empty() ? 0 : continue_body(rest));
}

std::size_t ServerConnection::continue_body(std::string_view bytes) {
  Incoming& incoming = *incoming_;
  deadline_ = progress_deadline(bytes.size(), server_.options_.timeouts.client_body);
  if (incoming.head.framing == BodyFraming::length) {
    const std::size_t used = std::min<std::uint64_t>(bytes.size(), incoming.remaining);
    incoming.body.append(bytes.substr(0, used));
    incoming.remaining -= used;
    if (incoming.remaining == 0) dispatch(incoming.body.view());
    return used;
  }
  incoming.pieces.clear();
  const ChunkResult result = decode_chunks(incoming.parser, bytes, incoming.pieces);
  if (result.state == ChunkResult::State::invalid) {
    refuse({400, "malformed chunked body"});
    return bytes.size();
  }
  std::size_t total = incoming.body.size();
  for (const std::string_view piece : incoming.pieces) total += piece.size();
  // llhttp keeps there what of the current chunk is still to come.
  const std::uint64_t told = result.state == ChunkResult::State::more ? incoming.parser.content_length : 0;
  const std::uint64_t bytes_max = server_.options_.limits.body_bytes;
  if (total > bytes_max || told > bytes_max - total) {
    refuse({413, "request body too large"});
    return bytes.size();
  }
  for (const std::string_view piece : incoming.pieces) incoming.body.append(piece);
  if (!has_memory()) {
    refuse(kNoMemory);
    return bytes.size();
  }
  incoming.wire_bytes += result.consumed;
  if (incoming.wire_bytes > kChunkOverheadMax + kChunkOverheadRatio * incoming.body.size()) {
    refuse({400, "chunked body with too little payload"});
    return bytes.size();
  }
  if (result.state == ChunkResult::State::end) dispatch(incoming.body.view());
  return result.consumed;
}

void ServerConnection::dispatch(std::string_view body) {
  phase_ = Phase::answering;
  deadline_ = kNever;
  body_ = body;
  server_.handler_.on_request(*this);
  body_ = {};
  incoming_.reset();
  if (phase_ == Phase::answering) server_.check_soon(*this);
}

void ServerConnection::begin_moving() {
  moving_since_ = server_.loop_.now();
  moved_bytes_ = 0;
}

/// `bytes` have moved. The next must within `silence`, and all together must not be too slow: a byte now and
/// then would hold the connection for ever.
Instant ServerConnection::progress_deadline(std::size_t bytes, Duration silence) {
  moved_bytes_ += bytes;
  const Instant deadline = deadline_after(server_.loop_.now(), silence);
  const std::uint32_t rate = server_.options_.limits.client_bytes_per_s;
  if (rate == 0 || silence == Duration(0)) return deadline;
  return std::min(deadline, moving_since_ + silence + from_seconds(static_cast<double>(moved_bytes_) / rate));
}

/// For a connection that has just come.
void ServerConnection::turn_away(int status, std::string_view message) {
  server_.remove_idle(*this);
  turned_away_ = true;
  keep_alive_ = false;
  phase_ = Phase::answering;
  const HeaderField fields[] = {{"Content-Type", "application/json"}, {"Retry-After", "1"}};
  respond(status, fields, api_error_body(status, message));
}

void ServerConnection::refuse(const HeadError& error) {
  server_.remove_idle(*this);
  server_.handler_.on_bad_request(error.status);
  phase_ = Phase::answering;
  keep_alive_ = false;
  const std::array<HeaderField, 2> fields{{{"Content-Type", "application/json"}, {"Retry-After", "1"}}};
  respond(error.status, {fields.data(), error.status == 503 ? 2u : 1u},
          api_error_body(error.status, error.message));
  incoming_.reset();
}

void ServerConnection::on_end_of_input() {
  input_ended_ = true;
  switch (phase_) {
    case Phase::handshake:
    case Phase::head:
    case Phase::lingering:
      return close();
    case Phase::body:
      return refuse({400, "the request body ended early"});
    case Phase::answering:
      return probe_half_closed();
    case Phase::closed:
      return;
  }
}

/// A client that has closed and one that only sends no more look alike until something is sent to them: the
/// one answers with a reset, the other goes on reading. So send what HTTP allows and no client minds: an
/// interim response before the head (RFC 9110 15.2), a leading zero of the next chunk size after it (RFC
/// 9112 7.1).
void ServerConnection::probe_half_closed() {
  if (transport_.tls() || client_is_old_) return lose_client();
  if (!answer_started_) {
    const iovec interim = as_iovec("HTTP/1.1 100 Continue\r\n\r\n");
    send({&interim, 1});
  } else if (answer_framing_ == BodyFraming::chunked && !head_request_ && pending_bytes() == 0) {
    const iovec zero = as_iovec("0");
    send({&zero, 1});
  }
}

// --- answering ---

void ServerConnection::respond(int status, std::span<const HeaderField> fields, std::string_view body) {
  start(status, reason_phrase(status), fields, BodyFraming::length, body.size());
  write({&body, 1}, true);
}

void ServerConnection::start(int status, std::string_view reason, std::span<const HeaderField> fields,
                             BodyFraming framing, std::uint64_t content_length) {
  HENG_ASSERT(phase_ == Phase::answering && !answer_started_);
  answer_started_ = true;
  if (framing == BodyFraming::chunked && client_is_old_) framing = BodyFraming::until_close;
  if (framing == BodyFraming::until_close) keep_alive_ = false;
  answer_framing_ = framing;
  const auto line =
      fmt::format_to_n(out_.room(64 + reason.size()), 64 + static_cast<std::ptrdiff_t>(reason.size()),
                       "HTTP/1.1 {} {}\r\n", status, reason);
  out_.grow(line.size);
  for (const HeaderField& field : fields) {
    out_.append(field.name);
    out_.append(": ");
    out_.append(field.value);
    out_.append("\r\n");
  }
  if (framing == BodyFraming::length) {
    const auto length = fmt::format_to_n(out_.room(48), 48, "Content-Length: {}\r\n", content_length);
    out_.grow(length.size);
  } else if (framing == BodyFraming::chunked) {
    out_.append("Transfer-Encoding: chunked\r\n");
  }
  if (!keep_alive_) {
    out_.append("Connection: close\r\n");
  } else if (client_is_old_) {
    out_.append("Connection: keep-alive\r\n");
  }
  out_.append("\r\n");
}

void ServerConnection::write(std::span<const std::string_view> pieces, bool last) {
  HENG_ASSERT(phase_ == Phase::answering && answer_started_ && !answer_ended_);
  std::size_t total = 0;
  for (const std::string_view piece : pieces) total += piece.size();
  answer_ended_ = last;
  std::vector<iovec>& iov = server_.scratch_;
  iov.clear();
  const bool chunked = answer_framing_ == BodyFraming::chunked && !head_request_;
  std::array<char, 20> size_line;
  if (chunked && total > 0) {
    const auto written = fmt::format_to_n(size_line.data(), size_line.size(), "{:x}\r\n", total);
    iov.push_back({size_line.data(), written.size});
  }
  Buffer flattened;
  if (pieces.size() > kPiecesMax && !head_request_) {
    flattened.reserve(total);
    for (const std::string_view piece : pieces) flattened.append(piece);
    iov.push_back(as_iovec(flattened.view()));
  } else if (!head_request_) {
    for (const std::string_view piece : pieces) {
      if (!piece.empty()) iov.push_back(as_iovec(piece));
    }
  }
  if (chunked && (total > 0 || last)) {
    iov.push_back(as_iovec(total == 0 ? "0\r\n\r\n" : last ? "\r\n0\r\n\r\n" : "\r\n"));
  }
  send(iov);
}

/// Sends what waits, then `pieces`; what the socket does not take is kept. `pieces` may be server_.scratch_.
void ServerConnection::send(std::span<const iovec> pieces) {
  if (broken_ || phase_ == Phase::closed) return;
  if (write_blocked_) {
    for (const iovec& piece : pieces) out_.append({static_cast<const char*>(piece.iov_base), piece.iov_len});
    return;
  }
  std::array<iovec, kPiecesMax + 4> iov;
  std::size_t count = 0;
  std::size_t total = pending_bytes();
  if (total > 0) iov[count++] = as_iovec(out_.view().substr(out_sent_));
  for (const iovec& piece : pieces) {
    total += piece.iov_len;
    iov[count++] = piece;
  }
  const bool was_waiting = deadline_ != kNever && pending_bytes() > 0;
  const IoResult result = total == 0 ? IoResult{} : transport_.write({iov.data(), count});
  if (result.state == IoResult::State::failed || result.state == IoResult::State::end) {
    broken_ = true;
    return server_.loop_.defer([this] { lose_client(); });
  }
  std::size_t skip = result.bytes;
  const std::size_t of_waiting = std::min(skip, pending_bytes());
  out_sent_ += of_waiting;
  skip -= of_waiting;
  for (const iovec& piece : pieces) {
    const std::size_t of_piece = std::min(skip, piece.iov_len);
    skip -= of_piece;
    out_.append({static_cast<const char*>(piece.iov_base) + of_piece, piece.iov_len - of_piece});
  }
  if (pending_bytes() > 0) {
    write_blocked_ = true;
    if (out_sent_ >
        out_.size() / 2) {  // a client always a little behind must not make us keep all it has got
      out_.consume(out_sent_);
      out_sent_ = 0;
    }
    if (!was_waiting) begin_moving();
    if (result.bytes > 0 || !was_waiting)
      deadline_ = progress_deadline(result.bytes, server_.options_.timeouts.client_write);
    return;
  }
  out_.clear();
  out_sent_ = 0;
  if (out_.capacity() > kSmallBuffer) out_.release();
  if (phase_ != Phase::answering) return;
  deadline_ = kNever;
  if (answer_ended_) {
    end_answer();
  } else if (was_waiting && observer_ != nullptr) {
    observer_->on_drained();
  }
}

void ServerConnection::abort() {
  observer_ = nullptr;
  keep_alive_ = false;
  answer_ended_ = true;
  if (answer_framing_ == BodyFraming::until_close && answer_started_) {
    // Only a reset tells this client that the answer is not complete.
    const struct ::linger hard{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(transport_.fd(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    return close();
  }
  if (!write_blocked_) send({});
}

void ServerConnection::end_answer() {
  observer_ = nullptr;
  answer_started_ = false;
  answer_ended_ = false;
  charge_to(&server_.strangers_);
  if (!keep_alive_ || server_.draining_) return linger();
  phase_ = Phase::head;
  deadline_ = deadline_after(server_.loop_.now(), server_.options_.timeouts.client_idle);
  server_.add_idle(*this);
  if (!in_.empty() || input_ended_ || left_unread_) resume_later();
}

/// Half-closes, then reads and drops what the client still sends: closing at once would reset the connection
/// and could take the answer away from a client that is still sending (RFC 9112 9.6).
void ServerConnection::linger() {
  if (input_ended_) return close();
  transport_.shutdown_write();
  phase_ = Phase::lingering;
  deadline_ = server_.loop_.now() + kLingerMax;
  resume_later();
}

void ServerConnection::resume_later() {
  server_.loop_.defer([this] {
    if (phase_ == Phase::lingering) in_.release();  // not before: the request being answered may lie there
    if (phase_ == Phase::head && !in_.empty()) parse_stored();
    if (phase_ != Phase::head && phase_ != Phase::body && phase_ != Phase::lingering) return;
    input_ended_ ? on_end_of_input() : read_available(true);
  });
}

void ServerConnection::lose_client() {
  AnswerObserver* observer = std::exchange(observer_, nullptr);
  close();
  if (observer != nullptr) observer->on_client_gone();
}

void ServerConnection::close() {
  if (phase_ == Phase::closed) return;
  server_.remove_idle(*this);
  phase_ = Phase::closed;
  watch_.stop();
  transport_.close();
  server_.loop_.defer([this] { server_.forget(*this); });
}

void ServerConnection::expire(Instant now) {
  if (now < deadline_ || phase_ == Phase::closed) return;
  switch (phase_) {
    case Phase::handshake:
      return fail_handshake("timeout");
    case Phase::head:
      if (!head_begun_) return close();
      return refuse({408, "the request head did not arrive in time"});
    case Phase::body:
      return refuse({408, "the request body did not arrive in time"});
    default:
      return lose_client();
  }
}

}  // namespace heng
