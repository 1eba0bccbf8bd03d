// Which rows pass through tiles on the GPU, and how (gpu_tiled.cuh).
#pragma once

#include "fusegen/forms/gpu_parts.cuh"
#include "fusegen/row_plan.cuh"
#include "fusegen/row_tile.cuh"

namespace fusegen {
namespace {

// The tensors of a tile: what it reads, then what it writes.
template <class P>
using TileTensors = decltype(typename P::Fulls{} + typename P::Stores{});

// The elements of shared memory that an item's part of a tile takes, at most.
template <class Item, class S, class Args>
__host__ __device__ __forceinline__ int part_room(const Args& args, int rows) {
  if constexpr (has_gap<Item>) {
    if ((args.*Item::gap).extra[0] != 0) return tile_room<S>(rows, int(args.cols), true);
  }
  return tile_room<S>(rows, int(args.cols), false);
}

// The choice, for a kernel with description D and launch L.
// BEGINS_ANYWHERE: rows too long for a warp are kept in registers, wherever they begin.
template <class D, class L, class S, bool BEGINS_ANYWHERE>
struct TilePlan {
  using P = GpuParts<D, S>;
  using Args = typename P::Args;

  // How many elements belong together: those of 16 bytes of what is computed.
  static constexpr int width = 16 / int(sizeof(typename P::T));
  // The most elements of a row that a thread takes: as many as it has registers for, with their
  // computed values and their sums of columns.
  template <class... Betweens>
  static constexpr int items_for(List<Betweens...>) {
    int most = 0;
    ((most = std::max(most, Betweens::computed)), ...);
    const int each = most + P::ColSums::size;
    return each <= 1 ? 8 : each <= 2 ? 6 : each <= 4 ? 4 : each <= 6 ? 2 : 1;
  }
  static constexpr int items = items_for(typename L::between{}), elements = items * width - 1;

  // Bytes of shared memory for a tile of so many rows, and for the next tile's inputs.
  static int bytes(const Args& args, int rows) {
    int count = 0;
    each(typename P::Fulls{},
         [&](auto item, auto) { count += 2 * part_room<decltype(item), S>(args, rows); });
    each(typename P::Stores{},
         [&](auto item, auto) { count += part_room<decltype(item), S>(args, rows); });
    return count * int(sizeof(S));
  }
  // Whether rows of less than 32 bytes have gaps before each: then they are better read one by one.
  static bool scattered(const Args& args) {
    if (args.cols * int(sizeof(S)) >= 32) return false;
    bool found = false;
    each(TileTensors<P>{}, [&](auto item, auto) {
      using Item = decltype(item);
      if constexpr (has_gap<Item>) {
        const Gap& gap = args.*Item::gap;
        found = found || (gap.extra[0] != 0 && gap.runs(0, 1) == 1);
      }
    });
    return found;
  }

  // Whether a block may take a row by itself. What is read once is rather streamed.
  static constexpr bool by_block = !BEGINS_ANYWHERE && (!L::reads_once || P::ColSums::size > 0);

  // Plans tiles for a call, if its rows fit.
  static bool choose(const Args& args, RowPlan& plan) {
    const int64_t room = chip().shared_bytes - 3072;
    plan = {};
    plan.width = plan.cluster = 1;
    if (args.rows > INT32_MAX || args.cols > (by_block ? 512 : 32) * elements || scattered(args))
      return false;
    const int cols = std::max(int(args.cols), 1);
    // Columns of a thread. The number is odd: the threads of a warp then read different banks of
    // shared memory.
    const auto taken = [&](int lanes) {
      const int least = (cols + lanes - 1) / lanes;
      return (least + width) / width * width - 1;
    };
    if (cols > 32 * elements) {
      plan.form = RowForm::block_tile;
      plan.threads = dim3(unsigned((cols + 32 * elements - 1) / (32 * elements) * 32));
      plan.tile = {1, bytes(args, 1), 0, taken(int(plan.threads.x))};
      plan.shared = size_t(plan.tile.bytes);
      return int64_t(plan.shared) <= room;
    }
    plan.form = RowForm::warp_tiles;
    int lanes = 1, turns = 1, warps = 8, bits = 0;
    while (lanes * elements < cols) lanes *= 2;
    while (bits < 5 && 1 << bits < most_pieces<S>(cols)) ++bits;
    const int across = 32 / lanes;
    const auto fills = [&](int turns) {
      return args.rows >= int64_t(across) * turns * 32 * chip().multiprocessors;
    };
    while (turns < 8 && bytes(args, 2 * turns * across) <= 8192 && fills(2 * turns)) turns *= 2;
    const int each = bytes(args, turns * across);
    while (warps > 1 && int64_t(warps) * each > room) warps /= 2;
    plan.tile = {turns, each, bits, taken(lanes)};
    plan.threads = dim3(unsigned(lanes), unsigned(warps * across));
    plan.shared = size_t(warps) * each;
    if (P::ColSums::size > 0)
      plan.shared = std::max(plan.shared, warps * cols * sizeof(typename P::T));
    return int64_t(plan.shared) <= room;
  }
};

}  // namespace
}  // namespace fusegen
