// Sums over rows: each thread sums its own columns, in shared memory or in registers. At the end,
// threads store the sums in chunks of up to 16 bytes. Chunks are dealt out so that neighbouring
// threads store neighbouring ones: a warp's stores are contiguous even if each thread's columns
// make two chunks.
#pragma once

#include "fusegen/vector.cuh"

namespace fusegen {

// Column sums in shared memory. `place` is where the whole block's sums begin.
template <class T, int V>
class ColumnSums {
 public:
  static constexpr int width = V * sizeof(T) <= 16 ? V : 16 / sizeof(T);
  static constexpr int chunks = V / width;
  using Chunk = Packed<T, width>;

  ColumnSums() = default;
  __device__ ColumnSums(void* place, int thread, int threads)
      : chunks_(static_cast<Chunk*>(place) + thread), threads_(threads) {}

  __device__ __forceinline__ void clear(int items) {
    for (int k = 0; k < items * chunks; ++k) chunks_[k * threads_] = Chunk{};
  }

  __device__ __forceinline__ void add(int item, const Vector<T, V>& values) {
#pragma unroll
    for (int k = 0; k < chunks; ++k) {
      Chunk& chunk = chunks_[(item * chunks + k) * threads_];
      Chunk sum = chunk;
#pragma unroll
      for (int w = 0; w < width; ++w) sum.value[w] += values.value[k * width + w];
      chunk = sum;
    }
  }

  // The index of the k-th chunk that this thread stores, within a row of threads.
  static __device__ __forceinline__ int leaves(int k) {
    return k * int(blockDim.x) + int(threadIdx.x);
  }

  // The value of that chunk, from the row of threads that is `apart` threads further. Call it after
  // a barrier.
  __device__ __forceinline__ Chunk chunk(int item, int k, int apart) const {
    const int which = leaves(k), from = which / chunks - int(threadIdx.x) + apart;
    return chunks_[(item * chunks + which % chunks) * threads_ + from];
  }

 private:
  Chunk* chunks_;
  int threads_;
};

// Column sums in registers. Requires enough registers, columns that no other thread of the block
// shares, and a block of whole warps.
template <class T, int V, int ITEMS>
class LiveSums {
 public:
  static constexpr int width = ColumnSums<T, V>::width;
  static constexpr int chunks = V / width;
  using Chunk = Packed<T, width>;

  LiveSums() = default;
  __device__ LiveSums(const void*, int, int) {}

  __device__ __forceinline__ void clear(int) {}

  __device__ __forceinline__ void add(int item, const Vector<T, V>& values) {
#pragma unroll
    for (int v = 0; v < V; ++v) sums_[item * V + v] += values.value[v];
  }

  // As in ColumnSums, but chunks are dealt out within a warp, among its own lanes.
  static __device__ __forceinline__ int leaves(int k) {
    const int lane = threadIdx.x % 32;
    return (int(threadIdx.x) - lane) * chunks + k * 32 + lane;
  }

  __device__ __forceinline__ Chunk chunk(int item, int k, int) const {
    Chunk found;
    const int lane = threadIdx.x % 32, from = (k * 32 + lane) / chunks;
#pragma unroll
    for (int w = 0; w < width; ++w) {
      found.value[w] = sums_[item * V + w];
      if constexpr (chunks > 1) {
#pragma unroll
        for (int which = 0; which < chunks; ++which) {
          const T value = __shfl_sync(0xffffffffu, sums_[item * V + which * width + w], from);
          found.value[w] = which == lane % chunks ? value : found.value[w];
        }
      }
    }
    return found;
  }

 private:
  T sums_[ITEMS * V] = {};
};

// Stores a block's column sums for one access of its threads. The block's `rows` of threads are
// added up in order. `partial` points to the first column, and `columns` is their number. ANYWHERE:
// chunks may begin anywhere, and the last one may be incomplete.
template <bool ANYWHERE = false, class Sums, class T>
__device__ __forceinline__ void leave_columns(const Sums& sums, int item, T* partial, int columns,
                                              int rows) {
  using Chunk = typename Sums::Chunk;
  if (threadIdx.y != 0) return;
#pragma unroll
  for (int k = 0; k < Sums::chunks; ++k) {
    Chunk all{};
    for (int y = 0; y < rows; ++y) {
      const Chunk part = sums.chunk(item, k, y * int(blockDim.x));
#pragma unroll
      for (int w = 0; w < Sums::width; ++w) all.value[w] += part.value[w];
    }
    const int column = Sums::leaves(k) * Sums::width;
    if constexpr (ANYWHERE) {
#pragma unroll
      for (int w = 0; w < Sums::width; ++w) {
        if (column + w < columns) partial[column + w] = all.value[w];
      }
    } else {
      if (column < columns) *reinterpret_cast<Chunk*>(partial + column) = all;
    }
  }
}

}  // namespace fusegen
