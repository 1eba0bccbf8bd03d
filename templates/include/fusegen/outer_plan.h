// How a block has rows whose columns lie apart in memory and that lie side by side themselves:
// which threads stand side by side, and which share the columns. Plain C++: nothing here asks a
// device.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace fusegen {

constexpr int outer_threads = 512;  // of a block at most

// Neighbouring rows that a thread reads in one access where it may: 16 bytes of floats and doubles,
// 8 of 16-bit types, which take as many registers as floats once they are unpacked.
template <class S>
constexpr int outer_width() {
  return sizeof(S) == 8 ? 2 : 4;
}

// Columns that a thread holds of `width` rows, where an element needs `bytes` of registers: a power
// of two, so that they take half of those that a thread has where a multiprocessor has `resident`
// blocks; a quarter of single rows, where each column needs an address and a test of its own. Not
// more than 64 bytes of memory: so many are under way for each thread, and a wide store needs its
// registers side by side.
template <class S>
constexpr int outer_items(double bytes, int width, int resident) {
  const double most = (resident > 1 && sizeof(S) < 8 ? 128 : 256) / (width == 1 ? 2 : 1);
  int items = (width > 1 && sizeof(S) == 2 ? 32 : 16) / width;
  while (items > 1 && items * width * bytes > most) items /= 2;
  return items;
}

struct OuterNeeds {
  int64_t rows, cols, inner;
  int width;    // neighbouring rows of a thread
  int items;    // columns that a thread can hold of them
  int tensors;  // read for each element
  int size;     // bytes of an element in memory
  int threads;  // of a block, at most
};

// What blocks walk over, from tile to tile: a tile is what a block has of rows at a time.
struct OuterWalk {
  int64_t matrices;           // [cols, inner] each
  uint32_t tiles;             // of a matrix
  uint32_t matrices_further;  // from a block's tile to its next, and
  uint32_t tiles_further;     // so many more, which may be in the matrix after
};

// A block has `lanes * width` neighbouring rows. Its `strands` share their columns: strand s has
// columns s, s + strands, …
struct OuterPlan {
  int width, items;  // as in OuterNeeds; no items: each stage reads the rows again
  int lanes, strands;
  OuterWalk walk;
  size_t shared;           // bytes of a block
  unsigned grid;           // blocks, each of which walks over tiles
  int64_t groups, blocks;  // partial sums: one a block

  // Partial sums of each channel of `run` columns that a block leaves, and all of them.
  int64_t parts(int64_t run) const { return run; }
  int64_t runs(int64_t cols, int64_t) const { return groups * cols; }
};

// Of each column a block reads 128 bytes in a row if it can, 32 at least, or all that there are:
// memory is read in pieces of 32. Fewer bytes of more columns is what holds longer rows.
inline OuterPlan choose_outer(const OuterNeeds& needs) {
  OuterPlan plan{};
  plan.width = needs.width;
  const int access = needs.width * needs.size;
  const int64_t accesses = (needs.inner + needs.width - 1) / needs.width;
  const auto side_by_side = [&](int bytes) {
    int lanes = 1;
    while (lanes < 32 && lanes < accesses && lanes * access < bytes) lanes *= 2;
    return lanes;
  };
  int64_t strands = (needs.cols + needs.items - 1) / needs.items;
  for (int bytes = 128; bytes >= 32 && !plan.items; bytes /= 2) {
    plan.lanes = side_by_side(bytes);
    const bool near = strands * needs.inner < INT32_MAX;  // a thread's columns, for its addresses
    if (near && plan.lanes * strands <= needs.threads) plan.items = needs.items;
  }
  if (plan.items) {
    while (plan.lanes < 32 && plan.lanes < accesses &&
           2 * plan.lanes * strands <= std::min(128, needs.threads)) {
      plan.lanes *= 2;
    }
  } else {
    // What a block reads again is to be in the caches still.
    constexpr int64_t cache = 128 * 1024;
    int bytes = 128;
    while (bytes > 32 && bytes * needs.cols * needs.tensors > cache) bytes /= 2;
    plan.lanes = side_by_side(bytes);
    strands = std::min<int64_t>(needs.cols, outer_threads / plan.lanes);
  }
  const int whole = 32 / plan.lanes;  // strands of a warp
  plan.strands = int(std::max<int64_t>(1, (strands + whole - 1) / whole) * whole);
  const int64_t tile = int64_t(plan.lanes) * plan.width;
  plan.walk.matrices = needs.rows / needs.inner;
  plan.walk.tiles = uint32_t((needs.inner + tile - 1) / tile);
  return plan;
}

}  // namespace fusegen
