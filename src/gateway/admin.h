// The admin API: status, weights, metrics and control on a port of its own.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "gateway/admin_handover.h"
#include "gateway/admin_workers.h"
#include "gateway/gateway.h"
#include "live/http_server.h"

namespace heng {

/// Changes want the token, always, and are refused to web pages; a Unix socket's file mode stands for it.
/// Reading is open on loopback, asked for by address or as localhost (so not to pages of rebound names);
/// beyond it everything but /healthz and /readyz wants the token.
class AdminApi final : public RequestHandler {
 public:
  /// `reload` re-reads the configuration file; null where there is none to re-read, as is `hand_over` where
  /// no other process can take over.
  AdminApi(Gateway& gateway, std::function<Result<void>()> reload, AdminHandover::Start hand_over = nullptr);

  /// The token while none is configured; "" = no changes then.
  void set_own_token(std::string token) { own_token_ = std::move(token); }
  /// After a reload of the gateway: limits, time-outs and TLS for connections to come.
  void apply_config();
  /// Fails if the port cannot be had.
  Result<void> start(const Endpoint& endpoint, InheritedSockets* inherited = nullptr);
  int listener() const { return server_.listener(); }
  /// While a successor starts with what was known before: no changes.
  void hold_changes(bool held) { held_ = held; }
  /// See Gateway::retire.
  void retire() { server_.retire(); }
  Endpoint endpoint() const { return server_.endpoint(); }
  void drain() { server_.drain(); }

 private:
  bool on_head(ServerConnection& connection) override;
  void on_request(ServerConnection& connection) override;
  std::optional<ApiError> refusal(ServerConnection& connection);
  std::optional<AdminAnswer> answer(ServerConnection& connection);
  AdminAnswer change(std::string_view path, std::string_view body);
  std::string pools_json() const;
  std::string weights_json(std::string_view query) const;
  std::string policies_json() const;
  AdminAnswer balance(std::string_view body);
  bool has_token(const HttpHead& head) const;

  Gateway& gateway_;
  std::function<Result<void>()> reload_;
  AdminHandover handover_;
  std::string own_token_;
  FailedLogins failed_logins_;
  AdminWorkers workers_;
  bool loopback_ = true;
  bool held_ = false;
  bool socket_ = false;
  HttpServer server_;
};

}  // namespace heng
