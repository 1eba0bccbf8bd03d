// The kernel of transposed.h. torch's own copy reads one element of each sector at a time.
//
// A block takes a tile through shared memory: it reads along the columns and writes along the rows,
// in accesses of 16 bytes where they divide both, and all loads of a thread are in flight together.
// A tile has at most R rows and C columns, R * C = 4096: it is flat if there are few rows, and
// narrow if there are few columns. All tiles of a matrix are about as large. Bound: memory.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "fusegen/dtype.h"
#include "fusegen/transposed.h"

namespace fusegen {
namespace {

// An element of SIZE bytes, and W of them.
template <int SIZE>
using Bytes = std::conditional_t<SIZE == 2, uint16_t,
                                 std::conditional_t<SIZE == 4, uint32_t, unsigned long long>>;
template <class S, int W>
struct alignas(W * sizeof(S)) Several {
  S value[W];
};

constexpr int tile_elements = 4096, tile_threads = 256;

// The tiles of each matrix: `down` times `across`, of so many rows and columns.
struct Tiles {
  int64_t down, across;
  int rows, cols;
};

// LOADS and STORES: the elements of an access.
template <class S, int R, int LOADS, int STORES>
__global__ void __launch_bounds__(tile_threads, 4)
    transpose_tiles(Transposition copy, Tiles tiles) {
  constexpr int C = tile_elements / R;
  constexpr int pitch = C + (sizeof(S) == 2 ? 2 : 1);  // a column then lies in different banks
  constexpr int loads = tile_elements / tile_threads / LOADS, lanes = C / LOADS;
  constexpr int stores = tile_elements / tile_threads / STORES, lines = R / STORES;
  __shared__ S tile[R * pitch];
  const int64_t matrix = blockIdx.x / (tiles.down * tiles.across);
  const int64_t place = blockIdx.x % (tiles.down * tiles.across);
  const int64_t row = place % tiles.down * tiles.rows, col = place / tiles.down * tiles.cols;
  const int rows = int(min(copy.rows - row, int64_t(tiles.rows)));
  const int cols = int(min(copy.cols - col, int64_t(tiles.cols)));
  const int64_t base = matrix * copy.rows * copy.cols;
  const S* const from = static_cast<const S*>(copy.from) + base + row * copy.cols + col;
  S* const to = static_cast<S*>(copy.to) + base + col * copy.rows + row;
  const int thread = int(threadIdx.x);
  Several<S, LOADS> values[loads];
#pragma unroll
  for (int n = 0; n < loads; ++n) {
    const int at = n * tile_threads + thread, r = at / lanes, c = at % lanes * LOADS;
    if (r < rows && c < cols)
      values[n] = *reinterpret_cast<const Several<S, LOADS>*>(from + r * copy.cols + c);
  }
#pragma unroll
  for (int n = 0; n < loads; ++n) {
    const int at = n * tile_threads + thread, r = at / lanes, c = at % lanes * LOADS;
#pragma unroll
    for (int v = 0; v < LOADS; ++v) tile[r * pitch + c + v] = values[n].value[v];
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < stores; ++n) {
    const int at = n * tile_threads + thread, c = at / lines, r = at % lines * STORES;
    Several<S, STORES> column;
#pragma unroll
    for (int v = 0; v < STORES; ++v) column.value[v] = tile[(r + v) * pitch + c];
    if (r < rows && c < cols)
      *reinterpret_cast<Several<S, STORES>*>(to + c * copy.rows + r) = column;
  }
}

// The rows or columns of a tile that holds at most `most` of them, a multiple of `width`.
inline int even_part(int64_t all, int most, int width) {
  const int64_t parts = (all + most - 1) / most, part = (all + parts - 1) / parts;
  return int((part + width - 1) / width * width);
}

template <class S, int R>
const char* launch_tiles(const Transposition& copy, cudaStream_t stream) {
  constexpr int C = tile_elements / R, wide = std::min({16 / int(sizeof(S)), R, C});
  if (copy.count * copy.rows * copy.cols == 0) return nullptr;
  const auto vectors = [](const void* at, int64_t of) {
    return of % wide == 0 && reinterpret_cast<uintptr_t>(at) % (wide * sizeof(S)) == 0;
  };
  const bool loads = vectors(copy.from, copy.cols), stores = vectors(copy.to, copy.rows);
  Tiles tiles;
  tiles.rows = even_part(copy.rows, R, stores ? wide : 1);
  tiles.cols = even_part(copy.cols, C, loads ? wide : 1);
  tiles.down = (copy.rows + tiles.rows - 1) / tiles.rows;
  tiles.across = (copy.cols + tiles.cols - 1) / tiles.cols;
  const int64_t blocks = copy.count * tiles.down * tiles.across;
  if (blocks >> 31) return "a tensor is too large to be transposed";
  const auto launched = [&](auto* kernel) {
    kernel<<<unsigned(blocks), tile_threads, 0, stream>>>(copy, tiles);
  };
  if (loads && stores)
    launched(transpose_tiles<S, R, wide, wide>);
  else if (loads)
    launched(transpose_tiles<S, R, wide, 1>);
  else if (stores)
    launched(transpose_tiles<S, R, 1, wide>);
  else
    launched(transpose_tiles<S, R, 1, 1>);
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

}  // namespace fusegen
