// What a policy remembers about each worker, kept in step with the pool's membership.
#pragma once

#include <optional>
#include <vector>

#include "model/pool_view.h"

namespace heng {

/// One T per slot. A slot that now belongs to another worker starts again from T{}; a worker that was merely
/// away finds its T as it was. Owned by a policy; allocates only when the pool grows.
template <class T>
class SlotTable {
 public:
  /// Costs one comparison unless the membership has changed; true if it has.
  bool sync(const PoolView& pool) {
    if (generation_ == pool.generation && items_.size() == pool.identity.size()) return false;
    generation_ = pool.generation;
    items_.resize(pool.identity.size());
    identity_.resize(pool.identity.size());
    for (std::size_t slot = 0; slot < items_.size(); ++slot) {
      if (identity_[slot] == pool.identity[slot]) continue;
      identity_[slot] = pool.identity[slot];
      items_[slot] = T{};
    }
    return true;
  }

  std::size_t size() const { return items_.size(); }
  T& operator[](Slot slot) { return items_[slot]; }
  const T& operator[](Slot slot) const { return items_[slot]; }

 private:
  std::vector<T> items_;
  std::vector<std::uint64_t> identity_;
  std::optional<std::uint64_t> generation_;
};

}  // namespace heng
