// Sums by channel, if a channel is a run of columns. Each thread adds up its own columns over its
// rows. At the end, a block stores one sum for each channel that it has columns of.
#pragma once

#include <cstdint>

#include "fusegen/lanes.cuh"
#include "fusegen/vector.cuh"

namespace fusegen {

// The sums of a thread's columns, in shared memory. If the V columns of an access all belong to one
// channel, they share one sum.
template <class T, int V>
class RunSums {
 public:
  // How many columns share a sum if each channel has `run` columns.
  static __host__ __device__ __forceinline__ int shared_by(int64_t run) {
    return run % V == 0 ? V : 1;
  }

  RunSums() = default;
  __device__ RunSums(void* place, int thread, int threads, int64_t run)
      : sums_(static_cast<T*>(place) + thread), threads_(threads), each_(V / shared_by(run)) {}

  __device__ __forceinline__ void clear(int items) {
    for (int k = 0; k < items * each_; ++k) sums_[k * threads_] = T(0);
  }

  __device__ __forceinline__ void add(int item, const Vector<T, V>& values) {
    if (each_ == 1) {
      sums_[item * threads_] += folded(values);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) sums_[(item * V + v) * threads_] += values.value[v];
    }
  }

 private:
  T* sums_;
  int threads_, each_;
};

// The same in registers: EACH sums for an access, one for all of its columns or one for each.
// Columns that share one must belong to one channel.
template <class T, int V, int ITEMS, int EACH>
class LiveRunSums {
 public:
  __device__ __forceinline__ void add(int item, const Vector<T, V>& values) {
    if constexpr (EACH == 1) {
      sums_[item] += folded(values);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) sums_[item * V + v] += values.value[v];
    }
  }

  // Writes the sums to where RunSums would have them.
  __device__ __forceinline__ void put(void* place, int thread, int threads, int items) const {
#pragma unroll
    for (int n = 0; n < ITEMS * EACH; ++n) {
      if (n < items * EACH) (static_cast<T*>(place) + thread)[n * threads] = sums_[n];
    }
  }

 private:
  T sums_[ITEMS * EACH] = {};
};

// Whether the lanes that keep a row have registers for so many sums by channel.
template <class T, int SUMS>
constexpr bool has_live_runs = sizeof(T) == 4 && SUMS <= 32;

// Which columns a block's RunSums belong to.
struct RunColumns {
  int first, end;    // the block's columns of a row
  int run, each;     // columns per channel, channels per row
  int fold;          // columns that share a sum
  int blocks, rank;  // blocks that share the row, and this block's index
};

// Adds up, over a block, its threads' sums of each channel, which begin at `place`. The result goes
// to partial[group][channel of the row][block of the row]; each row of threads is a group, the
// first one number `group`. Warps sum long runs, single threads short ones, in a fixed order.
template <int V, class T>
__device__ void leave_runs(const void* place, T* partial, int64_t group, const RunColumns& of) {
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  const int lanes = of.run / of.fold >= 32 ? 32 : 1, lane = thread % lanes;
  for (int n = thread / lanes; n < of.each * int(blockDim.y); n += threads / lanes) {
    const int y = n / of.each, channel = n % of.each;
    const int begin = max(channel * of.run, of.first), end = min((channel + 1) * of.run, of.end);
    const int across = blockDim.x, each = V / of.fold;  // accesses per item, sums per access
    const T* const sums = static_cast<const T*>(place) + y * across;
    const int start = begin + lane * of.fold - of.first;
    int item = start / V / across;  // updated by additions: a division takes 25 instructions
    T sum = T(0);
#pragma unroll 4
    for (int c = start; c < end - of.first; c += lanes * of.fold) {
      const int access = c / V;
      while (access >= (item + 1) * across) ++item;
      const int within = each == 1 ? 0 : c % V / of.fold;
      sum += sums[(item * each + within) * threads + access - item * across];
    }
    sum = reduce_lanes<Addition>(sum, lanes);
    if (lane == 0) partial[((group + y) * of.each + channel) * of.blocks + of.rank] = sum;
  }
}

}  // namespace fusegen
