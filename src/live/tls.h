// TLS contexts made from certificate files, for both sides of the gateway.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "config/config.h"

namespace heng {

/// Shared by a server and the connections it has begun; replaced as a whole.
using TlsContext = std::shared_ptr<SSL_CTX>;

struct ServerTls {
  TlsContext context;
  std::int64_t expires_s = 0;  // since 1970; of the certificate that ends first
};

/// For clients that come. Fails with the file and the reason: unreadable, expired, a key of another
/// certificate.
Result<ServerTls> server_tls(const TlsConfig& config);

/// For going to a worker. "" stands for the system's authorities, or for no certificate of our own.
struct ClientTlsFiles {
  std::string ca_file;
  std::string cert_file;
  std::string key_file;
};
Result<TlsContext> client_tls(const ClientTlsFiles& files);

/// Loads every TLS file that the configuration names. The first problem, or a warning for people where a
/// certificate of ours ends within two weeks of `now_s` (since 1970), else "".
Result<std::string> check_tls_files(const Config& config, double now_s);

}  // namespace heng
