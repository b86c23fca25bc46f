// For tests: an authority of its own that writes certificates into files which vanish with it.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include <unistd.h>

namespace heng {

class TestAuthority {
 public:
  struct Files {
    std::string cert;
    std::string key;
  };

  TestAuthority() : key_(new_key()), cert_(sign("authority", -3600, 86400, key_.get(), true)) {
    static int count = 0;
    folder_ = std::filesystem::temp_directory_path() /
              ("heng_tls_" + std::to_string(getpid()) + "_" + std::to_string(count++));
    std::filesystem::create_directories(folder_);
    write_pem(path("ca.pem"), [&](FILE* file) { PEM_write_X509(file, cert_.get()); });
  }
  ~TestAuthority() { std::filesystem::remove_all(folder_); }
  TestAuthority(const TestAuthority&) = delete;
  TestAuthority& operator=(const TestAuthority&) = delete;

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string ca_file() const { return path("ca.pem"); }

  /// For 127.0.0.1, valid between these numbers of seconds from now.
  Files issue(const std::string& name, long begins_s = -60, long ends_s = 86400) const {
    const Key key(new_key());
    const Certificate cert(sign(name, begins_s, ends_s, key.get(), false));
    const Files files{path(name + ".crt"), path(name + ".key")};
    write_pem(files.cert, [&](FILE* file) { PEM_write_X509(file, cert.get()); });
    write_pem(files.key, [&](FILE* file) {
      PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    });
    return files;
  }

 private:
  struct Free {
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
    void operator()(X509* cert) const { X509_free(cert); }
  };
  using Key = std::unique_ptr<EVP_PKEY, Free>;
  using Certificate = std::unique_ptr<X509, Free>;

  static long next_serial() {
    static long serial = 0;
    return ++serial;
  }
  static EVP_PKEY* new_key() { return EVP_EC_gen("P-256"); }

  template <class Write>
  static void write_pem(const std::string& path, Write write) {
    FILE* file = std::fopen(path.c_str(), "w");
    ASSERT_NE(file, nullptr);
    write(file);
    std::fclose(file);
  }

  static void extend(X509* cert, int nid, const char* value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
    X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
  }

  X509* sign(const std::string& name, long begins_s, long ends_s, EVP_PKEY* key, bool authority) const {
    X509* cert = X509_new();
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), next_serial());
    X509_gmtime_adj(X509_getm_notBefore(cert), begins_s);
    X509_gmtime_adj(X509_getm_notAfter(cert), ends_s);
    X509_set_pubkey(cert, key);
    X509_NAME* subject = X509_get_subject_name(cert);
    const std::string unique = fmt::format("{} {}", name, next_serial());
    const auto* text = reinterpret_cast<const unsigned char*>(unique.c_str());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, text, -1, -1, 0);
    X509_set_issuer_name(cert, authority ? subject : X509_get_subject_name(cert_.get()));
    extend(cert, NID_basic_constraints, authority ? "critical,CA:TRUE" : "CA:FALSE");
    if (!authority) extend(cert, NID_subject_alt_name, "IP:127.0.0.1");
    X509_sign(cert, key_.get(), EVP_sha256());
    return cert;
  }

  Key key_;
  Certificate cert_;
  std::filesystem::path folder_;
};

}  // namespace heng
