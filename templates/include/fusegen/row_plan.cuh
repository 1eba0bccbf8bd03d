// How a kernel's rows are kept, what the choice depends on (choose_rows.cuh), and the grid.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "fusegen/chip.cuh"
#include "fusegen/launch.cuh"
#include "fusegen/resident_row.cuh"

namespace fusegen {

// Where a row is kept.
//   warp_tiles        with its neighbours in the shared memory of a warp, by single elements
//   block_tile        the same, but by itself, by a block
//   brief             in some lanes of a warp, one access per thread
//   warp              in one warp
//   block             in up to 512 threads
//   large_block       in up to 1024 threads
//   full_block        the same, but threads keep more of the row, and no sums of its columns
//   cluster,          in several blocks
//   large_cluster       of up to 512 threads, or up to 1024
//   staged            in the shared memory of a block; a multiprocessor holds two or three of them
//   staged_cluster    in the shared memory of several such blocks
//   ring              as much of it as fits in the shared memory of several whole multiprocessors,
//                       if its elements belong to channels
//   streamed_cluster  nowhere: a cluster streams the row
//   streamed          the same by one block, if the chip has no clusters
//   two_passes        the same, to reduce it; what its elements leave is computed column by column
enum class RowForm {
  warp_tiles,
  block_tile,
  brief,
  warp,
  block,
  large_block,
  full_block,
  cluster,
  large_cluster,
  staged,
  staged_cluster,
  ring,
  streamed_cluster,
  streamed,
  two_passes
};

// The most accesses per row if they are counted in 32 bits, with room for one more step.
constexpr int64_t most_accesses = int64_t(UINT32_MAX) - (1 << 20);

// Whether there are kernels that keep rows in shared memory.
template <class S, int V>
constexpr bool stages = V > 1 && sizeof(S) < 8;

// Threads of a multiprocessor whose rows are in shared memory, in two or three blocks together:
// each has 72 registers.
constexpr int staged_threads = 896;

// How the blocks of a cluster share a row that passes through rings of slots in shared memory.
struct RingWalk {
  int64_t stretch;  // columns of a block
  int steps;        // in which its threads take them
  int slots;        // of a thread's ring, each for one step
};

// How a warp, or a block, walks over its tile of rows.
struct TileWalk {
  int turns;  // its threads take the rows in so many turns
  int bytes;  // of shared memory for the tile
  int bits;   // 2^bits of its threads copy a row, if there are gaps between rows
  int items;  // elements of a row that a thread takes
};

// The columns of each of some blocks, if the row may begin between two accesses of `width`
// elements. A warp takes `span` columns in a step; no block ends within.
inline int64_t ring_stretch(int64_t cols, int width, int span, int blocks) {
  const int64_t spans = (cols + width - 1 + span - 1) / span;
  return (spans + blocks - 1) / blocks * span;
}
// The most warps of a cluster that have columns of one channel.
__host__ __device__ __forceinline__ int64_t parts_of_channel(int64_t run, int64_t stretch,
                                                             int warps) {
  return (run / stretch + 2) * warps;
}

// The chosen form of a row, and the launch that follows from it.
struct RowPlan {
  RowForm form;
  bool single;    // whether each team of threads takes one row and no other
  bool anywhere;  // whether rows may begin between two accesses of a resident row
  int width;      // elements of one access
  int cluster;    // blocks that keep one row
  RingWalk walk;  // of a ring
  TileWalk tile;  // of a tile
  dim3 threads;
  size_t shared;  // shared memory of a block, in bytes
  unsigned grid;  // blocks
  // How many partial sums: one per column from a group of rows, one in all from a block.
  int64_t groups, blocks;
  // Groups of sums by channel: one per row of threads, as its rows share a set of channels.
  int64_t channel_groups;

  // Whether rows are not kept as a whole. Sums of columns are then added up in memory.
  bool streams() const {
    return form == RowForm::streamed_cluster || form == RowForm::streamed || form == RowForm::ring;
  }
  // Rows that a block takes at a time.
  int64_t rows_at_once() const { return int64_t(threads.y) * std::max(tile.turns, 1); }
  // Partial sums per channel of `run` columns that a row of threads stores: one per block, or one
  // per warp that has some of these columns in its ring.
  int64_t parts(int64_t run) const {
    return streams() ? parts_of_channel(run, walk.stretch, int(threads.x) / 32) : cluster;
  }
  // How many channels' partial sums lie side by side.
  int64_t side_by_side(int64_t channels) const { return channels; }
  int64_t runs(int64_t cols, int64_t run) const {
    return run ? channel_groups * (cols / run) * parts(run) : 0;
  }
};

// How many waves of blocks to launch, if a kernel asks for `wanted`.
template <class S>
int waves(const RowPlan& plan, int wanted) {
  if (plan.single) return each_row;
  if (plan.form == RowForm::ring || plan.tile.turns) return 1;
  if (sizeof(S) != 4) return 1;
  return wanted == each_row ? 4 : wanted;
}

// What the choice depends on.
struct RowNeeds {
  int64_t rows, cols;
  int width;          // elements of one access
  int tensors;        // that are read, element by element
  bool keeps_long;    // whether there are kernels that keep rows too long for 512 threads
  bool tiles;         // short rows pass through tiles, and are not kept otherwise
  bool once;          // one stage reads the row, and no columns are summed
  bool reduces;       // something is reduced over each row
  bool staged;        // there is a kernel that keeps rows in shared memory
  bool single_block;  // a block of up to 512 threads takes one row alone
  bool single_warp;   // so does a warp
  int cluster;        // most blocks that share a row, up to 16
  int threads;        // most threads of a block
  int preferred;      // most threads of a block while a larger cluster can keep the row
  int items;          // accesses per thread in a block
  int large_items;    // in a large block
  int full_items;     // in a block that keeps as much as it can
  int warp_items;     // in a warp
  int cluster_items;  // in a cluster
  size_t ahead;       // shared memory for each access that a thread copies ahead
  size_t sums;        // for the sums of its columns, unless they are in registers
  size_t run_sums;    // for the sums by channel, always needed
  size_t lane_runs;   // the same if some lanes of a warp keep a row
  int live_sums;      // how many sums registers may hold for each column
  double bytes;       // bytes of registers that an element needs beside them
  // Accesses per thread whose sums stay in registers while rows are in shared memory; 0: any
  // number, with sums in shared memory too.
  int staged_items;
  int resident;       // blocks of 512 threads that a multiprocessor has registers for
  bool ring;          // whether rows too long for one block pass through rings
  int step;           // columns that a thread takes in one step of its ring
  size_t step_bytes;  // bytes of them, in all tensors

  // How many threads of each of some blocks a row takes, if each has up to `items` accesses.
  int64_t lanes(int64_t items, int64_t blocks) const {
    const int64_t columns = width * items * blocks;
    return (cols + columns - 1) / columns;
  }
};

// Sets the grid. Usually it has as many blocks as the chip holds at a time, and each walks over
// many rows. With `waves`, it has that many times more, so that late blocks go where there is room;
// or one block per row.
//
// `cycle` is for sums by channel, if rows take turns at that many sets of channels; 0 otherwise. A
// row of threads then always gets rows of the same set, and stores sums of its own.
//
// Returns whether the chip can hold the plan's blocks at all.
template <class Kernel>
bool place_rows(RowPlan& plan, Kernel* kernel, int64_t rows, int64_t waves, bool sums,
                int64_t cycle) {
  const int64_t needed = (rows + plan.rows_at_once() - 1) / plan.rows_at_once();
  int64_t teams = 0;
  if (plan.cluster > 1) {
    teams = resident_clusters(kernel, plan.threads, plan.shared, plan.cluster);
  } else {
    teams = resident_blocks(kernel, plan.threads, plan.shared);
  }
  if (teams == 0) return false;
  if (waves == each_row) {
    teams = std::max<int64_t>(1, needed);
  } else {
    teams *= std::clamp<int64_t>(needed / (4 * teams), 1, waves);  // at least four rows per team
  }
  if (sums) {  // each stores a row of partial sums: eight rows per team, if the chip stays busy
    teams = std::min(teams, std::max<int64_t>(chip().multiprocessors / plan.cluster, needed / 8));
  }
  teams = std::clamp<int64_t>(needed, 1, teams);
  if (cycle) {
    const int64_t turn = cycle / std::gcd(cycle, int64_t(plan.threads.y));
    teams = std::max<int64_t>(1, teams / turn) * turn;
    plan.channel_groups = teams * plan.threads.y;
  }
  plan.groups = teams;
  plan.grid = unsigned(teams * plan.cluster);
  plan.blocks = plan.grid;
  return true;
}

// Launches on a grid of clusters or of blocks.
template <class... Parameters, class... Arguments>
bool launch_rows(const RowPlan& plan, cudaStream_t stream, void (*kernel)(Parameters...),
                 Arguments... arguments) {
  return launch(kernel, stream, plan.grid, plan.threads, plan.shared, plan.cluster, arguments...) ==
         cudaSuccess;
}

}  // namespace fusegen
