// What the CUDA kernels share: vector accesses, reductions over a row's threads, and the second
// stage of sums over rows. No float atomics anywhere: every sum has a fixed order.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "fusegen/dtype.h"
#include "fusegen/elementary.h"
#include "fusegen/precision.h"
#include "fusegen/random.h"

namespace fusegen {

// V neighbouring elements in the type computed in, and V as they are stored, moved in one access.
template <class T, int V>
struct Vector {
  T value[V];
};

template <class S, int V>
struct alignas(sizeof(S) * V) Packed {
  S value[V];
};

template <int V, class S>
__device__ __forceinline__ Vector<compute_t<S>, V> load_vector(const S* from) {
  const auto packed = *reinterpret_cast<const Packed<S, V>*>(from);
  Vector<compute_t<S>, V> loaded;
#pragma unroll
  for (int v = 0; v < V; ++v) loaded.value[v] = Storage<S>::load(packed.value[v]);
  return loaded;
}

template <int V, class S>
__device__ __forceinline__ void store_vector(S* to, const Vector<compute_t<S>, V>& from) {
  Packed<S, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v) packed.value[v] = Storage<S>::store(from.value[v]);
  *reinterpret_cast<Packed<S, V>*>(to) = packed;
}

// The uniform numbers of elements index … index + V - 1; index is a multiple of V.
template <class T, int V>
__device__ __forceinline__ Vector<T, V> draw_vector(uint64_t seed, uint32_t stream,
                                                    uint64_t index) {
  Vector<T, V> drawn;
  if constexpr (V % 4 == 0) {
#pragma unroll
    for (int group = 0; group < V / 4; ++group) {
      const Uniform4 four = uniform4(seed, stream, index / 4 + group);
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) drawn.value[4 * group + lane] = T(four.value[lane]);
    }
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) drawn.value[v] = T(uniform(seed, stream, index + v));
  }
  return drawn;
}

struct Sum {
  template <class T>
  static __device__ __forceinline__ T identity() {
    return T(0);
  }
  template <class T>
  static __device__ __forceinline__ T combine(T a, T b) {
    return a + b;
  }
};

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

// Reduces one value a thread over the blockDim.x threads that hold a row (32, or a whole block of
// blockDim.y = 1); every one of them gets the result. `shared` has room for 32 values.
template <class Op, class T>
__device__ __forceinline__ T reduce_row(T value, T* shared) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value = Op::combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  if (blockDim.x == 32) return value;
  __syncthreads();  // the previous reduction's values have been read
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value =
      threadIdx.x % 32 < blockDim.x / 32 ? shared[threadIdx.x % 32] : Op::template identity<T>();
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value = Op::combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  return value;
}

// Adds up one value a thread over the whole block; thread (0, 0) gets the sum.
template <class T>
__device__ __forceinline__ T sum_block(T value) {
  __shared__ T shared[32];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int warps = (blockDim.x * blockDim.y + 31) / 32;
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  __syncthreads();
  if (thread % 32 == 0) shared[thread / 32] = value;
  __syncthreads();
  value = T(0);
  if (thread == 0) {
    for (int warp = 0; warp < warps; ++warp) value += shared[warp];
  }
  return value;
}

// Second stage: out[col] = the sum over groups of partial[group][col]: 32 columns and 32 strands a
// block, each strand with four loads in flight.
template <class S, class T>
__global__ void __launch_bounds__(1024)
    sum_groups(S* out, const T* partial, int64_t groups, int64_t cols) {
  __shared__ T strand[32][33];
  const int64_t col = int64_t(blockIdx.x) * 32 + threadIdx.x;
  T sum[4] = {};
  if (col < cols) {
    for (int64_t group = threadIdx.y; group < groups; group += 128) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int64_t at = group + 32 * n;
        sum[n] += at < groups ? partial[at * cols + col] : T(0);
      }
    }
  }
  strand[threadIdx.y][threadIdx.x] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  __syncthreads();
  if (threadIdx.y == 0 && col < cols) {
    T total = T(0);
    for (int s = 0; s < 32; ++s) total += strand[s][threadIdx.x];
    out[col] = Storage<S>::store(total);
  }
}

template <class S, class T>
void launch_sum_groups(S* out, const T* partial, int64_t groups, int64_t cols,
                       cudaStream_t stream) {
  if (cols == 0) return;
  const dim3 threads(32, 32);
  sum_groups<S, T><<<unsigned((cols + 31) / 32), threads, 0, stream>>>(out, partial, groups, cols);
}

inline int multiprocessors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

inline bool aligned(const void* pointer, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

inline const char* last_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace fusegen
