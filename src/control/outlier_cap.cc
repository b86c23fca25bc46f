// The panic threshold.
#include "control/outlier_cap.h"

#include <algorithm>

namespace heng {

Standing worst_in_use(std::span<const Standing> members, double max_ejected_share) {
  const auto dead = std::ranges::count(members, Standing::dead);
  const auto alive = static_cast<double>(members.size()) - static_cast<double>(dead);
  const auto fine = static_cast<double>(std::ranges::count(members, Standing::fine));
  return fine > 0 && fine + 1e-9 >= (1 - max_ejected_share) * alive ? Standing::fine : Standing::outlier;
}

}  // namespace heng
