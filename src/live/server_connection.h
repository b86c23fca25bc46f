// One client's connection: whole requests in, whole or streamed answers out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/buffer.h"
#include "live/http1.h"
#include "live/loop.h"
#include "live/transport.h"
#include "model/tenant.h"

namespace heng {

class HttpServer;

/// Told about a connection while an answer is under way. Reset when the answer is complete.
class AnswerObserver {
 public:
  virtual ~AnswerObserver() = default;
  /// The client is gone or its answer timed out; the connection must not be used any more.
  virtual void on_client_gone() = 0;
  /// Everything handed over has left for the kernel after pending_bytes() was above zero.
  virtual void on_drained() {}
};

/// One client connection and its current request. Owned by the server, used on its loop's thread. An answer
/// is either `respond`, or `start`, any number of `write`, and `finish` or `abort`.
class ServerConnection {
 public:
  ~ServerConnection();
  ServerConnection(const ServerConnection&) = delete;
  ServerConnection& operator=(const ServerConnection&) = delete;

  const HttpHead& head() const;
  /// With Buffer::kPadding readable bytes behind it.
  std::string_view body() const { return body_; }
  /// Hands the body's memory over, if it has memory of its own (a large one): saves the caller a copy.
  /// Whoever pays for it goes on doing so.
  std::optional<Buffer> take_body();
  const std::string& peer() const { return peer_; }       // IP address of the client, or "unix"
  std::uint64_t source() const { return source_; }        // see SocketAddress::source
  Instant head_started() const { return head_started_; }  // first byte of the request

  /// In on_head: who pays for the memory of the request and its answer, and must outlive both; null: nobody,
  /// so that it may be all there is. Else it is the strangers, who share an account.
  void charge_to(MemoryAccount* payer);
  MemoryAccount* payer() const { return payer_; }

  void observe(AnswerObserver* observer) { observer_ = observer; }

  /// A complete answer. `fields` without framing fields.
  void respond(int status, std::span<const HeaderField> fields, std::string_view body);
  /// The head of a streamed answer; it leaves with the first write or flush. `framing`: none, length (with
  /// content_length) or chunked (close-delimited towards HTTP/1.0).
  void start(int status, std::string_view reason, std::span<const HeaderField> fields, BodyFraming framing,
             std::uint64_t content_length = 0);
  /// Payload, framed here; the whole call leaves as one system call if the socket takes it. Bytes that the
  /// socket does not take are copied. `last` ends the answer.
  void write(std::span<const std::string_view> pieces, bool last);
  void flush() { write({}, false); }
  void finish() { write({}, true); }
  /// Ends the connection so that no client can take the answer for complete. What waits is sent first.
  void abort();
  /// Answer bytes waiting for the client.
  std::size_t pending_bytes() const { return out_.size() - out_sent_; }
  bool answer_started() const { return answer_started_; }

  /// Who asks, as the handler's on_head has found for on_request; null before.
  TenantPtr tenant;

 private:
  friend class HttpServer;
  enum class Phase : std::uint8_t { handshake, head, body, answering, lingering, closed };
  struct Incoming;  // a request of which a part is still missing

  ServerConnection(HttpServer& server, Transport transport, const SocketAddress& peer);
  bool has_memory() const;
  void on_ready(FdWatch::Ready ready);
  bool shake_hands();
  void fail_handshake(const std::string& reason);
  void read_available(bool until_end);
  void take_bytes(std::string_view bytes);
  std::size_t parse(std::string_view bytes);
  void parse_stored();
  std::size_t take_head(std::string_view bytes);
  bool admit(bool whole);
  std::size_t begin_body(std::string_view head_bytes, std::string_view rest);
  std::size_t continue_body(std::string_view bytes);
  void dispatch(std::string_view body);
  void refuse(const HeadError& error);
  void turn_away(int status, std::string_view message);
  void on_end_of_input();
  void probe_half_closed();
  void send(std::span<const iovec> pieces);
  void end_answer();
  void begin_moving();
  Instant progress_deadline(std::size_t bytes, Duration silence);
  /// Not for the handler: with the next request, or the rest of one or of its answer.
  bool waits_for_client() const {
    return phase_ != Phase::closed && (phase_ != Phase::answering || answer_ended_);
  }
  void check_for_reset();
  void linger();
  void resume_later();
  void lose_client();
  void close();
  void expire(Instant now);

  HttpServer& server_;
  Transport transport_;
  FdWatch watch_;
  std::string peer_;
  std::uint64_t source_;                     // see SocketAddress::source
  std::size_t index_ = 0;                    // in the server's table
  ServerConnection* idle_before_ = nullptr;  // in the server's list, while idle_
  ServerConnection* idle_after_ = nullptr;
  Phase phase_ = Phase::head;
  BodyFraming answer_framing_ = BodyFraming::none;
  bool answer_started_ = false;
  bool keep_alive_ = true;
  bool client_is_old_ = false;  // HTTP/1.0
  bool head_request_ = false;
  bool head_begun_ = false;   // bytes of the next request have come
  bool input_ended_ = false;  // the client sends no more (perhaps it is gone)
  bool left_unread_ = false;  // the socket may hold bytes that no edge will announce
  bool write_blocked_ = false;
  bool answer_ended_ = false;      // ... but perhaps not all sent yet
  bool idle_ = false;              // without a request, not even the beginning of one
  bool turned_away_ = false;       // there was no room for it
  bool awaits_handshake_ = false;  // its turn for one
  bool unsure_ = false;            // the server will look whether a reset has come unseen
  bool broken_ = false;            // a write failed: the client is gone, which is said at the end of the turn
  Instant head_started_;
  Instant idle_since_;
  Instant deadline_;      // of the current phase
  Instant moving_since_;  // the body, or the answer that waits
  std::uint64_t moved_bytes_ = 0;
  std::string_view body_;
  MemoryAccount* payer_ = nullptr;
  AnswerObserver* observer_ = nullptr;
  Buffer in_;                // bytes not parsed yet
  std::size_t scanned_ = 0;  // of in_, known not to end the head
  Buffer out_;               // answer bytes not taken by the socket yet
  std::size_t out_sent_ = 0;
  std::unique_ptr<Incoming> incoming_;
};

}  // namespace heng
