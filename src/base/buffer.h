// A growable byte buffer that never zero-fills and always has room for a parser to read past the end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace heng {

/// What some buffers have allocated together; outlives them.
struct MemoryAccount {
  std::uint64_t held_bytes = 0;
};

/// Owns its bytes; moves cheaply. A std::string would clear 400 KB before each large body is read into it.
class Buffer {
 public:
  /// Readable bytes past size(), which simdjson needs.
  static constexpr std::size_t kPadding = 64;

  /// What all buffers of this thread have allocated together.
  static std::uint64_t held_bytes() { return held_bytes_; }

  Buffer() = default;
  ~Buffer() { count(0); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer moved(std::move(other));
    swap(moved);
    return *this;
  }

  /// Whose memory it is from here on; null: nobody's in particular.
  void charge_to(MemoryAccount* account) {
    if (account_ != nullptr) account_->held_bytes -= capacity_;
    if (account != nullptr) account->held_bytes += capacity_;
    account_ = account;
  }
  MemoryAccount* account() const { return account_; }

  std::size_t size() const { return size_; }
  std::size_t capacity() const { return capacity_; }
  bool empty() const { return size_ == 0; }
  char* data() { return bytes_.get(); }
  std::string_view view() const { return {bytes_.get(), size_}; }

  void reserve(std::size_t capacity) {
    if (capacity <= capacity_) return;
    char* grown = static_cast<char*>(std::realloc(bytes_.get(), capacity + kPadding));
    if (grown == nullptr) out_of_memory();
    static_cast<void>(bytes_.release());
    bytes_.reset(grown);
    count(capacity);
  }
  /// Room for `bytes` more behind size(); write there, then call grow().
  char* room(std::size_t bytes) {
    if (size_ + bytes > capacity_) reserve(std::max(size_ + bytes, capacity_ * 2));
    return bytes_.get() + size_;
  }
  void grow(std::size_t bytes) { size_ += bytes; }
  void append(std::string_view bytes) {
    if (bytes.empty()) return;
    std::memcpy(room(bytes.size()), bytes.data(), bytes.size());
    size_ += bytes.size();
  }
  /// Drops bytes from the front.
  void consume(std::size_t bytes) {
    size_ -= bytes;
    if (size_ != 0) std::memmove(bytes_.get(), bytes_.get() + bytes, size_);
  }
  void clear() { size_ = 0; }
  /// Gives the memory back; what comes is charged as before.
  void release() {
    MemoryAccount* const account = account_;
    Buffer().swap(*this);
    account_ = account;
  }
  void swap(Buffer& other) noexcept {
    bytes_.swap(other.bytes_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(account_, other.account_);
  }

 private:
  void count(std::size_t capacity) {
    held_bytes_ += capacity - capacity_;
    if (account_ != nullptr) account_->held_bytes += capacity - capacity_;
    capacity_ = capacity;
  }
  [[noreturn]] static void out_of_memory() {
    if (const std::new_handler last_words = std::get_new_handler()) last_words();
    assertion_failed("memory", __FILE__, __LINE__);
  }

  static inline thread_local std::uint64_t held_bytes_ = 0;
  struct Free {
    void operator()(char* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<char, Free> bytes_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
  MemoryAccount* account_ = nullptr;
};

}  // namespace heng
