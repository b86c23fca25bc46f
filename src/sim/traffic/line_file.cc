// Adapter of zlib, which reads files that are not compressed as they are.
#include "sim/traffic/line_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace heng {

namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";  // spreadsheets and editors of Windows leave it

}  // namespace

void LineFile::Close::operator()(gzFile_s* file) const { gzclose(file); }

Result<LineFile> LineFile::open(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
    return fail(ErrorCode::io, fmt::format("{} is a folder; name a file in it", path));
  }
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) {
    return fail(ErrorCode::io, fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  }
  return LineFile(path, file);
}

Error LineFile::mistake(std::string_view message) const {
  return {ErrorCode::invalid, fmt::format("{}:{}: {}", path_, line_number_, message)};
}

/// More bytes behind those that wait; false at the end of the file.
Result<bool> LineFile::fill() {
  std::memmove(bytes_.data(), bytes_.data() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  if (end_ == bytes_.size()) bytes_.resize(bytes_.size() * 2);
  const int got = gzread(file_.get(), bytes_.data() + end_, static_cast<unsigned>(bytes_.size() - end_));
  int problem = Z_OK;
  const char* words = gzerror(file_.get(), &problem);
  if (got < 0 || (problem != Z_OK && problem != Z_STREAM_END)) {
    return fail(ErrorCode::io, fmt::format("{}: cannot read on after line {}: {}", path_, line_number_,
                                           problem == Z_ERRNO ? std::strerror(errno) : words));
  }
  end_ += static_cast<std::size_t>(got);
  return got > 0;
}

Result<bool> LineFile::next(std::string_view& line) {
  std::size_t searched = 0;
  while (true) {
    const char* start = bytes_.data() + begin_;
    const std::size_t waiting = end_ - begin_;
    const void* found =
        waiting > searched ? std::memchr(start + searched, '\n', waiting - searched) : nullptr;
    if (found != nullptr || (at_end_ && waiting > 0)) {
      const std::size_t size =
          found != nullptr ? static_cast<std::size_t>(static_cast<const char*>(found) - start) : waiting;
      line = {start, size};
      if (line.ends_with('\r')) line.remove_suffix(1);
      begin_ += std::min(size + 1, waiting);
      if (++line_number_ == 1 && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
      return true;
    }
    if (at_end_) return false;
    if (waiting > kLineBytesMax) {
      ++line_number_;
      return std::unexpected(mistake(fmt::format("the line is longer than {} bytes", kLineBytesMax)));
    }
    searched = waiting;
    const Result<bool> more = fill();
    if (!more) return more;
    at_end_ = !*more;
  }
}

}  // namespace heng
