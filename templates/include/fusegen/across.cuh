// Rows whose columns lie apart in memory and that lie side by side themselves: how a block has
// them, and how its warps, which share the columns, reduce them.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "fusegen/chip.cuh"
#include "fusegen/team.cuh"

namespace fusegen {

// Tiles of 32 V neighbouring rows in a matrix [cols, inner].
template <int V>
FUSEGEN_FN int64_t across_tiles(int64_t inner) {
  return (inner + 32 * V - 1) / (32 * V);
}

constexpr int across_threads = 512;  // of a block at most, so that each may have 128 registers

struct AcrossPlan {
  int width;     // neighbouring rows of a thread
  int items;     // columns that a thread holds; 0: none, the rows are read again by each stage
  dim3 threads;  // lanes and warps
  unsigned grid;
  int64_t tiles;           // of the whole activation
  int64_t groups, blocks;  // partial sums: one a block
};

// `held_one`, `held_two`: columns that a thread holds of one row, or of two. `allows`: whether a
// thread may access so many neighbouring rows at once. `tensors`: how many are read.
template <class S, class Allows>
AcrossPlan choose_across(int64_t rows, int64_t cols, int64_t inner, int held_one, int held_two,
                         int tensors, const Allows& allows) {
  constexpr int most = across_threads / 32;
  AcrossPlan plan{};
  if (cols <= int64_t(held_two) * most && allows(2)) {
    plan.width = 2;
    plan.items = held_two;
  } else if (cols <= int64_t(held_one) * most) {
    plan.width = 1;
    plan.items = held_one;
  } else {
    // What a block reads again is to be in its first-level cache, or else in wide accesses.
    constexpr int64_t cache = 128 * 1024;
    constexpr int wide = 16 / sizeof(S);
    const int64_t bytes = 32 * cols * tensors * int64_t(sizeof(S));
    plan.width = wide * bytes > cache && 2 * bytes <= cache ? 2 : wide;
    if (!allows(plan.width)) plan.width = allows(2) ? 2 : 1;
  }
  int warps = plan.items ? 1 : most;
  while (warps < most && int64_t(warps) * plan.items < cols) warps *= 2;
  plan.threads = dim3(32, unsigned(warps));
  plan.tiles = rows / inner * ((inner + 32 * plan.width - 1) / (32 * plan.width));
  return plan;
}

// Sets the grid: a block for each tile, or where each leaves partial sums only as many as the chip
// holds at a time.
template <class Kernel>
void place_across(AcrossPlan& plan, Kernel* kernel, bool sums) {
  const int64_t most = sums ? resident_blocks(kernel, plan.threads, 0) : int64_t(INT32_MAX);
  plan.grid = unsigned(std::min(plan.tiles, most));
  plan.groups = plan.blocks = plan.grid;
}

// Reduces each of a thread's V values over the warps of its block; every thread gets the results.
// `exchange` has a place for each value.
template <class Op, class T, int V>
__device__ __forceinline__ void reduce_across(T (&values)[V], T* exchange) {
  const int warps = blockDim.y;
  if (warps == 1) return;
#pragma unroll
  for (int v = 0; v < V; ++v) exchange[(threadIdx.y * V + v) * 32 + threadIdx.x] = values[v];
  __syncthreads();
#pragma unroll
  for (int v = 0; v < V; ++v) {
    T result = Op::template identity<T>();
    for (int warp = 0; warp < warps; ++warp) {
      result = Op::combine(result, exchange[(warp * V + v) * 32 + threadIdx.x]);
    }
    values[v] = result;
  }
  __syncthreads();
}

}  // namespace fusegen
