// Outer reductions: the columns of a row are not adjacent in memory, but neighbouring rows are.
// Here are the tiles of rows that a block walks over, and the reductions among its threads.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "fusegen/outer_plan.h"
#include "fusegen/chip.cuh"
#include "fusegen/team.cuh"
#include "fusegen/vector.cuh"

namespace fusegen {

// The tile that a block works on: blockDim.x * V neighbouring rows. A block takes every
// gridDim.x-th tile.
template <int V>
class OuterTile {
 public:
  __device__ __forceinline__ explicit OuterTile(const OuterWalk& walk) : walk_(walk) {}

  __device__ __forceinline__ bool exists() const { return tile_ < walk_.tiles; }
  __device__ __forceinline__ void advance() { tile_ += gridDim.x; }
  // The thread's first row.
  __device__ __forceinline__ int64_t row() const {
    return (int64_t(tile_) * blockDim.x + threadIdx.x) * V;
  }
  // The matrix [cols, inner] of a row.
  __device__ __forceinline__ int64_t matrix_of(int64_t row) const {
    return walk_.inner.quotient(row);
  }

 private:
  const OuterWalk& walk_;
  uint32_t tile_ = blockIdx.x;
};

// Reduces over the strands of a block, for the V rows of each lane.
//
// First, the lanes of a warp that belong to different strands exchange values. Then the warps
// exchange theirs through shared memory: they read each other's parts between the two barriers, and
// the results after the second. So nobody overwrites what another still has to read.
template <class T, int V>
class OuterTeam {
 public:
  __device__ explicit OuterTeam(void* exchange) : exchange_(static_cast<T*>(exchange)) {}

  // Every thread gets the results.
  template <class Op>
  __device__ __forceinline__ void reduce(T (&values)[V]) const {
    const unsigned lanes = blockDim.x, threads = lanes * blockDim.y, warps = threads / 32;
    const unsigned thread = threadIdx.y * lanes + threadIdx.x;
    for (unsigned offset = 16; offset >= lanes; offset /= 2) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        values[v] = Op::combine(values[v], __shfl_xor_sync(0xffffffffu, values[v], offset));
      }
    }
    if (warps == 1) return;
    const unsigned rows = lanes * V;
    T* const parts = exchange_ + rows;
    if (thread % 32 < lanes) {
      Packed<T, V> mine;
#pragma unroll
      for (int v = 0; v < V; ++v) mine.value[v] = values[v];
      reinterpret_cast<Packed<T, V>*>(parts)[thread / 32 * lanes + threadIdx.x] = mine;
    }
    __syncthreads();
#pragma unroll 1
    for (unsigned row = thread; row < rows; row += threads) {
      T result = parts[row];
#pragma unroll
      for (unsigned warp = 1; warp < outer_threads / 32; ++warp) {
        if (warp < warps) result = Op::combine(result, parts[warp * rows + row]);
      }
      exchange_[row] = result;
    }
    __syncthreads();
    const Packed<T, V> all = reinterpret_cast<const Packed<T, V>*>(exchange_)[threadIdx.x];
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = all.value[v];
  }

 private:
  T* exchange_;  // each row's result, followed by each warp's part of it
};

// Bytes of shared memory per thread for copying its next inputs ahead: `items` columns of `tensors`
// tensors, and for each row `operands` operands and `statistics` saved statistics.
template <class S>
size_t outer_next(int width, int items, int tensors, int operands, int statistics) {
  const size_t access = width * sizeof(S), computed = width * sizeof(compute_t<S>);
  const bool ahead = items && access >= 4;
  return ahead ? access * (items * tensors + operands) + computed * statistics : 0;
}

// How many threads fit into a block's shared memory if each copies `next` bytes ahead.
template <class S>
int outer_room(int width, size_t next) {
  // Plus space to exchange values in a reduction.
  const size_t each = next + 2 * width * sizeof(compute_t<S>);
  return int(std::min<size_t>(outer_threads, (chip().shared_bytes - 1024) / each / 32 * 32));
}

// Bytes of shared memory of a block.
template <class S>
size_t outer_shared(const OuterPlan& plan, size_t next) {
  const size_t threads = plan.lanes * plan.strands, rows = plan.lanes * plan.width;
  return (plan.items ? next * threads : 0) + sizeof(compute_t<S>) * rows * (1 + threads / 32);
}

// Sets the grid: as many blocks as the chip holds at a time. Each walks over many tiles.
template <class Kernel>
void place_outer(OuterPlan& plan, Kernel* kernel) {
  const dim3 threads(unsigned(plan.lanes), unsigned(plan.strands));
  plan.grid =
      unsigned(std::min<int64_t>(plan.walk.tiles, resident_blocks(kernel, threads, plan.shared)));
  plan.groups = plan.blocks = plan.grid;
}

}  // namespace fusegen
