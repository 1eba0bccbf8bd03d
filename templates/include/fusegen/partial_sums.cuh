// The second stage of sums over rows or over all elements: adds up what the blocks of the first
// stage left, in a fixed order. One launch serves all sums of a kernel.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "fusegen/dtype.h"
#include "fusegen/launch.cuh"
#include "fusegen/vector.cuh"

namespace fusegen {

// stored[col] and computed[col], where there is such a result, are the sum over
// partial[group / run][col][group % run]: with a run of 1, over the rows of partial[groups][cols].
template <class S, class T>
struct PartialSum {
  S* stored;
  T* computed;
  const T* partial;
  int64_t groups, cols, run;

  __device__ __forceinline__ T at(int64_t group, int64_t col) const {
    if (run == 1) return partial[group * cols + col];
    return partial[(group / run * cols + col) * run + group % run];
  }
};

template <class S, class T, int N>
struct PartialSums {
  PartialSum<S, T> sum[N];
};

// A thread adds up V neighbouring columns, or one where a sum has other columns or lies in runs:
// blockDim.x threads side by side, blockDim.y strands a block, each with four loads in flight.
template <class S, class T, int N, int V>
__global__ void __launch_bounds__(1024) add_partial_sums(PartialSums<S, T, N> sums) {
  await_kernels_before();
  const PartialSum<S, T> job = sums.sum[blockIdx.y];
  __shared__ T strands[1024 * V];
  const bool wide = V > 1 && job.run == 1 && job.cols % V == 0;
  const int each = wide ? V : 1, across = int(blockDim.x) * each, width = blockDim.y;
  const int64_t first = int64_t(blockIdx.x) * across, col = first + threadIdx.x * each;
  Vector<T, V> sum[4] = {};
  // Loads come first, also of what is not added: a load under a condition would be waited for.
  const auto add_up = [&](auto part_at) {
    for (int64_t group = threadIdx.y; group < job.groups; group += 4 * width) {
      Packed<T, V> part[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) part[n] = part_at(min(group + n * width, job.groups - 1));
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int v = 0; v < V; ++v)
          sum[n].value[v] += group + n * width < job.groups ? part[n].value[v] : T(0);
      }
    }
  };
  if (col < job.cols && wide) {
    add_up([&](int64_t at) { return load_packed<V>(job.partial + at * job.cols + col); });
  } else if (col < job.cols) {
    add_up([&](int64_t at) { return Packed<T, V>{job.at(at, col)}; });
  }
  T* const mine = strands + threadIdx.y * across + threadIdx.x * each;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (v < each)
      mine[v] = (sum[0].value[v] + sum[1].value[v]) + (sum[2].value[v] + sum[3].value[v]);
  }
  __syncthreads();
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  for (int j = thread; j < across && first + j < job.cols; j += int(blockDim.x) * width) {
    T total = T(0);
    for (int s = 0; s < width; ++s) total += strands[s * across + j];
    if (job.stored) job.stored[first + j] = Storage<S>::store(total);
    if (job.computed) job.computed[first + j] = total;
  }
}

template <class S, class T, int N>
void launch_partial_sums(const PartialSums<S, T, N>& sums, cudaStream_t stream) {
  constexpr int wide = 16 / sizeof(T);
  int64_t cols = 0, groups = 1;
  bool vectors = true;
  for (const auto& job : sums.sum) {
    cols = std::max(cols, job.cols);
    groups = std::max(groups, job.groups);
    vectors = vectors &&
              (job.cols == 1 || (job.run == 1 && job.cols % wide == 0 && aligned(job.partial, 16)));
  }
  if (cols == 0) return;
  unsigned strands = 1;  // about eight partial sums each
  while (strands < 32 && strands * 8 < groups) strands *= 2;
  const dim3 threads(strands > 8 ? 32 : 256 / strands, strands);
  const auto launched = [&](auto* kernel, int64_t across) {
    const dim3 grid(unsigned((cols + across - 1) / across), N);
    launch(kernel, stream, grid, threads, 0, 1, sums);
  };
  // Vectors only where their blocks still are more than a quarter of the chip's multiprocessors.
  const int64_t across = int64_t(threads.x) * wide;
  if (vectors && cols / across * 4 > chip().multiprocessors)
    launched(add_partial_sums<S, T, N, wide>, across);
  else
    launched(add_partial_sums<S, T, N, 1>, threads.x);
}

}  // namespace fusegen
