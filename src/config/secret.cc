// Reads secrets from files and refuses careless permissions.
#include "config/secret.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "config/issues.h"
#include "config/values.h"

namespace heng {
namespace {

constexpr std::size_t kSecretBytesMax = 16 << 10;
constexpr mode_t kForOthers = S_IROTH | S_IWOTH;

std::unexpected<Error> fail_open_to_all(const std::string& path) {
  return fail(ErrorCode::refused,
              fmt::format("the secret in {0} is open to every user of this machine; run: chmod 600 {0}",
                          quote(path)));
}

Result<std::string> read_checked(int file, const std::string& path) {
  struct stat facts{};
  if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    return fail(ErrorCode::io, fmt::format("{} is not a regular file", quote(path)));
  }
  if ((facts.st_mode & kForOthers) != 0) {
    return fail_open_to_all(path);
  }
  std::string text(kSecretBytesMax + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(file, text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return fail(ErrorCode::io, fmt::format("cannot read {}: {}", quote(path), std::strerror(errno)));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  if (size > kSecretBytesMax)
    return fail(ErrorCode::too_large, fmt::format("{} is larger than 16 KiB", quote(path)));
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
  if (text.empty())
    return fail(ErrorCode::invalid, fmt::format("{} is empty; put the secret in it", quote(path)));
  if (!is_header_value(text)) {
    return fail(ErrorCode::invalid, fmt::format("{} must hold one line of plain ASCII", quote(path)));
  }
  return text;
}

}  // namespace

std::string resolve_path(const std::string& path, const std::string& directory) {
  return path.starts_with('/') || directory.empty() ? path : directory + "/" + path;
}

Result<std::string> read_secret(const std::string& path) {
  // O_NONBLOCK: a FIFO in its place must not hang the start.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    return fail(ErrorCode::io,
                fmt::format("cannot read the secret in {}: {}", quote(path), std::strerror(errno)));
  }
  auto text = read_checked(file, path);
  close(file);
  return text;
}

Result<void> check_file(const std::string& path, bool is_private) {
  if (access(path.c_str(), R_OK) != 0)
    return fail(ErrorCode::io, fmt::format("cannot read {}: {}", quote(path), std::strerror(errno)));
  return is_private && is_open_to_all(path) ? Result<void>(fail_open_to_all(path)) : Result<void>();
}

bool is_open_to_all(const std::string& path) {
  struct stat facts{};
  return stat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode) && (facts.st_mode & kForOthers) != 0;
}

}  // namespace heng
