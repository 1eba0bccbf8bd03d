// Counter-based random numbers: Philox4x32-7 (Salmon et al. 2011, "Parallel random numbers: as easy
// as 1, 2, 3"). A number depends only on the seed, the position of its rng in the chain, and the
// element's index. So forward and backward, CPU and GPU, and every tiling see the same bits. Seven
// rounds are the fewest that pass every test of BigCrush (table 2 there).
//
// An element gets 16 bits, so one call serves eight elements, and a probability is exact to 1 /
// 65536.
#pragma once

#include <cstdint>

#include "fusegen/arithmetic.h"

namespace fusegen {

// 128 random bits, for elements 8 group … 8 group + 7. An even element has the low half of its
// word.
struct Bits {
  uint32_t word[4];
};

// Holds a 32-bit number. AVX-512 multiplies two of them into 64 bits if they are in 64-bit lanes;
// from 32-bit lanes, gcc would shuffle them there in each round. Bits above the 32 are dropped
// where they matter: before a product, and at the end.
#if defined(__AVX512DQ__) && !defined(__CUDA_ARCH__)
using Philox = uint64_t;
#else
using Philox = uint32_t;
#endif

// The random bits of a group of eight elements.
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

// The uniform random numbers of a word's two elements, multiples of 2^-16 in [0, 1). The bits
// become the mantissa of 2^23 + n.
FUSEGEN_FN float low_uniform(uint32_t word) {
  return fma(bit_cast<float>(0x4b000000u | (word & 0xffffu)), 0x1p-16f, -128.0f);
}
FUSEGEN_FN float high_uniform(uint32_t word) {
  return fma(bit_cast<float>(0x4b000000u | (word >> 16)), 0x1p-16f, -128.0f);
}

// The uniform random number of one element.
FUSEGEN_FN float uniform(uint64_t seed, uint32_t stream, uint64_t index) {
  const Bits bits = philox(seed, stream, index / 8);
  const uint32_t lane = uint32_t(index % 8);
  const uint32_t low = lane & 2u ? bits.word[1] : bits.word[0];
  const uint32_t high = lane & 2u ? bits.word[3] : bits.word[2];
  const uint32_t word = lane & 4u ? high : low;
  return low_uniform(lane & 1u ? word >> 16 : word);
}

}  // namespace fusegen
