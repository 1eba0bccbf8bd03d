// The kernel of runs.h. torch's own copy takes one element at a time where strides differ.
//
// A thread copies four vectors of up to 16 bytes, a block's threads neighbouring ones, in the order
// in which they are written. All loads of a thread are in flight together. Bound: memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "fusegen/divisor.h"
#include "fusegen/launch.cuh"
#include "fusegen/runs.h"

namespace fusegen {
namespace {

constexpr int run_threads = 256, run_loads = 4;

// The places of vectors, which strides count. The innermost dim is the run.
struct VectorPlaces {
  static constexpr int most = Runs::most + 1;
  uint32_t count;
  int dims;
  SmallDivisor by[most];
  uint32_t sizes[most];
  int64_t reads[most], writes[most];
};

template <class Access>
__global__ void __launch_bounds__(run_threads)
    copy_runs(const Access* from, Access* to, const __grid_constant__ VectorPlaces places) {
  await_kernels_before();
  const uint32_t first = blockIdx.x * uint32_t(run_threads * run_loads) + threadIdx.x;
  Access values[run_loads];
  int64_t written[run_loads];
#pragma unroll
  for (int n = 0; n < run_loads; ++n) {
    uint32_t rest = min(first + n * run_threads, places.count - 1);
    int64_t read = 0;
    written[n] = 0;
#pragma unroll
    for (int dim = 0; dim < VectorPlaces::most; ++dim) {
      if (dim >= places.dims) break;
      const uint32_t outer = places.by[dim].quotient(rest);
      const uint32_t at = rest - outer * places.sizes[dim];
      read += at * places.reads[dim];
      written[n] += at * places.writes[dim];
      rest = outer;
    }
    values[n] = from[read];
  }
#pragma unroll
  for (int n = 0; n < run_loads; ++n) {
    if (first + n * run_threads < places.count) to[written[n]] = values[n];
  }
}

// Launches it with accesses of `width` elements.
template <class Access>
const char* launch_runs(const Runs& copy, int64_t width, cudaStream_t stream) {
  VectorPlaces places{};
  int64_t count = 1;
  const auto add = [&](int64_t size, int64_t read, int64_t write) {
    places.by[places.dims] = SmallDivisor(size);
    places.sizes[places.dims] = uint32_t(size);
    places.reads[places.dims] = read;
    places.writes[places.dims++] = write;
    count *= size;
  };
  add(copy.run / width, 1, 1);
  for (int dim = copy.dims; dim-- > 0;)
    add(copy.sizes[dim], copy.reads[dim] / width, copy.writes[dim] / width);
  if (count == 0) return nullptr;
  places.count = uint32_t(count);
  const int64_t each = run_threads * run_loads, blocks = (count + each - 1) / each;
  const cudaError_t error =
      launch(copy_runs<Access>, stream, unsigned(blocks), run_threads, 0, 1,
             static_cast<const Access*>(copy.from), static_cast<Access*>(copy.to), places);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

template <int SIZE>
const char* runs_copied_cuda(const Runs& copy, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (access_of(copy, SIZE) == 16) return launch_runs<uint4>(copy, 16 / SIZE, on);
  return launch_runs<uint2>(copy, 8 / SIZE, on);
}

}  // namespace fusegen
