// Memory for large tables that are read at random places.
#pragma once

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace heng {

/// For standard containers: memory in pages of 2 MiB where the system has them, since of pages of 4 KiB a
/// processor knows too few by heart to find a place in a large table without looking up its page first.
template <class T>
struct HugePages {
  using value_type = T;

  HugePages() = default;
  template <class Other>
  explicit HugePages(const HugePages<Other>&) {}

  T* allocate(std::size_t count) {
    constexpr std::size_t kPage = std::size_t{2} << 20;
    const std::size_t bytes = (count * sizeof(T) + kPage - 1) / kPage * kPage;
    void* memory = std::aligned_alloc(kPage, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: without it all works, only slower
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t) { std::free(memory); }

  bool operator==(const HugePages&) const = default;
};

}  // namespace heng
