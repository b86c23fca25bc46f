// TLS contexts made from certificate files, for both sides of the gateway.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <limits>
#include <map>
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

  auto operator<=>(const ClientTlsFiles&) const = default;
};
ClientTlsFiles tls_files_of(const WorkerConfig& worker);

struct ClientTls {
  TlsContext context;
  std::int64_t expires_s = std::numeric_limits<std::int64_t>::max();  // since 1970; of our own certificate
};

/// Loads files once, for all workers that use them: the system's authorities take 25 ms and a MiB each time.
class ClientTlsContexts {
 public:
  Result<ClientTls> of(const ClientTlsFiles& files);

 private:
  std::map<ClientTlsFiles, ClientTls> loaded_;
};

/// Loads every TLS file that the configuration names, those for workers into `contexts`. The first problem,
/// or a warning for people where a certificate of ours ends within two weeks of `now_s` (since 1970), else
/// "".
Result<std::string> check_tls_files(const Config& config, double now_s, ClientTlsContexts& contexts);

}  // namespace heng
