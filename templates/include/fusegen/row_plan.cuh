// Which threads hold a row, chosen by its length: some lanes of a warp, a block, or a cluster of
// blocks. A row is read once and written once; one that no cluster can hold is streamed.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "fusegen/chip.cuh"
#include "fusegen/resident_row.cuh"
#include "fusegen/launch.cuh"

namespace fusegen {

// How a row is held: `brief`, one access a thread, by lanes of a warp; `warp`, by one warp;
// `block`, by up to 512 threads; `large_block`, by up to 1024; `full_block`, by such ones that hold
// more, but not the sums of their columns; `cluster` and `large_cluster`, by several blocks. Or,
// because it is too long, in shared memory: `staged`, by one of two or three blocks of a
// multiprocessor; `staged_cluster`, by several of them. Or streamed by a cluster, by one block
// where the chip has none.
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
  streamed_cluster,
  streamed
};

// Accesses that a row may have where they are counted in 32 bits, with room for a step beyond.
constexpr int64_t most_accesses = int64_t(UINT32_MAX) - (1 << 20);

// Whether there are kernels that keep rows in shared memory.
template <class S, int V>
constexpr bool stages = V > 1 && sizeof(S) < 8;

// Threads of a multiprocessor where its rows are in shared memory, of two blocks or of three: each
// has 72 registers.
constexpr int staged_threads = 896;

struct RowPlan {
  RowForm form;
  bool single;  // each team of threads takes one row and no other
  int width;    // elements of one access
  int cluster;  // blocks that hold a row
  int fold;     // neighbouring columns that share a sum by channel
  dim3 threads;
  size_t shared;           // bytes of a block
  unsigned grid;           // blocks
  int64_t groups, blocks;  // partial sums: a group of rows leaves one a column, a block one in all
  int64_t channel_groups;  // a row of threads leaves one a channel, since its rows are of one set

  bool streams() const { return form == RowForm::streamed_cluster || form == RowForm::streamed; }
  // Partial sums of each channel of `run` columns that a row of threads leaves: one a block, or one
  // for the columns that share it where they are added up in memory.
  int64_t parts(int64_t run) const { return streams() ? run / fold : cluster; }
  int64_t runs(int64_t cols, int64_t run) const {
    return run ? channel_groups * (cols / run) * parts(run) : 0;
  }
};

// Blocks for each place on the chip, where a kernel asks for `wanted`.
template <class S>
int waves(const RowPlan& plan, int wanted) {
  if (plan.single) return each_row;
  if (sizeof(S) != 4) return 1;
  return wanted == each_row ? 4 : wanted;
}

// What the choice depends on.
struct RowNeeds {
  int64_t rows, cols;
  int width;          // elements of one access
  int fold;           // as in RowPlan
  bool once;          // one pass over a row is all, and no columns are summed
  bool reduces;       // something of each row is reduced
  bool staged;        // there is a kernel that keeps rows in shared memory
  bool single_block;  // a block of up to 512 threads that holds a row takes it alone
  bool single_warp;   // so does a warp
  int cluster;        // blocks that may hold a row together, up to 16
  int threads;        // of a block, at most
  int preferred;      // of a block, at most, while a larger cluster can hold the row
  int items;          // accesses a thread holds where a block holds the row
  int large_items;    // where a large block does
  int full_items;     // where a block does that holds as much as it can
  int warp_items;     // where a warp does
  int cluster_items;  // where a cluster does
  size_t ahead;       // bytes of shared memory for each access that a thread copies ahead
  size_t sums;        // for the sums of its columns, where it has no registers for them
  size_t run_sums;    // for those by channel, which are there in any case
  int live_sums;      // how many of these registers may hold for each of its columns
  double bytes;       // of registers, for what an element holds beside them
  int staged_items;   // accesses of a thread whose sums it has in registers where it keeps rows in
                      // shared memory; 0: any number, sums in shared memory too
  int resident;       // blocks of 512 threads that a multiprocessor has registers for
};

// As many blocks a row as can be: the fewer rows are under way at a time, the more of them the L2
// cache still holds when the next pass reads them.
inline RowPlan stream_rows(const RowNeeds& needs, int cluster) {
  RowPlan plan{};
  plan.form = cluster > 1 ? RowForm::streamed_cluster : RowForm::streamed;
  plan.width = needs.width;
  plan.fold = needs.fold;
  plan.cluster = cluster;
  plan.threads = dim3(512);
  return plan;
}

inline RowPlan choose_rows(const RowNeeds& needs) {
  constexpr int block = 256;  // threads, where several rows share a block
  const auto per_thread = [&](int64_t items) { return needs.cols + needs.width * items - 1; };
  const auto lanes = [&](int64_t items, int64_t blocks) {
    return per_thread(items * blocks) / (needs.width * items * blocks);
  };
  RowPlan plan{};
  plan.width = needs.width;
  plan.fold = needs.fold;
  plan.cluster = 1;
  const auto several_rows = [&](RowForm form, int items, int lanes) {
    const size_t each = needs.ahead + needs.sums + needs.run_sums;
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
  // One block if it can be, even a large one: the blocks of a cluster wait for each other. Else
  // small blocks, of which a multiprocessor has two that hide each other's waiting.
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
  // A row that is read once anyway need not be held. Where it is reduced each thread gets many
  // accesses, which what is done once a row is spread over, as long as there are rows enough to
  // fill the chip; where there are too few for eight each, rows are shared out below.
  for (int accesses = needs.reduces ? 32 : 8; needs.once && accesses >= 8; accesses /= 2) {
    const int64_t threads = std::clamp<int64_t>(lanes(accesses, 1) / 32 * 32, 64, 512);
    if (needs.rows * threads >= int64_t(chip().multiprocessors) * 1024) {
      plan = stream_rows(needs, 1);
      plan.threads = dim3(unsigned(threads));
      return plan;
    }
  }
  const int most = chip().clusters ? std::min(needs.cluster, 16) : 1;
  const auto sums = [&](int threads, int blocks, int items) {
    const int elements = items * needs.width;
    const bool held = has_live_sums(threads, blocks, elements, needs.live_sums, needs.bytes);
    return (held ? 0 : needs.sums) + needs.run_sums;
  };
  const auto held = [&] {
    const int full = needs.threads, shared_out = needs.cluster_items;
    const auto block = [&](RowForm form, int items, int most, int resident) {
      return blocks(form, items, 1, most, sums(most, resident, items));
    };
    if (block(RowForm::block, needs.items, 512, needs.resident)) return true;
    if (block(RowForm::large_block, needs.large_items, full, 1)) return true;
    if (needs.full_items > needs.large_items &&
        block(RowForm::full_block, needs.full_items, full, 1))
      return true;
    for (int cluster = 2; cluster <= most; cluster *= 2) {
      const int threads = cluster == most ? 512 : needs.preferred;
      if (blocks(RowForm::cluster, shared_out, cluster, threads,
                 sums(512, needs.resident, shared_out)))
        return true;
    }
    return most > 1 &&
           blocks(RowForm::large_cluster, shared_out, most, full, sums(full, 1, shared_out));
  };
  // A multiprocessor has room for `each` blocks, of which one computes while another waits.
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
    const int resident_blocks = held() ? plan.cluster : 2 * most;
    // Half as many blocks wait for each other half as long, which is worth computing twice.
    for (int cluster = 1; needs.staged && 2 * cluster <= resident_blocks; cluster *= 2) {
      if (staged(cluster, 3) || staged(cluster, 2)) return plan;
    }
    if (resident_blocks <= most) return plan;
  }
  return stream_rows(needs, most);
}

// Sets the grid: as many blocks as the chip holds at a time, so that each walks over many rows;
// `waves` times as many, so that those that come late go where there is room; or one for each row.
// Where rows take turns at `cycle` sets of channels and are summed by channel, a row of threads
// always gets rows of the same set, and leaves sums of its own; 0 where they are not.
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
    teams *= std::clamp<int64_t>(needed / (4 * teams), 1, waves);  // four rows each at least
  }
  if (sums) {  // each leaves a row of partial sums: eight rows each, if the chip stays busy
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
