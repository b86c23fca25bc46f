// Remembers one value for each pair of a number and a worker, such as each attempt in flight, without
// allocating per pair.
#pragma once

#include <optional>
#include <vector>

#include "base/hash.h"
#include "model/pool_view.h"

namespace heng {

/// Open addressing with linear probing (Knuth 6.4, algorithms L and R). Owned by a policy. Constant cost;
/// allocates only when there are more attempts at once than ever before.
template <class T>
class AttemptTable {
 public:
  AttemptTable() : cells_(64) {}

  /// Replaces the value if the attempt is known.
  void put(std::uint64_t request, Slot worker, const T& value) {
    if (2 * (size_ + 1) > cells_.size()) grow();
    Cell& cell = cells_[find(request, worker)];
    if (cell.worker == kNoSlot) ++size_;
    cell = {request, worker, value};
  }

  /// The value, which is then forgotten; nothing if the attempt is unknown.
  std::optional<T> take(std::uint64_t request, Slot worker) {
    std::size_t hole = find(request, worker);
    if (cells_[hole].worker == kNoSlot) return std::nullopt;
    const T value = cells_[hole].value;
    --size_;
    for (std::size_t i = next(hole); cells_[i].worker != kNoSlot; i = next(i)) {
      const std::size_t home = home_of(cells_[i].request, cells_[i].worker);
      if (((i - home) & (cells_.size() - 1)) < ((i - hole) & (cells_.size() - 1))) continue;
      cells_[hole] = cells_[i];
      hole = i;
    }
    cells_[hole].worker = kNoSlot;
    return value;
  }

  /// nullptr if it is unknown. Valid until the next put or take.
  T* at(std::uint64_t request, Slot worker) {
    Cell& cell = cells_[find(request, worker)];
    return cell.worker == kNoSlot ? nullptr : &cell.value;
  }

  std::size_t size() const { return size_; }

  template <class Visit>
  void each(Visit visit) const {
    for (const Cell& cell : cells_) {
      if (cell.worker != kNoSlot) visit(cell.value);
    }
  }

 private:
  struct Cell {
    std::uint64_t request = 0;
    Slot worker = kNoSlot;  // kNoSlot = empty
    T value{};
  };

  std::size_t home_of(std::uint64_t request, Slot worker) const {
    return combine(request, worker) & (cells_.size() - 1);
  }
  std::size_t next(std::size_t i) const { return (i + 1) & (cells_.size() - 1); }
  std::size_t find(std::uint64_t request, Slot worker) const {
    std::size_t i = home_of(request, worker);
    while (cells_[i].worker != kNoSlot && (cells_[i].request != request || cells_[i].worker != worker))
      i = next(i);
    return i;
  }
  void grow() {
    std::vector<Cell> old(2 * cells_.size());
    old.swap(cells_);
    for (const Cell& cell : old) {
      if (cell.worker != kNoSlot) cells_[find(cell.request, cell.worker)] = cell;
    }
  }

  std::vector<Cell> cells_;  // a power of two, at most half full
  std::size_t size_ = 0;
};

}  // namespace heng
