// Writes beside the file, then renames.
#include "app/private_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace heng {
namespace {

bool write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(file, text.data(), text.size());
    if (written < 0 && errno != EINTR) return false;
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
  }
  return fsync(file) == 0;
}

}  // namespace

Result<void> write_private_file(const std::string& path, std::string_view text) {
  struct stat before{};
  const mode_t mode = stat(path.c_str(), &before) == 0 ? before.st_mode & 0777 : 0600;
  std::string beside = path + ".XXXXXX";
  const int file = mkostemp(beside.data(), O_CLOEXEC);  // made with mode 0600
  if (file < 0) return fail(ErrorCode::io, fmt::format("cannot write {}: {}", path, std::strerror(errno)));
  const bool whole = write_all(file, text) && fchmod(file, mode) == 0;
  int error = errno;
  close(file);
  if (whole && std::rename(beside.c_str(), path.c_str()) == 0) return {};
  if (whole) error = errno;
  unlink(beside.c_str());
  return fail(ErrorCode::io, fmt::format("cannot write {}: {}", path, std::strerror(error)));
}

}  // namespace heng
