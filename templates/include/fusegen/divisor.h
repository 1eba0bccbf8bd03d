// Division of many numbers by one, with a multiplication. (Granlund and Montgomery 1994, "Division
// by invariant integers using multiplication".)
#pragma once

#include <cstdint>

#include "fusegen/platform.h"

namespace fusegen {

// Divides numbers below 2^63.
struct Divisor {
  uint64_t number = 1, inverse = 0;  // inverse: 2^64 / number, rounded up; 0 if the number is 1

  Divisor() = default;
  explicit Divisor(int64_t number)
      : number(uint64_t(number)), inverse(number > 1 ? ~uint64_t(0) / uint64_t(number) + 1 : 0) {}

  FUSEGEN_FN int64_t quotient(int64_t a) const {
    if (!inverse) return a;
#ifdef __CUDA_ARCH__
    const uint64_t found = __umul64hi(uint64_t(a), inverse);
#else
    const uint64_t found = uint64_t((unsigned __int128)(uint64_t(a)) * inverse >> 64);
#endif
    return int64_t(found - (found * number > uint64_t(a)));  // at most one too large
  }
};

}  // namespace fusegen
