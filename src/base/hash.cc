// XXH3 behind one function, so that no header needs the library.
#include "base/hash.h"

#include <xxhash.h>

namespace heng {

std::uint64_t hash_bytes(std::string_view bytes, std::uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

}  // namespace heng
