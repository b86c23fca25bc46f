// The client side of HTTP/1.1: one state machine for each connection to a server.
#include "live/http_client.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <array>
#include <cstring>

namespace heng {

namespace {

constexpr int kInterimMax = 8;      // 1xx answers before the real one
constexpr Duration kStaleMax = 1s;  // a reused connection that ends later than this ended over the request
constexpr Duration kSweepEvery = 100ms;
constexpr Duration kQuiet = 1s;  // no byte in the middle of an answer: is the connection still there?

}  // namespace

// --- one connection ---

ClientConnection::ClientConnection(HttpOrigin& origin) : origin_(origin) {}

ClientConnection::~ClientConnection() = default;

void ClientConnection::begin(const RequestBytes& request, const ExchangeTimeouts& timeouts,
                             ResponseObserver& observer) {
  request_ = request;
  timeouts_ = timeouts;
  observer_ = &observer;
  sent_ = 0;
  interim_responses_ = 0;
  addresses_tried_ = 0;
  paused_ = false;
  begun_ = origin_.loop_.now();
  if (!reused_) {
    deadline_ = deadline_after(begun_, timeouts.connect);
    connect();
  } else {
    phase_ = Phase::waiting;
    deadline_ = deadline_after(begun_, timeouts.first_byte);
    write_request();
  }
}

/// Connected, over TLS if need be: the request can go.
void ClientConnection::ask() {
  phase_ = Phase::waiting;
  deadline_ = deadline_after(origin_.loop_.now(), timeouts_.first_byte);
  write_request();
}

void ClientConnection::secure() {
  phase_ = Phase::securing;
  const IoResult result = transport_.handshake();
  if (result.state == IoResult::State::blocked) return;
  if (result.state == IoResult::State::ok) return ask();
  fail_exchange(Outcome::protocol, transport_.last_error());
}

void ClientConnection::connect() {
  phase_ = Phase::resolving;
  // The connection is deleted only through forget(), and a resolver answers once: an index in a table would
  // not do.
  origin_.resolver_.resolve(origin_.options_.endpoint,
                            [this, alive = std::weak_ptr<bool>(alive_)](const auto& address) {
                              if (alive.expired() || phase_ != Phase::resolving) return;
                              if (!address) return fail_exchange(Outcome::refused, address.error().message);
                              connect_to(*address);
                            });
}

void ClientConnection::connect_to(const SocketAddress& address) {
  const HttpOrigin::Options& options = origin_.options_;
  const Result<void> admitted = options.admit ? options.admit(address) : Result<void>();
  if (!admitted) return fail_exchange(Outcome::refused, admitted.error().message);
  address_ = address;
  const Result<int> fd = tcp_connect(address);
  if (!fd) {
    if (fd.error().code != ErrorCode::unavailable) return fail_to_connect(fd.error().message);
    return fail_exchange(Outcome::canceled, fd.error().message);  // our own want
  }
  transport_ = Transport(*fd);
  if (options.tls) {
    if (!origin_.tls_) return fail_exchange(Outcome::refused, "its TLS files could not be loaded");
    const auto started = transport_.start_tls(*origin_.tls_, options.endpoint.host, options.tls_verify);
    if (!started) return fail_exchange(Outcome::protocol, started.error().message);
  }
  phase_ = Phase::connecting;
  watch_.start(
      origin_.loop_, *fd,
      [](void* self, FdWatch::Ready ready) { static_cast<ClientConnection*>(self)->on_ready(ready); }, this);
  // On loopback the handshake is over already: do not let the request wait for a turn of a busy loop.
  if (tcp_connected(*fd)) connected();
}

void ClientConnection::connected() {
  origin_.resolver_.prefer(origin_.options_.endpoint, address_);
  address_ = {};
  transport_.tls() ? secure() : ask();
}

/// A name like `localhost` may have an address at which nobody listens beside the one that is meant.
void ClientConnection::fail_to_connect(std::string message) {
  if (++addresses_tried_ >= origin_.resolver_.avoid(origin_.options_.endpoint, address_))
    return fail_exchange(Outcome::refused, std::move(message));
  watch_.stop();
  transport_.close();
  connect();
}

void ClientConnection::on_ready(FdWatch::Ready ready) {
  if (phase_ == Phase::connecting && ready.write) {
    if (const int error = socket_error(transport_.fd()); error != 0) {
      return fail_to_connect(fmt::format("connect: {}", std::strerror(error)));
    }
    return connected();
  }
  if (phase_ == Phase::securing) return secure();
  // TLS may want to read before it can write and the other way round.
  const bool unsent = observer_ != nullptr && !request_sent();
  if (unsent && (ready.write || transport_.tls()) && phase_ != Phase::connecting) write_request();
  if (ready.read && phase_ != Phase::closed && phase_ != Phase::connecting) read_available(ready.closed);
}

void ClientConnection::write_request() {
  while (true) {
    std::array<iovec, 2> iov;
    std::size_t count = 0;
    std::size_t skip = sent_;
    for (const std::string_view part : {request_.head, request_.body}) {
      if (skip < part.size()) iov[count++] = {const_cast<char*>(part.data() + skip), part.size() - skip};
      skip -= std::min(skip, part.size());
    }
    if (count == 0) return;
    const IoResult result = transport_.write({iov.data(), count});
    if (result.state == IoResult::State::blocked) return;
    if (result.state != IoResult::State::ok) {
      // The server may have answered before it closed: the reading side decides, even if its edge is used up.
      sent_ = request_.head.size() + request_.body.size();
      keep_alive_ = false;
      return origin_.loop_.defer([this, alive = std::weak_ptr<bool>(alive_)] {
        if (alive.expired() || (phase_ != Phase::waiting && phase_ != Phase::answering)) return;
        read_available(true);
      });
    }
    sent_ += result.bytes;
  }
}

void ClientConnection::read_available(bool until_end) {
  while (phase_ != Phase::closed) {
    if (paused_) return;
    const IoResult result = transport_.read(origin_.loop_.read_buffer(), Loop::kReadBytes);
    switch (result.state) {
      case IoResult::State::blocked:
        return;
      case IoResult::State::end:
        return on_end();
      case IoResult::State::failed:
        return fail_exchange(
            transport_.tls() && phase_ == Phase::waiting && !reused_ ? Outcome::protocol : Outcome::reset,
            transport_.last_error());
      case IoResult::State::ok:
        break;
    }
    take({origin_.loop_.read_buffer(), result.bytes});
    // A short read has emptied the socket, and the next bytes will raise a new edge.
    if (result.bytes < Loop::kReadBytes && !until_end && !transport_.tls()) return;
  }
}

/// Nothing has come since the last answer. Only now can that be told: what comes once the next request is on
/// its way looks like the answer to it.
bool ClientConnection::is_silent() {
  char byte = 0;
  const IoResult result = transport_.read(&byte, 1);
  if (result.state == IoResult::State::ok) origin_.distrust();
  return result.state == IoResult::State::blocked;
}

void ClientConnection::take(std::string_view bytes) {
  if (observer_ == nullptr) {  // an idle server has nothing to say
    origin_.distrust();
    return close();
  }
  last_read_ = origin_.loop_.now();
  if (phase_ == Phase::waiting) {
    if (in_.empty()) return take_head(bytes);
    in_.append(bytes);
    Buffer all;
    all.swap(in_);
    return take_head(all.view());
  }
  take_body(bytes);
}

void ClientConnection::take_head(std::string_view bytes) {
  while (phase_ == Phase::waiting) {
    const HeadScan scan = scan_head(bytes, scanned_, origin_.options_.head_limits);
    if (scan.state == HeadScan::State::invalid) return fail_exchange(Outcome::protocol, scan.error.message);
    if (scan.state == HeadScan::State::incomplete) {
      scanned_ = scan.size;
      return in_.append(bytes);
    }
    scanned_ = 0;
    HttpHead& head = origin_.head_;
    const auto error = parse_response_head(bytes.substr(0, scan.size), origin_.options_.head_limits,
                                           request_.head_request, head, parser_);
    if (error) return fail_exchange(Outcome::protocol, error->message);
    const std::string_view head_bytes = bytes.substr(0, scan.size);
    bytes.remove_prefix(scan.size);
    if (head.status < 200) {
      if (head.status == 101 || ++interim_responses_ > kInterimMax) {
        return fail_exchange(Outcome::protocol, "unexpected interim answer");
      }
      if (bytes.empty()) return;
      continue;
    }
    phase_ = Phase::answering;
    head_told_ = false;
    keep_alive_ = keep_alive_ && head.keep_alive;
    framing_ = head.framing;
    remaining_ = head.content_length;
    wire_bytes_ = payload_bytes_ = 0;
    take_body(bytes);
    if (phase_ == Phase::answering && !head_told_) in_.append(head_bytes);
    // No other round: the observer may have begun the next exchange, and these bytes are not its answer.
    return;
  }
}

/// Engines that stream send the head before they compute anything. Until there is something to read nothing
/// has been answered: another worker may still do so.
void ClientConnection::tell_head() {
  head_told_ = true;
  watch_.set_bulk(true);
  HttpHead& head = origin_.head_;
  Buffer kept;
  if (!in_.empty()) {
    kept.swap(in_);
    llhttp_t parser;  // ours is in the body
    const auto error =
        parse_response_head(kept.view(), origin_.options_.head_limits, request_.head_request, head, parser);
    if (error) return fail_exchange(Outcome::protocol, error->message);
  }
  observer_->on_response_head(head);
}

void ClientConnection::take_body(std::string_view bytes) {
  std::vector<std::string_view>& pieces = origin_.pieces_;
  pieces.clear();
  bool complete_now = false;
  std::size_t used = bytes.size();
  switch (framing_) {
    case BodyFraming::none:
      used = 0;
      complete_now = true;
      break;
    case BodyFraming::length:
      used = std::min<std::uint64_t>(bytes.size(), remaining_);
      remaining_ -= used;
      complete_now = remaining_ == 0;
      if (used != 0) pieces.push_back(bytes.substr(0, used));
      break;
    case BodyFraming::chunked: {
      const ChunkResult result = decode_chunks(parser_, bytes, pieces);
      if (result.state == ChunkResult::State::invalid) {
        return fail_exchange(Outcome::protocol, "malformed chunked answer");
      }
      used = result.consumed;
      complete_now = result.state == ChunkResult::State::end;
      wire_bytes_ += used;
      for (const std::string_view piece : pieces) payload_bytes_ += piece.size();
      if (wire_bytes_ > kChunkOverheadMax + kChunkOverheadRatio * payload_bytes_)
        return fail_exchange(Outcome::protocol, "chunked answer with too little payload");
      break;
    }
    case BodyFraming::until_close:
      if (!bytes.empty()) pieces.push_back(bytes);
      break;
  }
  if (!head_told_) {
    if (pieces.empty() && !complete_now) return;
    tell_head();
    if (phase_ != Phase::answering) return;
  }
  deadline_ = deadline_after(origin_.loop_.now(), timeouts_.idle);
  if (complete_now) {
    if (used != bytes.size()) origin_.distrust();
    complete(used == bytes.size());
  } else {
    observer_->on_response_body(pieces, false);
  }
}

/// Bytes beyond the answer mean that the two sides disagree about its end: never reuse such a connection.
void ClientConnection::complete(bool reusable) {
  ResponseObserver* observer = std::exchange(observer_, nullptr);
  const Duration idle = origin_.options_.idle_timeout;
  if (reusable && request_sent() && keep_alive_ && idle > Duration(0) && origin_.is_trusted()) {
    phase_ = Phase::idle;
    watch_.set_bulk(false);
    paused_ = false;
    reused_ = true;
    deadline_ = origin_.loop_.now() + idle;
    origin_.idle_.push_back(this);
  } else {
    close();
  }
  observer->on_response_body(origin_.pieces_, true);
}

void ClientConnection::on_end() {
  if (observer_ == nullptr) return close();
  if (phase_ == Phase::answering && framing_ == BodyFraming::until_close) {
    if (!head_told_) tell_head();
    if (phase_ != Phase::answering) return;
    origin_.pieces_.clear();
    return complete(false);
  }
  fail_exchange(Outcome::reset,
                phase_ == Phase::waiting ? "closed without an answer" : "closed in the middle of the answer");
}

void ClientConnection::fail_exchange(Outcome cause, std::string message) {
  if (observer_ == nullptr) return close();
  const bool nothing_came = phase_ == Phase::waiting && in_.empty() && interim_responses_ == 0;
  const bool was_stale = reused_ && nothing_came && origin_.loop_.now() < begun_ + kStaleMax;
  if (was_stale && request_.repeatable && cause == Outcome::reset) {
    // The server closed the idle connection while the request was on its way.
    watch_.stop();
    transport_.close();
    reused_ = false;
    keep_alive_ = true;
    sent_ = 0;
    deadline_ = deadline_after(origin_.loop_.now(), timeouts_.connect);
    return connect();
  }
  const bool request_sent = sent_ > 0;
  // Said at the end of the turn: `send` promises not to call back, and whoever hears it may send again at
  // once.
  const bool beginning = phase_ == Phase::resolving || phase_ == Phase::securing;
  const bool inside_send = beginning && begun_ == origin_.loop_.now();
  ResponseObserver* observer = std::exchange(observer_, nullptr);
  ExchangeFailure failure{cause, request_sent, std::move(message)};
  if (inside_send) {
    failing_ = observer;
    origin_.loop_.defer([this, alive = std::weak_ptr<bool>(alive_), failure = std::move(failure)] {
      if (alive.expired()) return;
      ResponseObserver* told = std::exchange(failing_, nullptr);
      if (told != nullptr) told->on_response_failed(failure);
    });
    return close();
  }
  close();
  observer->on_response_failed(failure);
}

void ClientConnection::cancel() {
  observer_ = nullptr;
  failing_ = nullptr;
  close();
}

void ClientConnection::resume() {
  if (!paused_) return;
  paused_ = false;
  // The silence was ours.
  if (phase_ == Phase::answering) deadline_ = deadline_after(origin_.loop_.now(), timeouts_.idle);
  origin_.loop_.defer([this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired() && phase_ != Phase::closed) read_available(true);
  });
}

void ClientConnection::close() {
  if (phase_ == Phase::closed) return;
  if (phase_ == Phase::idle) std::erase(origin_.idle_, this);
  phase_ = Phase::closed;
  watch_.stop();
  transport_.close();
  origin_.loop_.defer([this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) origin_.forget(*this);
  });
}

void ClientConnection::expire(Instant now) {
  if (phase_ == Phase::closed) return;
  if (timeouts_.total != Duration(0) && observer_ != nullptr && now >= begun_ + timeouts_.total) {
    return fail_exchange(Outcome::timeout, "total time limit passed");
  }
  if (paused_ || watch_.queued()) return;
  // A reset that comes together with bytes shares their event (libevent shows an error as plain readiness),
  // and the short read that takes the bytes does not meet it.
  const bool answer_begun = phase_ == Phase::answering || (phase_ == Phase::waiting && !in_.empty());
  if (answer_begun && now >= last_read_ + kQuiet) {
    if (const int error = socket_error(transport_.fd()); error != 0)
      return fail_exchange(Outcome::reset, std::strerror(error));
  }
  if (now < deadline_) return;
  switch (phase_) {
    case Phase::resolving:
      return fail_exchange(Outcome::timeout, "name look-up timed out");
    case Phase::connecting:
      origin_.resolver_.avoid(origin_.options_.endpoint, address_);  // for the next attempt
      return fail_exchange(Outcome::timeout, "connect timed out");
    case Phase::securing:
      return fail_exchange(Outcome::timeout, "the TLS handshake timed out");
    case Phase::waiting:
      return fail_exchange(Outcome::timeout, "no answer within the first-byte limit");
    case Phase::answering:
      return fail_exchange(Outcome::timeout, head_told_ ? "silent for longer than the idle limit"
                                                        : "no more than a head within the first-byte limit");
    default:
      return close();
  }
}

// --- the origin ---

HttpOrigin::HttpOrigin(Loop& loop, Resolver& resolver, Options options)
    : loop_(loop),
      resolver_(resolver),
      options_(std::move(options)),
      sweep_timer_(loop, [this] { sweep(); }) {}

HttpOrigin::~HttpOrigin() = default;

ClientConnection& HttpOrigin::new_connection() {
  auto* connection = new ClientConnection(*this);
  if (connections_.empty()) sweep_timer_.every(kSweepEvery);
  connection->index_ = connections_.size();
  connections_.emplace_back(connection);
  return *connection;
}

ClientConnection& HttpOrigin::send(const RequestBytes& request, const ExchangeTimeouts& timeouts,
                                   ResponseObserver& observer) {
  ClientConnection* connection = take_idle();
  if (connection == nullptr) connection = &new_connection();
  connection->begin(request, timeouts, observer);
  return *connection;
}

ClientConnection* HttpOrigin::take_idle() {
  while (!idle_.empty()) {
    ClientConnection* last = idle_.back();
    if (last->is_silent()) {
      idle_.pop_back();
      return last;
    }
    last->close();
  }
  return nullptr;
}

/// It has sent what nobody had asked for. Once such bytes come a little later they are the next client's
/// answer, so for a while every request gets a connection of its own.
void HttpOrigin::distrust() {
  ++unasked_;
  if (is_trusted())
    spdlog::warn("worker {}:{} sends more than its answers: each request gets a connection of its own",
                 options_.endpoint.host, options_.endpoint.port);
  trusted_from_ = loop_.now() + options_.distrust;
  drop_idle();
}

void HttpOrigin::drop_idle() {
  while (!idle_.empty()) idle_.back()->close();
}

void HttpOrigin::sweep() {
  const Instant now = loop_.now();
  for (std::size_t i = connections_.size(); i-- > 0;) connections_[i]->expire(now);
  if (connections_.empty()) sweep_timer_.stop();
}

void HttpOrigin::forget(ClientConnection& connection) {
  const std::size_t index = connection.index_;
  std::swap(connections_[index], connections_.back());
  connections_[index]->index_ = index;
  connections_.pop_back();
}

}  // namespace heng
