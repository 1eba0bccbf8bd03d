// Vectors of 16 bytes that begin anywhere in memory, not only at multiples of 16 bytes.
//
// Memory is accessed in pieces alone (vector.cuh). A vector lies in one piece, or in two.
#pragma once

#include <cstdint>

#include "fusegen/reads.cuh"

namespace fusegen {

// Eight words, of which four in a row are wanted, from a byte on.
struct TwoPieces {
  uint32_t word[8];

  // Those from `byte` on, which is below 16.
  __device__ __forceinline__ void shift(uint32_t byte) {
    if (byte & 8) {
#pragma unroll
      for (int w = 0; w < 6; ++w) word[w] = word[w + 2];
    }
    if (byte & 4) {
#pragma unroll
      for (int w = 0; w < 5; ++w) word[w] = word[w + 1];
    }
    const uint32_t bits = 8 * (byte & 3);
#pragma unroll
    for (int w = 0; w < 4; ++w) word[w] = __funnelshift_r(word[w], word[w + 1], bits);
  }
};

// Reads V elements from anywhere, of which the first `valid` exist. `read` reads an aligned vector.
template <int V, class S, class Read>
__device__ __forceinline__ Packed<S, V> load_anywhere(const S* from, int valid, const Read& read) {
  static_assert(V == piece<S>, "a vector is as long as a piece");
  using Words = Packed<uint32_t, 4>;
  const int past = after_boundary(from);
  const Words low = bit_cast<Words>(read(from - past));
  Words high{};
  if (past + valid > V) high = bit_cast<Words>(read(from - past + V));
  TwoPieces both;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    both.word[w] = low.value[w];
    both.word[w + 4] = high.value[w];
  }
  both.shift(uint32_t(past * sizeof(S)));
  Words found;
#pragma unroll
  for (int w = 0; w < 4; ++w) found.value[w] = both.word[w];
  return bit_cast<Packed<S, V>>(found);
}

// A lane's vector among those of its warp: how many of its elements exist, and how many of the next
// lane's, which follow it in memory; 0 if none do. `follows`: whether the lane before has the
// elements before. `lanes`: who stores.
struct VectorPlace {
  int valid, next_valid;
  bool follows;
  unsigned lanes;

  // For columns from c on, of `end`.
  template <int V>
  static __device__ __forceinline__ VectorPlace of(int c, int end, unsigned lanes) {
    const int lane = int(threadIdx.y * blockDim.x + threadIdx.x) % 32;
    const bool leads = lane < 31 && threadIdx.x + 1 < blockDim.x;
    return {min(V, end - c), leads ? min(V, end - c - V) : 0, lane > 0 && threadIdx.x > 0, lanes};
  }
};

// Stores a vector anywhere. A lane writes the piece that begins within its vector, with elements of
// the next lane. What belongs to a piece that no lane of the warp has as a whole is written by
// single elements.
template <int V, class S>
__device__ __forceinline__ void store_anywhere(S* to, const Packed<S, V>& values,
                                               const VectorPlace& place) {
  using Words = Packed<uint32_t, 4>;
  const Words own = bit_cast<Words>(values);
  TwoPieces both;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    both.word[w] = own.value[w];
    both.word[w + 4] = __shfl_down_sync(place.lanes, own.value[w], 1);
  }
  const int past = after_boundary(to);
  const int first = past ? V - past : 0;  // the first element of the piece
  both.shift(uint32_t(first * sizeof(S)));
  const bool whole = place.valid == V && (past == 0 || place.next_valid >= first);
  if (whole) {
    Words piece;
#pragma unroll
    for (int w = 0; w < 4; ++w) piece.value[w] = both.word[w];
    *reinterpret_cast<Words*>(to + first) = piece;
  }
  // Elements before the piece belong to that of the lane before, if it has all of it.
  const bool done = past == 0 || (place.follows && place.valid >= first);
  const int from = done ? first : 0, until = whole ? first : place.valid;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (from <= v && v < until) to[v] = values.value[v];
  }
}

}  // namespace fusegen
