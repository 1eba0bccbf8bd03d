// Rows as a whole, on the GPU: kernels that reduce each row, or whose elements belong to channels.
//
// The plan of a call chooses how a row is kept by its length (choose_rows.cuh): in registers, in
// shared memory, in part, or not at all. Each of these forms has a header of its own.
#pragma once

#include "fusegen/forms/gpu_resident.cuh"
#include "fusegen/forms/gpu_ring.cuh"
#include "fusegen/forms/gpu_single.cuh"
#include "fusegen/forms/gpu_staged.cuh"
#include "fusegen/forms/gpu_streamed.cuh"
#include "fusegen/forms/gpu_tiled.cuh"
#include "fusegen/forms/gpu_two_passes.cuh"

namespace fusegen {
namespace {

// The compiled kernels for accesses of V elements. ANYWHERE: rows may begin between two accesses,
// and end within one (anywhere.cuh).
template <class D, class L, class S, int V, bool ANYWHERE = false>
struct RowKernels {
  using P = GpuParts<D, S>;
  using Resident = ResidentRow<L>;
  // Whether there are kernels for such rows. Channels are found for whole vectors. In 32 bits tiles
  // are faster, but for long rows with operands of columns.
  static constexpr bool begins_anywhere =
      P::RunSums::size + P::Spreads::size == 0 && !P::alternating &&
      (sizeof(S) == 2 || (sizeof(S) == 4 && P::Cols::size > 0 && P::ColSums::size == 0));
  // Whether there are kernels that keep rows too long for 512 threads. Single elements are streamed
  // instead, in wide accesses if possible, unless columns are summed.
  using InTwoPasses = TwoPasses<D, L, S>;
  static constexpr bool keeps_long =
      V > 1 || (P::ColSums::size > 0 && !InTwoPasses::serves_width(V));
  // Whether short rows pass through tiles, by single elements. Sums by channel are not for tiles,
  // nor are columns that alternate.
  static constexpr bool tiles = V == 1 && P::RunSums::size == 0 && !P::alternating;
  // Accesses per thread of a warp. Channels take registers, so there are no more than in a block.
  static constexpr int warp_items =
      has_channels<P> ? Resident::template items<S, V>() : Resident::template warp_items<S, V>();

  // The threads of a full block, and how many blocks of 512 a multiprocessor has registers for.
  // What puts vectors together needs some more of them.
  static constexpr int full = std::min(Resident::template threads<S, V>(), ANYWHERE ? 512 : 1024);
  static constexpr int with_room(int blocks) { return ANYWHERE ? std::max(1, blocks - 1) : blocks; }
  static constexpr int blocks = with_room(Resident::template blocks<S, V>());

  // A row in some lanes of a warp.
  template <int ITEMS>
  static constexpr auto by_warp() {
    if constexpr (L::rows_apart)
      return single<D, L, S, V, ITEMS, 256, 1, Holders::lanes, ANYWHERE>;
    else
      return resident<D, L, S, V, ITEMS, 256, 1, Holders::lanes, ANYWHERE>;
  }

  // Calls f with the kernel that a plan chose.
  template <class F>
  static bool visit(const RowPlan& plan, F&& f) {
    constexpr int items = Resident::template block_items<S, V>();
    constexpr int large_items = Resident::template large_items<S, V>();
    constexpr int most_items = Resident::template items<S, V>();
    constexpr int cluster_items = Resident::template cluster_items<S, V>();
    constexpr bool keeps_rows = L::staged && stages<S, V> && !ANYWHERE;
    using Tiles = TilePlan<D, L, S, begins_anywhere>;
    switch (plan.form) {
      case RowForm::warp_tiles:
        if constexpr (tiles)
          return f(tiled<D, L, S, Tiles::width, Tiles::items, 256, 2, Holders::lanes>);
        break;
      case RowForm::block_tile:
        if constexpr (tiles && !begins_anywhere)
          return f(tiled<D, L, S, Tiles::width, Tiles::items, 512, 1, Holders::block>);
        break;
      case RowForm::brief:
        return f(by_warp<1>());
      case RowForm::warp:
        if constexpr (!tiles) return f(by_warp<warp_items>());
        break;
      case RowForm::block:
        if constexpr (tiles) {
          break;
        } else if constexpr (L::rows_apart && Resident::template single<S, V>()) {
          constexpr int resident_blocks = with_room(Resident::template single_blocks<S, V>());
          return f(single<D, L, S, V, items, 512, resident_blocks, Holders::block, ANYWHERE>);
        } else {
          return f(resident<D, L, S, V, items, 512, blocks, Holders::block, ANYWHERE>);
        }
      case RowForm::large_block:
        if constexpr (keeps_long && !tiles)
          return f(resident<D, L, S, V, large_items, full, 1, Holders::block, ANYWHERE>);
        break;
      case RowForm::full_block:
        if constexpr (keeps_long && !tiles && L::sums > 0 && most_items > large_items)
          return f(resident<D, L, S, V, most_items, full, 1, Holders::block, ANYWHERE>);
        break;
      case RowForm::cluster:
        if constexpr (keeps_long && !has_channels<P> && !ANYWHERE)
          return f(resident<D, L, S, V, cluster_items, 512, blocks, Holders::cluster>);
        break;
      case RowForm::large_cluster:
        if constexpr (keeps_long && !tiles && !has_channels<P> && !ANYWHERE)
          return f(resident<D, L, S, V, cluster_items, full, 1, Holders::cluster>);
        break;
      case RowForm::staged:
        if constexpr (keeps_rows) return f(staged<D, L, S, V, Holders::block>);
        break;
      case RowForm::staged_cluster:
        if constexpr (keeps_rows) return f(staged<D, L, S, V, Holders::cluster>);
        break;
      case RowForm::streamed_cluster:
        if constexpr (!has_channels<P> && !InTwoPasses::serves_width(V) && !ANYWHERE)
          return f(streamed<D, L, S, V, blocks, Holders::cluster>);
        break;
      default:
        break;
    }
    // One block that streams a row is a cluster of one. Only where many rows are streamed that way
    // is it worth a kernel of its own.
    constexpr auto by_block = L::reads_once ? Holders::block : Holders::cluster;
    constexpr int ring_blocks = blocks < 2 ? 1 : 2;
    if constexpr (ANYWHERE)
      return false;
    else if constexpr (has_channels<P>)
      return f(ring<D, L, S, V, ring_blocks>);
    else if constexpr (!InTwoPasses::serves_width(V))
      return f(streamed<D, L, S, V, blocks, by_block>);
    else
      return false;  // no kernel streams such rows
  }
};

template <class D, class L, class S>
struct Rows {
  using Args = typename D::Args;
  using P = GpuParts<D, S>;
  using T = typename P::T;
  static constexpr int wide = 16 / sizeof(S);

  // The plan for a call: the form of its rows, and the grid.
  static RowPlan plan_of(const Args& args) {
    if (counts_accesses(args) && P::vectorisable(args, wide)) return sized<wide>(args);
    if constexpr (begins_anywhere) {
      if (begins_rather_anywhere(args.cols)) {
        const RowPlan plan = sized<wide, true>(args);
        if (!plan.streams()) return plan;
      }
    }
    return sized<1>(args);
  }
  static constexpr bool begins_anywhere = RowKernels<D, L, S, 1>::begins_anywhere;
  // Whether a row that accesses do not divide is better kept in registers than in a tile: if it is
  // too long for a warp's tile; and in 16 bits if tiles would read operands of many columns, one by
  // one, or if their rows would lie in the same banks of shared memory.
  static bool begins_rather_anywhere(int64_t cols) {
    constexpr bool has_columns = P::Cols::size + P::ColSums::size > 0;
    if (cols > 32 * TilePlan<D, L, S, begins_anywhere>::elements) return cols <= INT32_MAX;
    return sizeof(S) == 2 && ((has_columns && cols >= 200) || (cols >= 64 && cols % 64 == 0));
  }
  static bool counts_accesses(const Args& args) { return args.cols / wide <= most_accesses; }

  // The plan for accesses of V elements. If the row is `odd`, it is streamed. So is a row of single
  // elements that would be streamed anyway, if all tensors allow it.
  template <int V, bool ANYWHERE = false>
  static RowPlan sized(const Args& args, bool odd = false) {
    using Resident = ResidentRow<L>;
    using Kernels = RowKernels<D, L, S, V, ANYWHERE>;
    RowNeeds needs{};
    int64_t cycle = 0;
    needs.rows = args.rows;
    needs.cols = reads_elements(StagesOf<D>{}) ? args.cols : 1;
    needs.width = V;
    needs.tensors = P::Fulls::size;
    needs.keeps_long = Kernels::keeps_long && !odd;
    bool staged = L::staged && stages<S, V> && !ANYWHERE;
    int fold = 1;
    if constexpr (has_channels<P>) staged = staged && run_length<P>(args) % V == 0;
    if constexpr (P::RunSums::size > 0) {
      fold = RunSums<T, V>::shared_by(run_length<P>(args));
      cycle = cycle_of<P>(args);
    }
    needs.once = L::reads_once;
    needs.reduces = L::reduces;
    needs.single_block = Resident::template single<S, V>();
    needs.single_warp = L::rows_apart;
    needs.staged = staged;
    needs.threads = Kernels::full;
    needs.cluster = ANYWHERE ? 1 : L::cluster;
    needs.preferred = std::min(L::threads, 512);
    needs.warp_items = Kernels::warp_items;
    needs.cluster_items = Resident::template cluster_items<S, V>();
    needs.items = Resident::template block_items<S, V>();
    needs.large_items = Resident::template large_items<S, V>();
    needs.full_items = Resident::template items<S, V>();
    needs.ahead = V * sizeof(S) == 16 && !ANYWHERE ? 16 * P::Fulls::size : 0;
    if constexpr (P::ColumnSums::size > 0) {
      needs.sums = sizeof(T) * V * P::ColSums::size;
      needs.run_sums = sizeof(T) * (V / fold) * P::RunSums::size;
      needs.lane_runs = sizeof(T) * V * P::RunSums::size;
      needs.live_sums = L::sums;
      needs.bytes = live_bytes<S>(typename L::between{});
      needs.staged_items = L::staged_items;
    }
    needs.resident = Kernels::blocks;
    needs.ring = has_channels<P>;
    needs.step = ring_accesses<P, V, Resident::template blocks<S, V>()> * V;
    needs.step_bytes = needs.step * P::Fulls::size * sizeof(S);
    needs.tiles = Kernels::tiles;
    RowPlan plan;
    const auto choose = [&] {
      if (needs.tiles && TilePlan<D, L, S, begins_anywhere>::choose(args, plan)) return;
      if (!odd)
        plan = choose_rows(needs);
      else if (needs.ring)
        plan = choose_ring(needs);
      else if (!stream_once(needs, plan))
        plan = stream_rows(needs, most_blocks(needs));
    };
    choose();
    plan.anywhere = ANYWHERE;
    if constexpr (V == 1 && P::template has_edges<wide>) {
      if (plan.streams() && counts_accesses(args) && P::template vectorisable<true>(args, wide))
        return sized<wide>(args, true);
    }
    const auto place = [&](auto* kernel) {
      return place_rows(plan, kernel, args.rows, waves<S>(plan, L::waves), P::ColumnSums::size > 0,
                        cycle);
    };
    const auto in_two_passes = [&] {
      return TwoPasses<D, L, S>::serves_width(V) && plan.streams();
    };
    const auto is_other = [&] { return ANYWHERE && plan.streams(); };  // not of these kernels
    while (!is_other() && !in_two_passes() && !Kernels::visit(plan, place)) {
      // The chip cannot hold the cluster.
      const int blocks = plan.streams() ? plan.cluster / 2 : plan.cluster;
      needs.cluster = std::max(blocks, 1);
      plan = needs.ring ? choose_ring(needs) : stream_rows(needs, needs.cluster);
    }
    if (in_two_passes()) plan.form = RowForm::two_passes;
    return plan;
  }

  static int64_t workspace(const Args& args) {
    if constexpr (TwoPasses<D, L, S>::serves) {
      if (plan_of(args).form == RowForm::two_passes) return TwoPasses<D, L, S>::workspace(args);
    }
    if constexpr (P::Partials::size == 0) return 0;
    return scratch_bytes<D, S>(args, plan_of(args));
  }

  static void run(const Args& args, void* workspace, cudaStream_t stream) {
    const RowPlan plan = plan_of(args);
    if constexpr (TwoPasses<D, L, S>::serves) {
      if (plan.form == RowForm::two_passes) return TwoPasses<D, L, S>::run(args, workspace, stream);
    }
    const auto partial = place_partials<D, S>(args, plan, workspace);
    if (plan.streams()) {
      each(typename P::ColumnSums{}, [&](auto item, auto n) {
        using Item = decltype(item);
        int64_t count = plan.groups * args.cols;
        if constexpr (Item::role == Role::run_sum)
          count = plan.runs(args.cols, run_of<D, Item>(args));
        cudaMemsetAsync(partial[n], 0, sizeof(T) * count, stream);
      });
    }
    const uint64_t policy = read_policy(args.rows * args.cols * int64_t(sizeof(S)));
    const auto start = [&](auto* kernel) {
      using Ring = void (*)(Args, uint64_t, RingWalk, typename P::Partial);
      using Tiled = void (*)(Args, uint64_t, TileWalk, typename P::Partial);
      if constexpr (std::is_same_v<decltype(kernel), Ring>)
        return launch_rows(plan, stream, kernel, args, policy, plan.walk, partial);
      else if constexpr (std::is_same_v<decltype(kernel), Tiled>)
        return launch_rows(plan, stream, kernel, args, policy, plan.tile, partial);
      else
        return launch_rows(plan, stream, kernel, args, policy, partial);
    };
    if (plan.width == 1)
      RowKernels<D, L, S, 1>::visit(plan, start);
    else if (begins_anywhere && plan.anywhere)
      RowKernels<D, L, S, wide, begins_anywhere>::visit(plan, start);
    else
      RowKernels<D, L, S, wide>::visit(plan, start);
    add_up<D, S>(args, plan, partial, stream);
  }
};

}  // namespace
}  // namespace fusegen
