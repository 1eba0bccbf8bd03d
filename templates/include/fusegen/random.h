// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
// easy as 1, 2, 3"). A number is a function of the seed, the draw's place in the chain and the
// element's index alone, so forward and backward, CPU and GPU, and every tiling see the same bits.
#pragma once

#include <cstdint>

#include "fusegen/platform.h"

namespace fusegen {

struct Uniform4 {
  float value[4];
};

// Four uniform numbers in [0, 1), multiples of 2^-24: those of elements 4 group … 4 group + 3.
FUSEGEN_FN Uniform4 uniform4(uint64_t seed, uint32_t stream, uint64_t group) {
  uint32_t c0 = uint32_t(group), c1 = uint32_t(group >> 32), c2 = stream, c3 = 0;
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  FUSEGEN_UNROLL
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0;
    const uint64_t p1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(p1);
    c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const float unit = 0x1p-24f;
  return {
      {float(c0 >> 8) * unit, float(c1 >> 8) * unit, float(c2 >> 8) * unit, float(c3 >> 8) * unit}};
}

// The uniform number of one element.
FUSEGEN_FN float uniform(uint64_t seed, uint32_t stream, uint64_t index) {
  const Uniform4 four = uniform4(seed, stream, index / 4);
  const uint32_t lane = uint32_t(index % 4);
  const float low = lane & 1u ? four.value[1] : four.value[0];
  const float high = lane & 1u ? four.value[3] : four.value[2];
  return lane & 2u ? high : low;
}

}  // namespace fusegen
