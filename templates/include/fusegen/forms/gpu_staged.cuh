// A row in the shared memory of a team of threads, on the GPU, because too few registers could hold
// it.
//
// Each stage reads the row again and recomputes what earlier stages computed. The last stage
// replaces each vector by the next row's. Chosen for long rows whose live values take little time
// to compute. Bound: memory, and the exchanges among the blocks of a cluster.
#pragma once

#include "fusegen/forms/gpu_row_ahead.cuh"
#include "fusegen/forms/gpu_row_parts.cuh"
#include "fusegen/forms/gpu_stages.cuh"

namespace fusegen {
namespace {

template <class D, class L, class S, int V, Holders HOLDERS>
__global__ void __launch_bounds__(staged_threads / 2, 2)
    staged(typename D::Args args, [[maybe_unused]] uint64_t policy,
           typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;
  using Fulls = typename P::Fulls;
  using Pack = Packed<S, V>;
  using Last = LastReading<D>;
  await_kernels_before();
  const int64_t cols = args.cols;
  const auto scalar = P::scalars(args);
  using RowTeam = Team<T, HOLDERS, joint_values<D>, 512>;
  __shared__ typename RowTeam::Exchange exchange;
  RowTeam team(*settled(&exchange));
  extern __shared__ __align__(16) unsigned char dynamic[];
  const int thread = threadIdx.x, threads = blockDim.x;
  const int step = int(gridDim.x) / team.blocks(), begin = int(blockIdx.x) / team.blocks();
  const int row_count = int(args.rows), apart = threads * V;
  const int items = (int(cols) + apart * team.blocks() - 1) / (apart * team.blocks());
  const int first_column = team.rank() * items * apart + thread * V;
  const int end = min(int(cols), (team.rank() + 1) * items * apart);  // of the block's columns
  const auto column = [&](int item) { return first_column + item * apart; };

  // Each thread has its own places in shared memory, for a row's vectors and for its sums.
  unsigned char* place = dynamic;
  Pack* kept[Fulls::size + 1];
#pragma unroll
  for (int n = 0; n < Fulls::size; ++n) {
    kept[n] = settled(reinterpret_cast<Pack*>(place) + thread);
    place += sizeof(Pack) * items * threads;
  }
  ColumnSums<T, V> col_sums[P::ColSums::size + 1];
#pragma unroll
  for (int n = 0; n < P::ColSums::size; ++n) {
    col_sums[n] = ColumnSums<T, V>(place, thread, threads);
    place += sizeof(T) * V * items * threads;
  }
#pragma unroll
  for (int n = 0; n < P::ColSums::size; ++n) col_sums[n].clear(items);
  constexpr int fold = V;  // all columns of an access belong to one channel
  // If a thread has few accesses, their sums by channel stay in registers until the end.
  constexpr bool live_sums = L::staged_items > 0;
  constexpr int ITEMS = live_sums ? L::staged_items : 1;
  void* run_place[P::RunSums::size + 1];
  using Sums = std::conditional_t<live_sums, LiveRunSums<T, V, ITEMS, 1>, RunSums<T, V>>;
  Sums run_sums[P::RunSums::size + 1];
  if constexpr (!live_sums) {
#pragma unroll
    for (int n = 0; n < P::RunSums::size; ++n) {
      run_place[n] = place;
      run_sums[n] = Sums(place, thread, threads, V);
      run_sums[n].clear(items);
      place += sizeof(T) * items * threads;
    }
  }
  Elements<P, V> leaves;

  RowAhead<D, S> values(args, begin);
  const auto read_row = [&](int r) {
    if (r < row_count) values.read(args, r);
  };
  const auto copy = [&](const auto& from, int item) {
    P::copy_all(args, kept, item * threads, from.to, item * apart, policy);
  };
  read_row(begin);
  if (begin < row_count) {
    const typename P::template Starts<Fulls> from(args, begin, begin * cols + first_column);
    for (int item = 0; item < items; ++item) {
      if (column(item) < end) copy(from, item);
    }
  }
  auto channels = row_channels<P>(args, begin, step);
  const auto walk = channel_walk<P>(args, first_column, apart);
  values.begin(args, begin + int64_t(step));
  for (int r = begin; r < row_count; r += step) {
    const int64_t row_at = opaque(r * cols + first_column);
    typename K::Row row{};
    RowReductions<P> reductions;
    values.take_up(args, row, r + 2 * int64_t(step));
    read_row(r + step);
    await_copies();
    each(StagesOf<D>{}, [&](auto stage, auto index) {
      using Stage = decltype(stage);
      using Stores = Only<Stage, Role::store>;
      P::template begin_stage<Stage>(scalar, row);
      Reductions<T, Stage> reduced;
      if constexpr (Stage::has_elements) {
        constexpr bool last = index.value == Last::place;
        const typename P::template Starts<Stores> to(args, r, row_at);
        using Following = std::conditional_t<last, Fulls, List<>>;
        const typename P::template Starts<Following> following(args, r + step,
                                                               row_at + step * cols);
        auto further = walk.anew();
        const auto vector = [&](int item) {
          const int c = column(item);
          if (c < end) {
            Pack raw[Fulls::size + 1];
            P::take_all(raw, kept, item * threads);
            typename K::Full full[V];
            P::template unpack_full<FirstStages<D, index.value + 1>, true>(
                args, full, raw, row_at + item * apart, channels.first() + further.channel(), c);
            typename K::Col col[V] = {};
            P::load_cols(args, scalar, col, c);
#pragma unroll
            for (int v = 0; v < V; ++v) {
              typename K::Live live;
              typename K::Out out;
              stages_to<D, index.value>(full[v], col[v], row, scalar, live, out);
              reduced.take(out);
              leaves.template take<Stage>(v, out);
            }
            if constexpr (ColumnSumsIn<Stage>::size > 0)
              add_columns<P, Stage>(col_sums, run_sums, item, leaves);
            leaves.template store<Stage, true>(to.to, item * apart);
            if constexpr (last) {
              if (r + step < row_count) copy(following, item);  // the vector's place is free
            }
          }
          further.advance();
        };
        if constexpr (live_sums) {
#pragma unroll
          for (int item = 0; item < ITEMS; ++item) vector(item);
        } else {
          constexpr int unrolled = 4 / (Fulls::size > 0 ? Fulls::size : 1);
#pragma unroll(unrolled > 0 ? unrolled : 1)
          for (int item = 0; item < items; ++item) vector(item);
        }
      }
      reductions.template reduce<Stage>(team, row, reduced);
    });
    if (thread == 0 && team.rank() == 0) leave_row<P, V>(args, partial, r, scalar, row, leaves);
    values.advance();
    channels.advance();
  }
  if constexpr (live_sums && P::RunSums::size > 0) {
    __syncthreads();  // the sums go where rows were
#pragma unroll
    for (int n = 0; n < P::RunSums::size; ++n) {
      void* const to = dynamic + n * sizeof(T) * items * threads;
      run_place[n] = to;
      run_sums[n].put(to, thread, threads, items);
    }
  }
  leave_columns_of<P, V, 0>(args, partial, team, first_column, apart, items, fold, col_sums,
                            run_place);
  leave_totals<P>(partial, leaves.totals);
}

}  // namespace
}  // namespace fusegen
