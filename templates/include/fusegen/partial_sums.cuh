// The second stage of sums over rows or over all elements: adds up what the blocks of the first
// stage left, in a fixed order. One launch serves all sums of a kernel.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "fusegen/dtype.h"

namespace fusegen {

// out[col] = the sum over partial[group / run][col][group % run]: with a run of 1, over the rows of
// partial[groups][cols].
template <class S, class T>
struct PartialSum {
  S* out;
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

// blockDim.x columns and blockDim.y strands a block, each strand with four loads in flight.
template <class S, class T, int N>
__global__ void __launch_bounds__(1024) add_partial_sums(PartialSums<S, T, N> sums) {
  const PartialSum<S, T> job = sums.sum[blockIdx.y];
  __shared__ T strands[1024];
  const int64_t col = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, width = blockDim.y;
  T sum[4] = {};
  if (col < job.cols) {
    for (int64_t group = threadIdx.y; group < job.groups; group += 4 * width) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int64_t at = group + n * width;
        sum[n] += at < job.groups ? job.at(at, col) : T(0);
      }
    }
  }
  strands[thread] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  __syncthreads();
  if (threadIdx.y == 0 && col < job.cols) {
    T total = T(0);
    for (int s = 0; s < width; ++s) total += strands[s * blockDim.x + threadIdx.x];
    job.out[col] = Storage<S>::store(total);
  }
}

template <class S, class T, int N>
void launch_partial_sums(const PartialSums<S, T, N>& sums, cudaStream_t stream) {
  int64_t cols = 0, groups = 1;
  for (const auto& job : sums.sum) {
    cols = std::max(cols, job.cols);
    groups = std::max(groups, job.groups);
  }
  if (cols == 0) return;
  unsigned strands = 1;  // about eight partial sums each
  while (strands < 32 && strands * 8 < groups) strands *= 2;
  const dim3 threads(strands > 8 ? 32 : 256 / strands, strands);
  const dim3 grid(unsigned((cols + threads.x - 1) / threads.x), N);
  add_partial_sums<S, T, N><<<grid, threads, 0, stream>>>(sums);
}

}  // namespace fusegen
