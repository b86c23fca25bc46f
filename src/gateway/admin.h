// The admin API: status, weights, metrics and control on a port of its own.
#pragma once

#include <functional>
#include <string>

#include "gateway/gateway.h"
#include "live/http_server.h"

namespace heng {

/// Reading is open on loopback, asked for by address or as localhost (so not to pages of rebound names);
/// beyond it everything but /healthz and /readyz wants the token. Changes want the token as soon as one is
/// configured or the address is not loopback, and are refused to browsers on other pages.
class AdminApi final : public RequestHandler {
 public:
  /// `reload` re-reads the configuration file; null where there is none to re-read.
  AdminApi(Gateway& gateway, std::function<Result<void>()> reload);

  Result<void> start(const Endpoint& endpoint);
  Endpoint endpoint() const { return server_.endpoint(); }
  void drain() { server_.drain(); }

 private:
  struct Answer {
    int status = 200;
    std::string body;
    std::string_view type = "application/json";
  };

  void on_request(ServerConnection& connection) override;
  Answer answer(ServerConnection& connection);
  Answer change(std::string_view path, std::string_view body);
  std::string pools_json() const;
  std::string workers_json() const;
  std::string weights_json(std::string_view query) const;
  std::string policies_json() const;
  Answer balance(std::string_view body);
  bool has_token(ServerConnection& connection) const;

  Gateway& gateway_;
  std::function<Result<void>()> reload_;
  bool loopback_ = true;
  HttpServer server_;
};

/// 127.0.0.0/8, ::1 and localhost.
bool is_loopback(const std::string& host);

}  // namespace heng
