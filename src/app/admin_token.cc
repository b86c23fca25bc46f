// Looks for the user's runtime folder and keeps the token there.
#include "app/admin_token.h"

#include <fmt/format.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "app/private_file.h"
#include "base/keyed_hash.h"
#include "config/secret.h"
#include "config/values.h"

namespace heng {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Where a gateway of this user keeps its token; the first one counts.
std::vector<std::string> folders() {
  std::vector<std::string> list;
  const std::string service = variable("RUNTIME_DIRECTORY");  // systemd; several are separated by colons
  if (!service.empty()) list.push_back(service.substr(0, service.find(':')));
  if (const std::string user = variable("XDG_RUNTIME_DIR"); !user.empty()) list.push_back(user + "/heng");
  if (const std::string home = variable("HOME"); !home.empty()) list.push_back(home + "/.local/state/heng");
  return list;
}

std::string file_name(std::uint16_t port) { return fmt::format("/admin-{}.token", port); }

/// A regular file of this user (or, for root, of any) that nobody else can read.
bool is_private(const std::string& path) {
  struct stat facts{};
  return lstat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode) && (facts.st_mode & 077) == 0 &&
         (facts.st_uid == geteuid() || geteuid() == 0);
}

}  // namespace

Result<OwnToken> own_admin_token(std::uint16_t port) {
  const std::vector<std::string> where = folders();
  if (where.empty()) {
    return fail(ErrorCode::not_found,
                "nowhere to keep an admin token: none of RUNTIME_DIRECTORY, XDG_RUNTIME_DIR and HOME is set");
  }
  OwnToken own{where.front() + file_name(port), {}};
  if (is_private(own.path)) {
    if (auto kept = read_secret(own.path)) {
      own.token = std::move(*kept);
      return own;
    }
  }
  std::error_code error;
  std::filesystem::create_directories(where.front(), error);
  std::array<std::uint8_t, 20> random;
  HENG_ASSERT(getrandom(random.data(), random.size(), 0) == static_cast<ssize_t>(random.size()));
  own.token = to_hex(random);
  unlink(own.path.c_str());  // its mode, or its owner's, must not stay
  if (auto written = write_private_file(own.path, own.token + "\n"); !written)
    return std::unexpected(written.error());
  return own;
}

std::string find_admin_token_file(const std::string& address) {
  const std::size_t scheme = address.find("://");
  const auto endpoint = parse_endpoint(address.substr(scheme == std::string::npos ? 0 : scheme + 3));
  if (!endpoint || !is_loopback(endpoint->host)) return "";
  std::vector<std::string> where = folders();
  where.push_back("/run/heng");  // of the packaged service
  for (const std::string& folder : where) {
    if (const std::string path = folder + file_name(endpoint->port); is_private(path)) return path;
  }
  return "";
}

}  // namespace heng
