// Loading and checking of certificates, and what both sides insist on: TLS 1.2 with forward secrecy,
// HTTP/1.1.
#include "live/tls.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cstring>
#include <ctime>

namespace heng {

namespace {

constexpr double kWarnBefore_s = 14 * 86400;
constexpr unsigned char kAlpn[] = "\x08http/1.1";
constexpr unsigned kAlpnBytes = sizeof kAlpn - 1;

/// OpenSSL's innermost reason: the last one is often no more than "PEM lib".
std::string tls_reason() {
  const unsigned long code = ERR_peek_error();
  const char* reason =
      ERR_SYSTEM_ERROR(code) ? std::strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);
  return reason == nullptr ? "unknown problem" : reason;
}

std::unexpected<Error> fail_file(std::string_view what, const std::string& path) {
  auto failed =
      fail(ErrorCode::invalid, fmt::format("cannot use the {} in '{}': {}", what, path, tls_reason()));
  ERR_clear_error();
  return failed;
}

TlsContext new_context(const SSL_METHOD* method) {
  TlsContext context(SSL_CTX_new(method), SSL_CTX_free);
  HENG_ASSERT(context != nullptr);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_cipher_list(context.get(), "ECDHE+AESGCM:ECDHE+CHACHA20");
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);  // tickets do without memory
  SSL_CTX_set_read_ahead(context.get(), 1);  // one system call for a record instead of two
  // A key with a pass phrase must fail, not ask on the terminal.
  SSL_CTX_set_default_passwd_cb(context.get(), [](char*, int, int, void*) { return 0; });
  return context;
}

std::int64_t seconds_of(const ASN1_TIME* time) {
  std::tm parts{};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? timegm(&parts) : 0;
}

/// When the first of the chain ends; fails if one is not valid now.
Result<std::int64_t> check_validity(SSL_CTX& context, const std::string& path) {
  STACK_OF(X509)* chain = nullptr;
  SSL_CTX_get0_chain_certs(&context, &chain);
  std::int64_t first_end = std::numeric_limits<std::int64_t>::max();
  for (int i = -1; i < std::max(0, sk_X509_num(chain)); ++i) {
    const X509* certificate = i < 0 ? SSL_CTX_get0_certificate(&context) : sk_X509_value(chain, i);
    const ASN1_TIME* begin = X509_get0_notBefore(certificate);
    const ASN1_TIME* end = X509_get0_notAfter(certificate);
    const bool expired = X509_cmp_current_time(end) <= 0;
    if (expired || X509_cmp_current_time(begin) > 0) {
      return fail(ErrorCode::invalid,
                  fmt::format("{} in '{}' {} {:%Y-%m-%d %H:%M} UTC; put a valid one there",
                              i < 0 ? "the certificate" : "a certificate of the chain", path,
                              expired ? "has expired on" : "is not valid before",
                              fmt::gmtime(seconds_of(expired ? end : begin))));
    }
    first_end = std::min(first_end, seconds_of(end));
  }
  return first_end;
}

Result<std::int64_t> load_certificate(SSL_CTX& context, const std::string& cert, const std::string& key) {
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(&context, cert.c_str()) != 1) return fail_file("certificate", cert);
  if (SSL_CTX_use_PrivateKey_file(&context, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    if (ERR_GET_REASON(ERR_peek_error()) != X509_R_KEY_VALUES_MISMATCH) return fail_file("key", key);
    ERR_clear_error();
    return fail(ErrorCode::invalid,
                fmt::format("the key in '{}' is not that of the certificate in '{}'", key, cert));
  }
  return check_validity(context, cert);
}

/// A client that speaks only HTTP/2 is told so instead of being sent what it does not understand.
int select_http11(SSL*, const unsigned char** chosen, unsigned char* size, const unsigned char* offered,
                  unsigned offered_bytes, void*) {
  const int result = SSL_select_next_proto(const_cast<unsigned char**>(chosen), size, kAlpn, kAlpnBytes,
                                           offered, offered_bytes);
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

Result<ClientTls> load_client_tls(const ClientTlsFiles& files) {
  ClientTls loaded{new_context(TLS_client_method())};
  SSL_CTX& context = *loaded.context;
  SSL_CTX_set_alpn_protos(&context, kAlpn, kAlpnBytes);
  ERR_clear_error();
  if (files.ca_file.empty()) {
    if (SSL_CTX_set_default_verify_paths(&context) != 1)
      return fail_file("authorities", "the system's folder");
  } else if (SSL_CTX_load_verify_file(&context, files.ca_file.c_str()) != 1) {
    return fail_file("authorities", files.ca_file);
  }
  if (files.cert_file.empty()) return loaded;
  const auto expires = load_certificate(context, files.cert_file, files.key_file);
  if (!expires) return std::unexpected(expires.error());
  loaded.expires_s = *expires;
  return loaded;
}

}  // namespace

Result<ServerTls> server_tls(const TlsConfig& config) {
  ServerTls tls{new_context(TLS_server_method()), 0};
  SSL_CTX& context = *tls.context;
  if (config.min_version == "1.3") SSL_CTX_set_min_proto_version(&context, TLS1_3_VERSION);
  SSL_CTX_set_alpn_select_cb(&context, select_http11, nullptr);
  const auto expires = load_certificate(context, config.cert_file, config.key_file);
  if (!expires) return std::unexpected(expires.error());
  tls.expires_s = *expires;
  if (config.client_ca_file.empty()) return tls;
  STACK_OF(X509_NAME)* names = SSL_load_client_CA_file(config.client_ca_file.c_str());
  if (names == nullptr || SSL_CTX_load_verify_file(&context, config.client_ca_file.c_str()) != 1) {
    sk_X509_NAME_pop_free(names, X509_NAME_free);
    return fail_file("authorities of clients", config.client_ca_file);
  }
  SSL_CTX_set_client_CA_list(&context, names);
  SSL_CTX_set_verify(&context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  constexpr unsigned char kSessions[] = "heng";  // else resumed sessions of known clients are refused
  SSL_CTX_set_session_id_context(&context, kSessions, sizeof kSessions);
  return tls;
}

Result<ClientTls> ClientTlsContexts::of(const ClientTlsFiles& files) {
  if (const auto found = loaded_.find(files); found != loaded_.end()) return found->second;
  auto loaded = load_client_tls(files);
  if (loaded) loaded_.emplace(files, *loaded);
  return loaded;
}

ClientTlsFiles tls_files_of(const WorkerConfig& worker) {
  return {worker.tls_ca_file, worker.tls_cert_file, worker.tls_key_file};
}

Result<std::string> check_tls_files(const Config& config, double now_s, ClientTlsContexts& contexts) {
  std::string warning;
  const auto note = [&](const std::string& path, std::int64_t expires_s) {
    const double left_s = static_cast<double>(expires_s) - now_s;
    if (left_s < kWarnBefore_s)
      warning = fmt::format("the certificate in '{}' expires in {:.1f} days; renew it", path, left_s / 86400);
  };
  if (config.tls.enabled()) {
    const auto loaded = server_tls(config.tls);
    if (!loaded) return std::unexpected(loaded.error());
    note(config.tls.cert_file, loaded->expires_s);
  }
  for (const PoolConfig& pool : config.pools) {
    for (const WorkerConfig& worker : pool.workers) {
      if (!worker.tls) continue;
      const auto loaded = contexts.of(tls_files_of(worker));
      if (!loaded)
        return fail(ErrorCode::invalid, fmt::format("worker '{}': {}", worker.name, loaded.error().message));
      note(worker.tls_cert_file, loaded->expires_s);
    }
  }
  return warning;
}

}  // namespace heng
