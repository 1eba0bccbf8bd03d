// Adds up what the strands of a block have of their common columns.
#pragma once

#include "fusegen/forms/gpu_elements.cuh"

namespace fusegen {
namespace {

// How many columns of a thread are added up at a time.
template <int V>
constexpr int strand_chunk = V < 8 ? V : 8;

// Each thread of a block has sums of V neighbouring columns; threads with the same threadIdx.x have
// the same ones. Calls leave(column, sum) with the block's sum of each column, counted from the
// block's first. The order of additions is fixed. `strands` is shared memory, `strand_chunk` places
// for each of the BLOCK threads.
template <int BLOCK, int V, class T, class Leave>
__device__ __forceinline__ void add_strands(T* strands, const T (&sums)[V], const Leave& leave) {
  constexpr int chunk = strand_chunk<V>;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, across = int(blockDim.x) * chunk;
#pragma unroll
  for (int from = 0; from < V; from += chunk) {
    __syncthreads();
#pragma unroll
    for (int v = 0; v < chunk; ++v) strands[thread * chunk + v] = sums[from + v];
    __syncthreads();
    for (int j = thread; j < across; j += BLOCK) {
      T sum = T(0);
      for (int strand = 0; strand < int(blockDim.y); ++strand) sum += strands[strand * across + j];
      leave(j / chunk * V + from + j % chunk, sum);
    }
  }
}

}  // namespace
}  // namespace fusegen
