// How an outer reduction assigns rows and columns to the threads of a block: some threads take
// neighbouring rows, others share the columns of a row. Plain C++: nothing here queries a device.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "fusegen/divisor.h"

namespace fusegen {

constexpr int outer_threads = 512;  // most threads of a block

// How many neighbouring rows a thread reads in one access, if the tensors allow it: 16 bytes of
// float and double, 8 of 16-bit types. Unpacked, these take as many registers as floats.
template <class S>
constexpr int outer_width() {
  return sizeof(S) == 8 ? 2 : 4;
}

// How many columns of `width` rows a thread keeps, if an element needs `bytes` of registers. It is
// a power of two, so that they fill up to half of the registers that a thread has if a
// multiprocessor holds `resident` blocks. Single rows fill only a quarter, because each column then
// needs an address and a test of its own. The limit is 64 bytes of memory: that is enough in flight
// per thread, and a wide store needs its registers side by side.
template <class S>
constexpr int outer_items(double bytes, int width, int resident) {
  const double most = (resident > 1 && sizeof(S) < 8 ? 128 : 256) / (width == 1 ? 2 : 1);
  int items = (width > 1 && sizeof(S) == 2 ? 32 : 16) / width;
  while (items > 1 && items * width * bytes > most) items /= 2;
  return items;
}

// What the choice of a plan depends on.
struct OuterNeeds {
  int64_t rows, cols, inner;
  int width;    // neighbouring rows per thread
  int items;    // columns of these rows that a thread can keep
  int tensors;  // how many are read for each element
  int size;     // bytes of an element in memory
  int threads;  // most threads of a block
};

// How blocks walk over tiles. A tile is the set of rows that a block works on at a time, which may
// be of several matrices [cols, inner].
struct OuterWalk {
  uint32_t tiles;
  Divisor inner;
};

// A block works on `lanes * width` neighbouring rows. Its `strands` share their columns: strand s
// has columns s, s + strands, …
struct OuterPlan {
  int width, items;  // as in OuterNeeds; if items is 0, each stage reads the rows again
  int lanes, strands;
  OuterWalk walk;
  size_t shared;           // shared memory of a block, in bytes
  unsigned grid;           // blocks, each of which walks over tiles
  int64_t groups, blocks;  // how many partial sums: one per block

  // Partial sums per channel of `run` columns that a block stores, and all of them.
  int64_t parts(int64_t run) const { return run; }
  int64_t runs(int64_t cols, int64_t) const { return groups * cols; }
  // How many channels' partial sums lie side by side.
  int64_t side_by_side(int64_t channels) const { return channels; }
};

// Chooses a plan. Of each column, a block reads 128 bytes if it can, and at least 32 if there are
// as many, because memory is read in pieces of 32. Fewer bytes of more columns allow longer rows to
// stay in registers. Where a matrix has fewer bytes of a column, a warp reads neighbouring columns
// too, so that it still has whole pieces.
inline OuterPlan choose_outer(const OuterNeeds& needs) {
  OuterPlan plan{};
  plan.width = needs.width;
  const int access = needs.width * needs.size;
  const int64_t accesses = needs.rows / needs.width, piece = needs.inner * needs.size;
  const int64_t columns = std::min((32 + piece - 1) / piece, needs.cols);  // that a warp has
  const auto grows = [&](int lanes) { return 2 * lanes * columns <= 32 && lanes < accesses; };
  const auto side_by_side = [&](int bytes) {
    int lanes = 1;
    while (grows(lanes) && lanes * access < bytes) lanes *= 2;
    return lanes;
  };
  const int64_t least = std::min<int64_t>(32, piece);
  int64_t strands = (needs.cols + needs.items - 1) / needs.items;
  for (int bytes = 128; bytes >= least && !plan.items; bytes /= 2) {
    plan.lanes = side_by_side(bytes);
    // Addresses of a thread's columns fit into 32 bits.
    const bool near = strands * needs.inner < INT32_MAX;
    if (near && plan.lanes * strands <= needs.threads) plan.items = needs.items;
  }
  if (plan.items) {
    while (grows(plan.lanes) && 2 * plan.lanes * strands <= std::min(128, needs.threads))
      plan.lanes *= 2;
  } else {
    // A block's rows must still be in the caches when it reads them again.
    constexpr int64_t cache = 128 * 1024;
    int bytes = 128;
    while (bytes > 32 && bytes * needs.cols * needs.tensors > cache) bytes /= 2;
    plan.lanes = side_by_side(bytes);
    strands = std::min<int64_t>(needs.cols, outer_threads / plan.lanes);
  }
  const int whole = 32 / plan.lanes;  // strands of a warp
  plan.strands = int(std::max<int64_t>(1, (strands + whole - 1) / whole) * whole);
  const int64_t tile = int64_t(plan.lanes) * plan.width;
  plan.walk.tiles = uint32_t((needs.rows + tile - 1) / tile);
  plan.walk.inner = Divisor(needs.inner);
  return plan;
}

}  // namespace fusegen
