// Memory for large tables that are read at random places.
#pragma once

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace heng {

/// Zeroed bytes in pages of 2 MiB where the system has them: of pages of 4 KiB a processor knows too few by
/// heart to find a place in a large table without looking up its page first. All of it is there at once, 8 ms
/// for 64 MiB or, if the system must first make such pages, 200 ms: not a thing for the path of a request.
class HugePages {
 public:
  explicit HugePages(std::size_t bytes)
      : bytes_((bytes + kPage - 1) / kPage * kPage), memory_(std::aligned_alloc(kPage, bytes_), &std::free) {
    if (memory_ == nullptr) throw std::bad_alloc();
    madvise(memory_.get(), bytes_, MADV_HUGEPAGE);  // a wish: without it all works, only slower
    clear();
  }

  void clear() { std::memset(memory_.get(), 0, bytes_); }
  std::byte* data() const { return static_cast<std::byte*>(memory_.get()); }

 private:
  static constexpr std::size_t kPage = std::size_t{2} << 20;
  std::size_t bytes_;
  std::unique_ptr<void, void (*)(void*)> memory_;
};

}  // namespace heng
