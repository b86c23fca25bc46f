// Reads a text file line by line, plain or compressed by gzip, in constant memory.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

struct gzFile_s;

namespace heng {

/// Owns the open file. One thread.
class LineFile {
 public:
  static constexpr std::size_t kLineBytesMax = 8 << 20;

  /// Fails if the file cannot be opened.
  static Result<LineFile> open(const std::string& path);

  /// The next line without its end and, if it is the first, without a byte order mark; valid until the next
  /// call. False at the end. Fails if the file cannot be read on, is damaged, or has a line longer than
  /// kLineBytesMax.
  Result<bool> next(std::string_view& line);
  std::size_t line_number() const { return line_number_; }  // of the last line, from 1
  const std::string& path() const { return path_; }
  /// "path:line: message", for mistakes in the last line.
  Error mistake(std::string_view message) const;

 private:
  struct Close {
    void operator()(gzFile_s* file) const;
  };
  LineFile(std::string path, gzFile_s* file) : path_(std::move(path)), file_(file), bytes_(1 << 16) {}
  Result<bool> fill();

  std::string path_;
  std::unique_ptr<gzFile_s, Close> file_;
  std::vector<char> bytes_;
  std::size_t begin_ = 0;  // of what has been read and not handed out
  std::size_t end_ = 0;
  std::size_t line_number_ = 0;
  bool at_end_ = false;
};

}  // namespace heng
