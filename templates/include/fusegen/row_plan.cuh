// Chooses the threads that keep a row, by its length: some lanes of a warp, a block, or a cluster
// of blocks. A resident row is read once and written once. A row too long for any cluster is
// streamed.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "fusegen/chip.cuh"
#include "fusegen/resident_row.cuh"
#include "fusegen/launch.cuh"

namespace fusegen {

// Where a row is kept.
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
enum class RowForm {
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
  streamed
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
  int width;      // elements of one access
  int cluster;    // blocks that keep one row
  RingWalk walk;  // of a ring
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
  // Partial sums per channel of `run` columns that a row of threads stores: one per block, or one
  // per warp that has some of these columns in its ring.
  int64_t parts(int64_t run) const {
    return streams() ? parts_of_channel(run, walk.stretch, int(threads.x) / 32) : cluster;
  }
  int64_t runs(int64_t cols, int64_t run) const {
    return run ? channel_groups * (cols / run) * parts(run) : 0;
  }
};

// How many waves of blocks to launch, if a kernel asks for `wanted`.
template <class S>
int waves(const RowPlan& plan, int wanted) {
  if (plan.single) return each_row;
  if (plan.form == RowForm::ring) return 1;
  if (sizeof(S) != 4) return 1;
  return wanted == each_row ? 4 : wanted;
}

// What the choice depends on.
struct RowNeeds {
  int64_t rows, cols;
  int width;          // elements of one access
  bool keeps_long;    // whether there are kernels that keep rows too long for 512 threads
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
};

// Streams rows. Each row gets as many blocks as possible: the fewer rows are in flight at a time,
// the more of them the L2 cache still holds when the next stage reads them. Where a resident form
// would keep rows of another width, these may be short: then each thread gets four accesses, if
// there are enough rows to fill the chip.
inline RowPlan stream_rows(const RowNeeds& needs, int cluster) {
  RowPlan plan{};
  const auto shorter = [&] { return needs.cols < int64_t(cluster) * 512 * 4 * needs.width; };
  while (!needs.keeps_long && cluster > 1 && shorter() &&
         needs.rows * cluster >= 4 * int64_t(chip().multiprocessors)) {
    cluster /= 2;
  }
  plan.form = cluster > 1 ? RowForm::streamed_cluster : RowForm::streamed;
  plan.width = needs.width;
  plan.cluster = cluster;
  plan.threads = dim3(512);
  return plan;
}

// The most blocks that share a row.
inline int most_blocks(const RowNeeds& needs) {
  return chip().clusters ? std::min(needs.cluster, 16) : 1;
}

// Lets rows pass through rings. If no more than eight blocks can hold half of a row, it gets as few
// of them as can: what is held is not read again. A longer row gets one block, because the others
// would have to wait for each other. Few rows get as many blocks as fill the chip.
inline RowPlan choose_ring(const RowNeeds& needs) {
  RowPlan plan{};
  const size_t room = size_t(chip().shared_bytes) - 3072;
  const int most = most_blocks(needs);
  int threads = 512 * std::clamp(needs.resident, 1, 2);
  plan.form = RowForm::ring;
  plan.width = needs.width;
  RingWalk& walk = plan.walk;
  const auto spread = [&](int blocks) {
    plan.cluster = blocks;
    walk.stretch = ring_stretch(needs.cols, needs.width, 32 * needs.step, blocks);
    const int64_t across = int64_t(threads) * needs.step;
    walk.steps = int((walk.stretch + across - 1) / across);
    const size_t slot = std::max<size_t>(threads * needs.step_bytes, 1);
    walk.slots = int(std::min<size_t>(room / slot, size_t(walk.steps)));
    plan.shared = walk.slots * slot;
  };
  spread(1);
  while ((threads > 256 && walk.steps == 1) || (threads > 32 && walk.slots == 0)) {
    threads /= 2;
    spread(1);
  }
  const auto holds_half = [&] { return 2 * walk.slots >= walk.steps; };
  while (plan.cluster < std::min(most, 8) && !holds_half()) spread(2 * plan.cluster);
  if (!holds_half()) spread(1);
  const auto too_long = [&] { return walk.stretch > INT32_MAX / 2; };  // for offsets of 32 bits
  const auto fills = [&] { return needs.rows * plan.cluster >= chip().multiprocessors; };
  while (plan.cluster < most && ((!fills() && walk.steps > 1) || too_long()))
    spread(2 * plan.cluster);
  plan.threads = dim3(unsigned(threads));
  if (too_long()) plan.shared = INT32_MAX;  // more than any chip has: the launch fails
  return plan;
}

// Whether a row that is read only once is best streamed by one block, and how: it need not be kept.
// If it is reduced, each thread gets many accesses, which amortizes the work per row, as long as
// there are enough rows to fill the chip. If there are too few for eight accesses each, blocks
// share rows.
inline bool stream_once(const RowNeeds& needs, RowPlan& plan) {
  for (int accesses = needs.reduces ? 32 : 8; needs.once && accesses >= 8; accesses /= 2) {
    const int64_t each = needs.width * accesses, lanes = (needs.cols + each - 1) / each;
    const int64_t threads = std::clamp<int64_t>(lanes / 32 * 32, 64, 512);
    if (needs.rows * threads >= int64_t(chip().multiprocessors) * 1024) {
      plan = stream_rows(needs, 1);
      plan.threads = dim3(unsigned(threads));
      return true;
    }
  }
  return false;
}

// Chooses the form of a row, the shortest rows first.
inline RowPlan choose_rows(const RowNeeds& needs) {
  constexpr int block = 256;  // threads, if several rows share a block
  const auto per_thread = [&](int64_t items) { return needs.cols + needs.width * items - 1; };
  const auto lanes = [&](int64_t items, int64_t blocks) {
    return per_thread(items * blocks) / (needs.width * items * blocks);
  };
  RowPlan plan{};
  plan.width = needs.width;
  plan.cluster = 1;
  const auto several_rows = [&](RowForm form, int items, int lanes) {
    const size_t each = needs.ahead + needs.sums + needs.lane_runs;
    plan.form = form;
    plan.single = needs.single_warp;
    plan.threads = dim3(unsigned(lanes), unsigned(block / lanes));
    plan.shared = plan.single ? 0 : each * size_t(items) * block;
    return plan;
  };
  if (needs.rows <= INT32_MAX && lanes(1, 1) <= 32) {
    int across = 1;
    while (across < lanes(1, 1)) across *= 2;
    return several_rows(RowForm::brief, 1, across);
  }
  if (needs.rows <= INT32_MAX && lanes(needs.warp_items, 1) <= 32)
    return several_rows(RowForm::warp, needs.warp_items, 32);
  // Prefer one block, even a large one: the blocks of a cluster wait for each other. Otherwise
  // prefer small blocks: a multiprocessor holds two that hide each other's latency.
  const auto blocks = [&](RowForm form, int items, int cluster, int most, size_t sums) {
    const int64_t threads = (lanes(items, cluster) + 31) / 32 * 32;
    const bool single = form == RowForm::block && needs.single_block;
    const size_t ahead = single ? 0 : needs.ahead;
    const size_t shared = (ahead + sums) * size_t(items) * size_t(threads);
    if (threads > most || int64_t(shared) > chip().shared_bytes - 3072) return false;
    plan.form = form;
    plan.single = single;
    plan.cluster = cluster;
    plan.threads = dim3(unsigned(threads));
    plan.shared = shared;
    return true;
  };
  if (stream_once(needs, plan)) return plan;
  const int most = most_blocks(needs);
  const auto sums = [&](int threads, int blocks, int items) {
    const int elements = items * needs.width;
    const bool live = has_live_sums(threads, blocks, elements, needs.live_sums, needs.bytes);
    return (live ? 0 : needs.sums) + needs.run_sums;
  };
  const auto is_resident = [&] {
    const int full = needs.threads, shared_out = needs.cluster_items;
    const auto block = [&](RowForm form, int items, int most, int resident) {
      return blocks(form, items, 1, most, sums(most, resident, items));
    };
    if (block(RowForm::block, needs.items, 512, needs.resident)) return true;
    if (!needs.keeps_long) return false;
    if (block(RowForm::large_block, needs.large_items, full, 1)) return true;
    if (needs.full_items > needs.large_items &&
        block(RowForm::full_block, needs.full_items, full, 1))
      return true;
    if (needs.ring) return false;
    for (int cluster = 2; cluster <= most; cluster *= 2) {
      const int threads = cluster == most ? 512 : needs.preferred;
      if (blocks(RowForm::cluster, shared_out, cluster, threads,
                 sums(512, needs.resident, shared_out)))
        return true;
    }
    return most > 1 &&
           blocks(RowForm::large_cluster, shared_out, most, full, sums(full, 1, shared_out));
  };
  // A multiprocessor holds `each` blocks: one computes while another waits.
  const auto staged = [&](int cluster, int each) {
    const int64_t items = lanes(staged_threads / each / 32 * 32, cluster);
    const int64_t threads = (lanes(items, cluster) + 31) / 32 * 32;
    const size_t sums = needs.staged_items ? 0 : needs.sums + needs.run_sums;
    const size_t shared = (needs.ahead + sums) * size_t(items) * size_t(threads);
    if (each * (int64_t(shared) + 3072) > chip().shared_bytes) return false;
    if (needs.staged_items && items > needs.staged_items) return false;
    plan.form = cluster > 1 ? RowForm::staged_cluster : RowForm::staged;
    plan.single = false;
    plan.cluster = cluster;
    plan.threads = dim3(unsigned(threads));
    plan.shared = shared;
    return true;
  };
  if (needs.rows <= INT32_MAX) {
    const int holding_blocks = is_resident() ? plan.cluster : 2 * most;
    // Half as many blocks wait for each other half as long, which pays for computing values twice.
    for (int cluster = 1; needs.staged && 2 * cluster <= holding_blocks; cluster *= 2) {
      if (staged(cluster, 3) || staged(cluster, 2)) return plan;
    }
    if (holding_blocks <= most) return plan;
  }
  return needs.ring ? choose_ring(needs) : stream_rows(needs, most);
}

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
  const int64_t needed = (rows + plan.threads.y - 1) / plan.threads.y;
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
