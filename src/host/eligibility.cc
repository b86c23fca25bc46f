// Joins the two halves that know nothing of each other: health and pool.
#include "host/eligibility.h"

namespace heng {

void set_eligibility(Pool& pool, std::span<const Standing> standings, double max_ejected_share) {
  const Standing worst = worst_in_use(standings, max_ejected_share);
  for (Slot slot = 0; slot < standings.size(); ++slot) {
    const bool eligible = standings[slot] <= worst;
    pool.set_eligible(slot, eligible, eligible || standings[slot] == Standing::doubted);
  }
}

}  // namespace heng
