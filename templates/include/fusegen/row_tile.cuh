// Neighbouring rows of a tensor in shared memory, moved in accesses of 16 bytes wherever they
// begin.
//
// Rows without gaps between them are one stretch of memory; otherwise each row is one. A stretch
// lies in shared memory as far after a boundary of 16 bytes as in the tensor, so each piece
// between two boundaries moves at once. Of the first and the last piece, only elements of the
// stretch are written.
#pragma once

#include <cstdint>

#include "fusegen/reads.cuh"

namespace fusegen {

// The most pieces of a stretch of `length` elements, wherever it begins.
template <class S>
__host__ __device__ __forceinline__ int most_pieces(int length) {
  return (length + piece<S> - 1) / piece<S> + 1;
}
// Elements of shared memory for `rows` rows.
template <class S>
__host__ __device__ __forceinline__ int tile_room(int rows, int cols, bool gaps) {
  return (gaps ? rows * most_pieces<S>(cols) : most_pieces<S>(rows * cols)) * piece<S>;
}

// Some of a tile's threads: how many, and which of them this is.
struct TileThreads {
  int which, count;
};

// A tensor's part of a tile. `place` is where it begins in shared memory, on a boundary. Start: a
// function that returns where a row begins in the tensor; rows are counted from the tile's first.
template <class S, class Start>
struct RowTile {
  using Pack = Packed<S, piece<S>>;

  S* place;
  int rows, cols;
  bool gaps;
  Start start;

  // The first element of row y in shared memory.
  __device__ __forceinline__ S* row(int y) const {
    if (gaps) return place + y * (most_pieces<S>(cols) * piece<S>)+after_boundary(start(y));
    return place + after_boundary(start(0)) + y * cols;
  }

  // Starts to copy the rows to shared memory. The piece that a stretch begins in is read as a
  // whole: it lies in the same allocation. A stretch of several has 2^bits of the threads.
  __device__ __forceinline__ void fetch(TileThreads all, int bits, uint64_t policy) const {
    each_stretch(all, bits, [&](S* global, S* shared, int length, TileThreads threads) {
      const int after = after_boundary(global), step = threads.count * piece<S>;
      int left = after + length - threads.which * piece<S>;
      global += threads.which * piece<S> - after;
      shared += threads.which * piece<S>;
#pragma unroll 1
      for (; left >= piece<S>; left -= step, global += step, shared += step)
        copy_ahead(reinterpret_cast<Pack*>(shared), global, policy);
      if (left > 0)
        copy_ahead_some(reinterpret_cast<Pack*>(shared), global, left * int(sizeof(S)), policy);
    });
  }

  // Writes the rows to the tensor.
  __device__ __forceinline__ void leave(TileThreads all, int bits) const {
    each_stretch(all, bits, [&](S* global, S* shared, int length, TileThreads threads) {
      const int step = threads.count * piece<S>;
      int before = after_boundary(global) - threads.which * piece<S>, left = before + length;
      global -= before;
      shared += threads.which * piece<S>;
#pragma unroll 1
      for (; left > 0; before -= step, left -= step, global += step, shared += step) {
        if (before <= 0 && left >= piece<S>) {
          *reinterpret_cast<Pack*>(global) = *reinterpret_cast<const Pack*>(shared);
        } else {
#pragma unroll
          for (int v = 0; v < piece<S>; ++v)
            if (before <= v && v < left) global[v] = shared[v];
        }
      }
    });
  }

 private:
  // Calls f for each stretch that the thread has pieces of.
  template <class F>
  __device__ __forceinline__ void each_stretch(TileThreads all, int bits, F&& f) const {
    if (!gaps || rows == 1) return f(start(0), place, rows * cols, all);
    const int room = most_pieces<S>(cols) * piece<S>;
    const TileThreads some{all.which & ((1 << bits) - 1), 1 << bits};
    for (int y = all.which >> bits; y < rows; y += all.count >> bits)
      f(start(y), place + y * room, cols, some);
  }
};
template <class S, class Start>
RowTile(S*, int, int, bool, Start) -> RowTile<S, Start>;

}  // namespace fusegen
