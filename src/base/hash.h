// Stable hashes: the same bytes give the same value on every machine and in every release.
#pragma once

#include <cstdint>
#include <string_view>

namespace heng {

/// XXH3, 64 bits.
std::uint64_t hash_bytes(std::string_view bytes, std::uint64_t seed = 0);

/// SplitMix64 finaliser (Steele, Lea, Flood 2014): spreads an integer over 64 bits.
constexpr std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

constexpr std::uint64_t combine(std::uint64_t a, std::uint64_t b) { return mix(a ^ mix(b)); }

}  // namespace heng
