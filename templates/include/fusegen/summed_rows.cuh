// The kernels of summed_rows.h. torch's own reduction takes two to four times as long.
//
// A block has the threads of a tile of columns side by side, each with V of them, and as many
// strands of such threads as fit. A strand adds up every so-many-th row of the block's stretch,
// with four loads in flight. Blocks fill the chip once. The stretches' sums are added up by
// partial_sums.cuh, so the order never changes. Bound: memory.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "fusegen/partial_sums.cuh"
#include "fusegen/summed_rows.h"

namespace fusegen {
namespace {

constexpr int sum_threads = 256, sum_blocks = 4, sum_loads = 4;

// The columns of a thread: an access of 16 bytes, if all rows begin at such addresses.
template <class S>
int sum_width(int64_t cols, const void* from) {
  constexpr int wide = 16 / sizeof(S);
  return cols % wide == 0 && aligned(from, 16) ? wide : 1;
}

// The threads side by side: a power of two, at most a warp.
inline int sum_lanes(int64_t cols, int width) {
  int lanes = 1;
  while (lanes < 32 && lanes * width < cols) lanes *= 2;
  return lanes;
}

template <class S, int V>
__global__ void __launch_bounds__(sum_threads, sum_blocks)
    sum_stretches(const __grid_constant__ SummedRows sum, int lanes) {
  using T = compute_t<S>;
  await_kernels_before();
  __shared__ T sums[sum_threads * V];
  const int lane = int(threadIdx.x) & (lanes - 1), strand = int(threadIdx.x) / lanes;
  const int strands = sum_threads / lanes;
  const int64_t col = (int64_t(blockIdx.x) * lanes + lane) * V;
  const int64_t each = (sum.rows + sum.parts - 1) / sum.parts, begin = blockIdx.y * each;
  const int64_t end = min(begin + each, sum.rows);
  Vector<T, V> total{};
  if (col < sum.cols) {
    const S* const from = static_cast<const S*>(sum.from) + col;
    for (int64_t row = begin + strand; row < end; row += sum_loads * strands) {
      Packed<S, V> values[sum_loads];
#pragma unroll
      for (int n = 0; n < sum_loads; ++n)
        values[n] = load_packed<V>(from + min(row + n * strands, end - 1) * sum.cols);
#pragma unroll
      for (int n = 0; n < sum_loads; ++n) {
        const auto numbers = unpack(values[n]);
#pragma unroll
        for (int v = 0; v < V; ++v)
          total.value[v] += row + n * strands < end ? numbers.value[v] : T(0);
      }
    }
  }
#pragma unroll
  for (int v = 0; v < V; ++v) sums[v * sum_threads + threadIdx.x] = total.value[v];
  for (int half = strands / 2; half > 0; half /= 2) {
    __syncthreads();
    if (strand < half) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        T* const mine = sums + v * sum_threads + threadIdx.x;
        *mine += mine[half * lanes];
      }
    }
  }
  if (strand == 0 && col < sum.cols) {
    T* const to = static_cast<T*>(sum.partial) + blockIdx.y * sum.cols + col;
#pragma unroll
    for (int v = 0; v < V; ++v) to[v] = sums[v * sum_threads + threadIdx.x];
  }
}

template <class S, int V>
void launch_stretches(const SummedRows& sum, cudaStream_t stream) {
  const int lanes = sum_lanes(sum.cols, V);
  const int64_t across = int64_t(lanes) * V;
  const dim3 grid(unsigned((sum.cols + across - 1) / across), unsigned(sum.parts));
  launch(sum_stretches<S, V>, stream, grid, sum_threads, 0, 1, sum, lanes);
}

}  // namespace

template <class S>
int64_t summed_rows_parts(int64_t rows, int64_t cols) {
  const int width = sum_width<S>(cols, nullptr), lanes = sum_lanes(cols, width);
  const int64_t tiles = (cols + int64_t(lanes) * width - 1) / (int64_t(lanes) * width);
  const int64_t once = int64_t(chip().multiprocessors) * sum_blocks / tiles;
  const int64_t most = rows / (int64_t(sum_threads / lanes) * sum_loads);
  return std::clamp<int64_t>(std::min(once, most), 1, 65535);
}

template <class S>
const char* summed_rows_cuda(const SummedRows& sum, void* stream) {
  using T = compute_t<S>;
  const auto on = static_cast<cudaStream_t>(stream);
  if (sum_width<S>(sum.cols, sum.from) > 1)
    launch_stretches<S, 16 / sizeof(S)>(sum, on);
  else
    launch_stretches<S, 1>(sum, on);
  PartialSums<S, T, 1> sums{};
  sums.sum[0] = {static_cast<S*>(sum.to),
                 nullptr,
                 static_cast<T*>(sum.partial),
                 sum.parts,
                 sum.cols,
                 1,
                 sum.cols};
  launch_partial_sums(sums, on);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace fusegen
