// Reductions over the lanes of a warp, each in a fixed order.
#pragma once

#include <type_traits>

#include "fusegen/elementary.h"

namespace fusegen {

// The operation of a reduction: a sum.
struct Addition {
  template <class T>
  static __device__ __forceinline__ T identity() {
    return T(0);
  }
  template <class T>
  static __device__ __forceinline__ T combine(T a, T b) {
    return a + b;
  }
};

// The operation of a reduction: a maximum, which is NaN if a value is.
struct Maximum {
  template <class T>
  static __device__ __forceinline__ T identity() {
    return T(-INFINITY);
  }
  template <class T>
  static __device__ __forceinline__ T combine(T a, T b) {
    return maximum(a, b);
  }
};

// Reduces each of N values over `lanes` neighbouring lanes, a power of two that is at least N. Lane
// l gets the result of value l % N. In each of the first steps, a lane passes on half of its values
// and keeps the others, so N values cost little more than one. This matters because a
// multiprocessor does as few shuffles as accesses to shared memory.
template <class Op, class T, int N>
__device__ __forceinline__ T reduce_shared_out(T (&values)[N], int lanes) {
#pragma unroll
  for (int offset = 1; offset < N; offset *= 2) {
    const bool upper = threadIdx.x & offset;
#pragma unroll
    for (int n = 0; 2 * n * offset < N; ++n) {
      const T kept = upper ? values[2 * n + 1] : values[2 * n];
      const T passed = upper ? values[2 * n] : values[2 * n + 1];
      values[n] = Op::combine(kept, __shfl_xor_sync(0xffffffffu, passed, offset));
    }
  }
#pragma unroll
  for (int offset = N; offset < 32; offset *= 2) {
    if (offset >= lanes) break;
    values[0] = Op::combine(values[0], __shfl_xor_sync(0xffffffffu, values[0], offset));
  }
  return values[0];
}

// How many lanes share N values: the next power of two.
template <int N>
constexpr int sharing = 2 * sharing<(N + 1) / 2>;
template <>
constexpr int sharing<1> = 1;

// Reduces each of N values over neighbouring lanes; every lane gets the results. For a maximum over
// a warp there is one instruction, but only for integers. Flipping the other bits of negative
// floats makes them sort as integers, with NaN above all. (Any NaN here is the positive one that
// `maximum` makes.)
template <class Op, class T, int N>
__device__ __forceinline__ void reduce_each(T (&values)[N], int lanes) {
  if constexpr (std::is_same_v<Op, Maximum> && std::is_same_v<T, float>) {
    if (lanes == 32) {
      const auto flipped = [](int bits) { return bits ^ ((bits >> 31) & 0x7fffffff); };
#pragma unroll
      for (T& value : values) {
        const int key = flipped(bit_cast<int>(value));
        value = bit_cast<float>(flipped(__reduce_max_sync(0xffffffffu, key)));
      }
      return;
    }
  }
  constexpr int P = sharing<N>;
  if (N > 1 && lanes >= P) {
    T parts[P];
#pragma unroll
    for (int n = 0; n < P; ++n) parts[n] = n < N ? values[n] : T(0);
    const T result = reduce_shared_out<Op>(parts, lanes);
#pragma unroll
    for (int n = 0; n < N; ++n) values[n] = __shfl_sync(0xffffffffu, result, n, lanes);
    return;
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    if (offset >= lanes) continue;
#pragma unroll
    for (T& value : values) {
      value = Op::combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
  }
}

// Reduces one value over `lanes` neighbouring lanes.
template <class Op, class T>
__device__ __forceinline__ T reduce_lanes(T value, int lanes) {
  T values[] = {value};
  reduce_each<Op>(values, lanes);
  return values[0];
}

// Reduces one value over the 32 lanes of a warp.
template <class Op, class T>
__device__ __forceinline__ T reduce_warp(T value) {
  return reduce_lanes<Op>(value, 32);
}

}  // namespace fusegen
