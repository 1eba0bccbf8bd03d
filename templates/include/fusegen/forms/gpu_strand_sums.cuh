// Joins what the strands of a block have of their common columns.
#pragma once

#include "fusegen/forms/gpu_elements.cuh"

namespace fusegen {
namespace {

// How many columns of a thread are joined at a time.
template <int V>
constexpr int strand_chunk = V < 8 ? V : 8;

// Each thread of a block has values of V neighbouring columns, such as sums; threads with the same
// threadIdx.x have the same columns. Calls leave(column, joined) with what Op makes of a column's
// values in the block; columns are counted from the block's first. The order is fixed. `strands` is
// shared memory, `strand_chunk` places for each of the BLOCK threads.
template <int BLOCK, class Op, int V, class T, class Leave>
__device__ __forceinline__ void join_strands(T* strands, const T (&values)[V], const Leave& leave) {
  constexpr int chunk = strand_chunk<V>;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, across = int(blockDim.x) * chunk;
#pragma unroll
  for (int from = 0; from < V; from += chunk) {
    __syncthreads();
#pragma unroll
    for (int v = 0; v < chunk; ++v) strands[thread * chunk + v] = values[from + v];
    __syncthreads();
    for (int j = thread; j < across; j += BLOCK) {
      T joined = Op::template identity<T>();
      for (int strand = 0; strand < int(blockDim.y); ++strand)
        joined = Op::combine(joined, strands[strand * across + j]);
      leave(j / chunk * V + from + j % chunk, joined);
    }
  }
}

}  // namespace
}  // namespace fusegen
