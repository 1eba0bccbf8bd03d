// Counter-based random numbers: Philox4x32-7 (Salmon et al. 2011, "Parallel random numbers: as
// easy as 1, 2, 3"). A number is a function of the seed, the draw's place in the chain and the
// element's index alone, so forward and backward, CPU and GPU, and every tiling see the same bits.
// Seven rounds are the fewest that pass every test of BigCrush (table 2 there).
//
// An element gets 16 bits, so that one call serves eight: a probability is exact to 1 / 65536.
#pragma once

#include <cstdint>

#include "fusegen/platform.h"

namespace fusegen {

// 128 random bits, those of elements 8 group … 8 group + 7; an even element has the low half of its
// word.
struct Bits {
  uint32_t word[4];
};

// What holds a number of 32 bits. AVX-512 multiplies two of them into 64 bits where they lie in
// lanes of 64; from lanes of 32, gcc would shuffle them there in each round. What is above the 32
// bits is dropped where it matters: before a product, and at the end.
#if defined(__AVX512DQ__) && !defined(__CUDA_ARCH__)
using Philox = uint64_t;
#else
using Philox = uint32_t;
#endif

FUSEGEN_FN Bits philox(uint64_t seed, uint32_t stream, uint64_t group) {
  Philox c0 = uint32_t(group), c1 = uint32_t(group >> 32), c2 = stream, c3 = 0;
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  FUSEGEN_UNROLL
  for (int round = 0; round < 7; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * uint32_t(c0);
    const uint64_t p1 = uint64_t(0xCD9E8D57u) * uint32_t(c2);
    c0 = Philox(p1 >> 32) ^ c1 ^ k0;
    c1 = Philox(p1);
    c2 = Philox(p0 >> 32) ^ c3 ^ k1;
    c3 = Philox(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{uint32_t(c0), uint32_t(c1), uint32_t(c2), uint32_t(c3)}};
}

// The uniform numbers of a word's two elements: multiples of 2^-16 in [0, 1). The bits become the
// mantissa of 2^23 + n.
FUSEGEN_FN float low_uniform(uint32_t word) {
  return fma(bit_cast<float>(0x4b000000u | (word & 0xffffu)), 0x1p-16f, -128.0f);
}
FUSEGEN_FN float high_uniform(uint32_t word) {
  return fma(bit_cast<float>(0x4b000000u | (word >> 16)), 0x1p-16f, -128.0f);
}

// The uniform number of one element.
FUSEGEN_FN float uniform(uint64_t seed, uint32_t stream, uint64_t index) {
  const Bits bits = philox(seed, stream, index / 8);
  const uint32_t lane = uint32_t(index % 8);
  const uint32_t low = lane & 2u ? bits.word[1] : bits.word[0];
  const uint32_t high = lane & 2u ? bits.word[3] : bits.word[2];
  const uint32_t word = lane & 4u ? high : low;
  return low_uniform(lane & 1u ? word >> 16 : word);
}

}  // namespace fusegen
