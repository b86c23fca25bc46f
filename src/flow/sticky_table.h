// Remembers for a bounded number of keys where they live: sessions and stored responses stay with their
// worker.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/time.h"

namespace heng {

/// 4-way set-associative; in a full set the key not used for longest is forgotten. Fixed memory, allocated on
/// first use; constant time.
class StickyTable {
 public:
  explicit StickyTable(std::uint32_t sets = 1 << 14) : sets_(sets) {}

  /// `key` != 0. A hit counts as use.
  std::optional<std::uint64_t> find(std::uint64_t key, Instant now) {
    if (entries_.empty()) return std::nullopt;
    for (Entry* entry = set_of(key); entry != set_of(key) + kWays; ++entry) {
      if (entry->key != key) continue;
      entry->used = now;
      return entry->value;
    }
    return std::nullopt;
  }

  void put(std::uint64_t key, std::uint64_t value, Instant now) {
    if (entries_.empty()) entries_.resize(std::size_t{sets_} * kWays);
    Entry* victim = set_of(key);
    for (Entry* entry = set_of(key); entry != set_of(key) + kWays; ++entry) {
      if (entry->key == key) {
        victim = entry;
        break;
      }
      if (entry->used < victim->used) victim = entry;
    }
    *victim = {key, value, now};
  }

  /// `visit(key, value)` for all, in no order.
  template <class Visit>
  void for_each(Visit visit) const {
    for (const Entry& entry : entries_) {
      if (entry.key != 0) visit(entry.key, entry.value);
    }
  }

 private:
  static constexpr std::size_t kWays = 4;
  struct Entry {
    std::uint64_t key = 0;
    std::uint64_t value = 0;
    Instant used{};
  };
  Entry* set_of(std::uint64_t key) { return &entries_[(key % sets_) * kWays]; }

  std::uint32_t sets_;
  std::vector<Entry> entries_;
};

}  // namespace heng
