// HMAC on OpenSSL.
#include "base/keyed_hash.h"

#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <iterator>
#include <memory>

#include "base/result.h"

namespace heng {
namespace {

using Mac = std::unique_ptr<EVP_MAC_CTX, void (*)(EVP_MAC_CTX*)>;

Mac make_mac() {
  EVP_MAC* algorithm = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  Mac mac(EVP_MAC_CTX_new(algorithm), EVP_MAC_CTX_free);
  EVP_MAC_free(algorithm);  // the context keeps its own reference
  char digest[] = "SHA256";
  const OSSL_PARAM options[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                OSSL_PARAM_construct_end()};
  HENG_ASSERT(mac && EVP_MAC_CTX_set_params(mac.get(), options) == 1);
  return mac;
}

int digit_of(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

}  // namespace

Digest hmac_sha256(std::span<const std::uint8_t> key, std::string_view text) {
  // Looking the algorithm up anew would take three times as long as the hash itself.
  thread_local const Mac mac = make_mac();
  static constexpr std::uint8_t kEmpty = 0;  // a null key would mean the one before
  Digest digest;
  std::size_t size = 0;
  const bool done =
      EVP_MAC_init(mac.get(), key.empty() ? &kEmpty : key.data(), key.size(), nullptr) == 1 &&
      EVP_MAC_update(mac.get(), reinterpret_cast<const std::uint8_t*>(text.data()), text.size()) == 1 &&
      EVP_MAC_final(mac.get(), digest.data(), &size, digest.size()) == 1;
  HENG_ASSERT(done && size == digest.size());
  return digest;
}

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

bool equal_in_constant_time(const Digest& a, const Digest& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string to_hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) fmt::format_to(std::back_inserter(text), "{:02x}", byte);
  return text;
}

bool from_hex(std::string_view text, std::span<std::uint8_t> bytes) {
  if (text.size() != 2 * bytes.size()) return false;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return true;
}

}  // namespace heng
