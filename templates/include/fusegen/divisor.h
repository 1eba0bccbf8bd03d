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

// Divides numbers below 2^31, in fewer instructions.
struct SmallDivisor {
  uint32_t factor = uint32_t(1) << 31, shift = 0;  // factor: 2^(31 + shift) / number, rounded up

  SmallDivisor() = default;
  explicit SmallDivisor(int64_t number) {
    while (int64_t(1) << shift < number) ++shift;
    const uint64_t divisor = uint64_t(number);
    factor = uint32_t(((uint64_t(1) << (31 + shift)) + divisor - 1) / divisor);
  }

  FUSEGEN_FN uint32_t quotient(uint32_t a) const {
#ifdef __CUDA_ARCH__
    return __umulhi(2 * a, factor) >> shift;
#else
    return uint32_t(uint64_t(2 * a) * factor >> 32) >> shift;
#endif
  }
};

// The channel of a row, row / run % channels, for all numbers below 2^31: kernels whose rows are
// short divide as often as they compute. A tensor without channels has no rows to ask for.
struct ChannelOfRow {
  SmallDivisor run, channels;
  uint32_t count = 1;

  ChannelOfRow() = default;
  ChannelOfRow(int64_t run, int64_t channels) {
    if (run < 1 || channels < 1 || (run | channels) >> 31) return;
    this->run = SmallDivisor(run);
    this->channels = SmallDivisor(channels);
    count = uint32_t(channels);
  }

  FUSEGEN_FN uint32_t operator()(uint32_t row) const {
    const uint32_t place = run.quotient(row);
    return place - channels.quotient(place) * count;
  }
};

}  // namespace fusegen
