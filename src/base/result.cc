// Ends the program when an internal invariant is broken.
#include "base/result.h"

#include <cstdio>
#include <cstdlib>

namespace heng {

void assertion_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "heng: bug: assertion '%s' failed at %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace heng
