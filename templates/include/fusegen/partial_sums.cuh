// The second stage of sums over rows or over all elements. It adds up the partial sums of the first
// stage's blocks, in a fixed order. One launch serves all sums of a kernel.
//
// Many parts of few columns would leave most of the chip idle. Then a launch before it adds up
// stretches of the parts, each by blocks of its own. A stretch's sum takes the place of its first
// part, which no other block reads.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "fusegen/storage.h"
#include "fusegen/lanes.cuh"
#include "fusegen/launch.cuh"
#include "fusegen/vector.cuh"

namespace fusegen {

// One sum and its results. stored[col] and computed[col], unless null, receive the sum over
// partial[group / run][col][group % run]. With a run of 1, that is the sum over the rows of a
// matrix [groups, side_by_side]; there is one such matrix if that is `cols`, or one after the
// other. The results' columns may lie apart, by their steps.
template <class S, class T>
struct PartialSum {
  S* stored;
  T* computed;
  T* partial;
  int64_t groups, cols, run, side_by_side;
  int stored_step = 1, computed_step = 1;
  int64_t stretch = 0;     // groups that a block adds up before the others do; 0: no launch before
  bool duplicate = false;  // whether another sum of the launch has the same parts

  // Whether a whole block sums one column. Its lanes then read contiguous partial sums.
  __host__ __device__ __forceinline__ bool by_block() const {
    return (run > 1 || cols == 1) && groups >= 256;
  }

  // Where the parts of a column begin, with a run of 1.
  __device__ __forceinline__ T* first(int64_t col) const {
    const int64_t before = side_by_side == cols ? 0 : col / side_by_side;
    return partial + before * (groups - 1) * side_by_side + col;
  }
  // Where a part of a column is, in longer runs.
  __device__ __forceinline__ T* in_run(int64_t group, int64_t col) const {
    if (groups <= UINT32_MAX) return of_run(uint32_t(group), uint32_t(run), col);
    return of_run(uint64_t(group), uint64_t(run), col);
  }

 private:
  template <class Index>
  __device__ __forceinline__ T* of_run(Index group, Index each, int64_t col) const {
    return partial + (int64_t(group / each) * cols + col) * run + group % each;
  }
};

// The sums of one launch; whether it is the one before, which adds up stretches.
template <class S, class T, int N>
struct PartialSums {
  PartialSum<S, T> sum[N];
  bool before = false;
};

// Each thread adds up V neighbouring columns; it takes one column if a sum's columns differ or come
// in runs. A block has blockDim.x threads side by side and blockDim.y strands, each with eight
// loads in flight. For long runs, a block takes one column and each thread is a strand.
template <class S, class T, int N, int V>
__global__ void __launch_bounds__(1024)
    add_partial_sums(const __grid_constant__ PartialSums<S, T, N> sums) {
  await_kernels_before();
  const PartialSum<S, T>& job = sums.sum[blockIdx.y];
  // The groups that the block adds up, and how far apart they are.
  const int64_t apart = sums.before ? 1 : max(job.stretch, int64_t(1));
  const int64_t begin = sums.before ? blockIdx.z * job.stretch : 0;
  const int64_t end =
      sums.before ? min(begin + job.stretch, job.groups) : (job.groups + apart - 1) / apart;
  if (sums.before && (begin >= end || job.duplicate)) return;
  __shared__ T strands[1024 * V];
  const bool alone = job.by_block();
  const bool wide = V > 1 && !alone && job.run == 1 && job.side_by_side % V == 0;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  const int each = wide ? V : 1, across = alone ? 1 : int(blockDim.x) * each;
  const int strand = alone ? thread : threadIdx.y, width = alone ? threads : blockDim.y;
  const int64_t first = int64_t(blockIdx.x) * across,
                col = first + (alone ? 0 : threadIdx.x * each);
  Vector<T, V> sum{};
  // Load first, even values that are not added: the thread would wait for each conditional load.
  const auto add_up = [&](auto part_at) {
    for (int64_t group = begin + strand; group < end; group += 8 * width) {
      Packed<T, V> part[8];
#pragma unroll
      for (int n = 0; n < 8; ++n) part[n] = part_at(min(group + n * width, end - 1) * apart);
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int v = 0; v < V; ++v)
          sum.value[v] += group + n * width < end ? part[n].value[v] : T(0);
      }
    }
  };
  if (col < job.cols && job.run == 1) {
    const T* const from = job.first(col);
    if (wide)
      add_up([&](int64_t at) { return load_packed<V>(from + at * job.side_by_side); });
    else
      add_up([&](int64_t at) { return Packed<T, V>{from[at * job.side_by_side]}; });
  } else if (col < job.cols) {
    add_up([&](int64_t at) { return Packed<T, V>{*job.in_run(at, col)}; });
  }
  int parts = width;
  if (alone) {
    parts = threads / 32;
    strands[thread / 32] = reduce_warp<Addition>(sum.value[0]);
  } else {
    T* const mine = strands + threadIdx.y * across + threadIdx.x * each;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (v < each) mine[v] = sum.value[v];
    }
  }
  __syncthreads();
  for (int j = thread; j < across && first + j < job.cols; j += threads) {
    T total = T(0);
#pragma unroll 8
    for (int s = 0; s < parts; ++s) total += strands[s * across + j];
    if (sums.before) {
      *(job.run == 1 ? job.first(first + j) + begin * job.side_by_side
                     : job.in_run(begin, first + j)) = total;
      continue;
    }
    if (job.stored) job.stored[(first + j) * job.stored_step] = Storage<S>::store(total);
    if (job.computed) job.computed[(first + j) * job.computed_step] = total;
  }
}

// Launches add_partial_sums with a grid that fits all sums, `stretches` of them side by side.
template <class S, class T, int N, int V>
void launch_partial_sums(const PartialSums<S, T, N>& sums, dim3 threads, int64_t across,
                         int64_t stretches, cudaStream_t stream) {
  int64_t blocks = 1;
  for (const auto& job : sums.sum) {
    const int64_t columns = job.by_block() ? 1 : across;
    blocks = std::max(blocks, (job.cols + columns - 1) / columns);
  }
  const dim3 grid(unsigned(blocks), N, unsigned(stretches));
  launch(add_partial_sums<S, T, N, V>, stream, grid, threads, 0, 1, sums);
}

// Adds up all sums: in one launch, or in two where their columns are few and their parts many.
template <class S, class T, int N>
void launch_partial_sums(PartialSums<S, T, N> sums, cudaStream_t stream) {
  constexpr int wide = 16 / sizeof(T), least = 2048;  // so many groups make two launches worth it
  int64_t cols = 0, groups = 1, columns = 0;
  bool vectors = true, alone = false;
  for (const auto& job : sums.sum) {
    cols = std::max(cols, job.cols);
    groups = std::max(groups, job.groups);
    columns = std::max(columns, job.by_block() ? 32 * job.cols : job.cols);
    alone = alone || job.by_block();
    const bool even = job.run == 1 && job.side_by_side % wide == 0 && aligned(job.partial, 16);
    vectors = vectors && (job.cols == 1 || job.by_block() || even);
  }
  if (cols == 0) return;
  unsigned strands = 1;  // about eight partial sums per strand
  while (strands < (alone ? 8 : 32) && strands * 8 < groups) strands *= 2;
  const dim3 threads(strands > 8 ? 32 : 256 / strands, strands);
  // Use vectors only if that leaves more blocks than a quarter of the chip's multiprocessors.
  const int64_t across = int64_t(threads.x) * wide;
  vectors = vectors && cols / across * 4 > chip().multiprocessors;
  const auto launched = [&](int64_t stretches) {
    if (vectors)
      launch_partial_sums<S, T, N, wide>(sums, threads, across, stretches, stream);
    else
      launch_partial_sums<S, T, N, 1>(sums, threads, threads.x, stretches, stream);
  };
  const int64_t stretches = std::min<int64_t>(
      2 * chip().multiprocessors * 32 / std::max<int64_t>(columns, 32), groups / 256);
  if (groups >= least && stretches > 1) {
    for (int n = 0; n < N; ++n) {
      auto& job = sums.sum[n];
      job.stretch = (job.groups + stretches - 1) / stretches;
      for (int other = 0; other < n; ++other)
        job.duplicate = job.duplicate || sums.sum[other].partial == job.partial;
    }
    sums.before = true;
    launched(stretches);
    sums.before = false;
  }
  launched(1);
}

}  // namespace fusegen
