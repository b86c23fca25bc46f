// Seeded random streams. Own algorithm, because standard distributions differ between libraries.
#pragma once

#include <cstdint>
#include <string_view>

namespace heng {

/// xoshiro256** (Blackman, Vigna 2018), seeded through SplitMix64. A value type: a copy repeats the same
/// numbers.
class Rng {
 public:
  explicit Rng(std::uint64_t seed);

  std::uint64_t seed() const { return seed_; }

  /// An independent stream; the same seed and name always give the same one.
  Rng split(std::string_view name) const;

  std::uint64_t next();
  /// Uniform in [0, n), n > 0, without bias (Lemire 2019).
  std::uint64_t below(std::uint64_t n);
  /// Uniform in [0, 1).
  double uniform();
  /// Exponential with the given mean.
  double exponential(double mean);
  /// Standard normal (Box-Muller).
  double normal();

 private:
  std::uint64_t seed_;
  std::uint64_t state_[4];
};

}  // namespace heng
