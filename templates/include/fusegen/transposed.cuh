// The kernel of transposed.h. torch's own copy reads one element of each sector at a time.
//
// A block takes a tile of R rows and C columns, R * C = 4096, through shared memory: it reads along
// the columns, writes along the rows, and all loads of a thread are in flight together. A tile is
// flat if there are few rows, and narrow if there are few columns. Bound: memory.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "fusegen/dtype.h"
#include "fusegen/transposed.h"

namespace fusegen {
namespace {

// An element of SIZE bytes.
template <int SIZE>
using Bytes = std::conditional_t<SIZE == 2, uint16_t,
                                 std::conditional_t<SIZE == 4, uint32_t, unsigned long long>>;

constexpr int tile_elements = 4096, tile_threads = 256;

template <class S, int R>
__global__ void __launch_bounds__(tile_threads, 4)
    transpose_tiles(Transposition copy, int64_t down, int64_t across) {
  constexpr int C = tile_elements / R, each = tile_elements / tile_threads;
  constexpr int pitch = C + (sizeof(S) == 2 ? 2 : 1);  // a column then lies in different banks
  __shared__ S tile[R * pitch];
  const int64_t matrix = blockIdx.x / (down * across), place = blockIdx.x % (down * across);
  const int64_t row = place % down * R, col = place / down * C;
  const int64_t base = matrix * copy.rows * copy.cols;
  const S* const from = static_cast<const S*>(copy.from) + base;
  S* const to = static_cast<S*>(copy.to) + base;
  S values[each];
#pragma unroll
  for (int n = 0; n < each; ++n) {
    const int at = n * tile_threads + int(threadIdx.x), r = at / C, c = at % C;
    if (row + r < copy.rows && col + c < copy.cols)
      values[n] = from[(row + r) * copy.cols + col + c];
  }
#pragma unroll
  for (int n = 0; n < each; ++n) {
    const int at = n * tile_threads + int(threadIdx.x);
    tile[at / C * pitch + at % C] = values[n];
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < each; ++n) {
    const int at = n * tile_threads + int(threadIdx.x), r = at % R, c = at / R;
    if (row + r < copy.rows && col + c < copy.cols)
      to[(col + c) * copy.rows + row + r] = tile[r * pitch + c];
  }
}

template <class S, int R>
const char* launch_tiles(const Transposition& copy, cudaStream_t stream) {
  constexpr int C = tile_elements / R;
  const int64_t down = (copy.rows + R - 1) / R, across = (copy.cols + C - 1) / C;
  const int64_t blocks = copy.count * down * across;
  if (blocks >> 31) return "a tensor is too large to be transposed";
  if (blocks > 0)
    transpose_tiles<S, R><<<unsigned(blocks), tile_threads, 0, stream>>>(copy, down, across);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

template <int SIZE>
const char* transposed_cuda(const Transposition& copy, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (copy.rows <= 4) return launch_tiles<Bytes<SIZE>, 4>(copy, on);
  if (copy.rows <= 16) return launch_tiles<Bytes<SIZE>, 16>(copy, on);
  if (copy.cols <= 4) return launch_tiles<Bytes<SIZE>, tile_elements / 4>(copy, on);
  if (copy.cols <= 16) return launch_tiles<Bytes<SIZE>, tile_elements / 16>(copy, on);
  return launch_tiles<Bytes<SIZE>, 64>(copy, on);
}

#if defined(FUSEGEN_STORED)
template const char* transposed_cuda<sizeof(FUSEGEN_STORED)>(const Transposition&, void*);
#endif

}  // namespace fusegen
