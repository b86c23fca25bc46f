// Memory for large tables that are read at random places.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

namespace heng {

/// Zeroed bytes in pages of 2 MiB where the system has them: of pages of 4 KiB a processor knows too few by
/// heart to find a place in a large table without looking up its page first. A page is there when it is first
/// used: nobody waits for all of them at once, and a table that is not used takes nothing.
class HugePages {
 public:
  explicit HugePages(std::size_t bytes) : bytes_((bytes + kPage - 1) / kPage * kPage) {
    // One page more, so that the first whole one can begin where pages of that size do.
    mapped_ = mmap(nullptr, bytes_ + kPage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped_ == MAP_FAILED) throw std::bad_alloc();
    madvise(mapped_, bytes_ + kPage, MADV_HUGEPAGE);  // a wish: without it all works, only slower
  }
  ~HugePages() { munmap(mapped_, bytes_ + kPage); }
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

  void clear() { madvise(mapped_, bytes_ + kPage, MADV_DONTNEED); }  // which gives zeroes, when used again
  std::byte* data() const {
    const auto at = reinterpret_cast<std::uintptr_t>(mapped_);
    return static_cast<std::byte*>(mapped_) + (kPage - at % kPage) % kPage;
  }

 private:
  static constexpr std::size_t kPage = std::size_t{2} << 20;
  std::size_t bytes_;
  void* mapped_;
};

}  // namespace heng
