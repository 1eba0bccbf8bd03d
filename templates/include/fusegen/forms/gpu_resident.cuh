// A row in the registers of a team of threads, on the GPU: read once and written once.
//
// A thread keeps ITEMS vectors of V columns, and meanwhile copies the next row's vectors ahead. A
// team is some lanes of a warp, a block, or a cluster of blocks. Chosen where a row fits and rows
// share sums of columns, or more is kept of an element than `single` has room for. Bound: memory.
#pragma once

#include "fusegen/forms/gpu_in_registers.cuh"
#include "fusegen/forms/gpu_row_ahead.cuh"

namespace fusegen {
namespace {

template <class D, class L, class S, int V, int ITEMS, int THREADS, int BLOCKS, Holders HOLDERS,
          bool ANYWHERE = false>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    resident(typename D::Args args, [[maybe_unused]] uint64_t policy,
             typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;
  using Fulls = typename P::Fulls;
  using Pack = Packed<S, V>;
  await_kernels_before();
  const int64_t rows = args.rows, cols = args.cols;
  const auto scalar = P::scalars(args);
  constexpr bool ahead = sizeof(Pack) == 16 && !ANYWHERE;
  using RowTeam = Team<T, HOLDERS, joint_values<D>, THREADS>;
  __shared__ typename RowTeam::Exchange exchange;
  RowTeam team(*settled(&exchange));
  extern __shared__ __align__(16) unsigned char dynamic[];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  const int step = int(gridDim.x) / team.blocks() * int(blockDim.y);
  const int row_count = int(rows);
  const int first_column = int(team.rank() * ITEMS * blockDim.x + threadIdx.x) * V;
  const int apart = int(blockDim.x) * V;
  const auto column = [&](int item) { return first_column + item * apart; };

  // Each thread has its own places in shared memory, for the next row's vectors and for its sums.
  unsigned char* place = dynamic;
  Pack* next[Fulls::size + 1];
#pragma unroll
  for (int n = 0; n < Fulls::size; ++n) {
    next[n] = settled(reinterpret_cast<Pack*>(place) + thread);
    place += ahead ? sizeof(Pack) * ITEMS * threads : 0;
  }
  constexpr bool live_sums =
      HOLDERS != Holders::lanes && P::ColSums::size > 0 &&
      ResidentRow<L>::template HasLiveSums<S, V, THREADS, BLOCKS, ITEMS>::value;
  using Sums = std::conditional_t<live_sums, LiveSums<T, V, ITEMS>, ColumnSums<T, V>>;
  Sums col_sums[P::ColSums::size + 1];
#pragma unroll
  for (int n = 0; n < P::ColSums::size; ++n) {
    col_sums[n] = Sums(place, thread, threads);
    place += live_sums ? 0 : sizeof(T) * V * ITEMS * threads;
  }
#pragma unroll
  for (int n = 0; n < P::ColSums::size; ++n) col_sums[n].clear(ITEMS);
  constexpr bool live_runs =
      HOLDERS == Holders::lanes && has_live_runs<T, ITEMS * V * P::RunSums::size>;
  using Runs = std::conditional_t<live_runs, LiveRunSums<T, V, ITEMS, V>, RunSums<T, V>>;
  int fold = 1;
  void* run_place[P::RunSums::size + 1];
  Runs run_sums[P::RunSums::size + 1];
  if constexpr (P::RunSums::size > 0) {
    if constexpr (!live_runs) fold = RunSums<T, V>::shared_by(run_length<P>(args));
    each(typename P::RunSums{}, [&](auto, auto n) {
      run_place[n] = place;
      if constexpr (!live_runs) {
        run_sums[n] = Runs(place, thread, threads, run_length<P>(args));
        run_sums[n].clear(ITEMS);
      }
      place += sizeof(T) * (V / fold) * ITEMS * threads;
    });
  }
  Elements<P, V> leaves;

  const int begin = int(blockIdx.x) / team.blocks() * int(blockDim.y);
  RowAhead<D, S> values(args, begin + int(threadIdx.y));
  const auto fetch = [&](int r) {
    if (r < row_count) {
      if constexpr (ahead) {
        const typename P::template Starts<Fulls> from(args, r, int64_t(r) * cols + first_column);
#pragma unroll
        for (int item = 0; item < ITEMS; ++item) {
          if (column(item) < int(cols)) {
            P::copy_all(args, next, item * threads, from.to, item * apart, policy);
          }
        }
      }
      values.read(args, r);
    }
  };
  fetch(begin + int(threadIdx.y));
  auto channels = row_channels<P>(args, begin + int(threadIdx.y), step);
  int further[ITEMS];  // the distance of a column's channel from the row's first channel
#pragma unroll
  for (int item = 0; item < ITEMS; ++item) further[item] = channels.further(column(item));
  // A thread has the same columns in every row. Their operands may be too many bytes to read again.
  constexpr bool keeps_columns = L::live_columns && !ANYWHERE;
  typename P::template PackedCols<V> live_columns[keeps_columns ? ITEMS : 1];
  if constexpr (keeps_columns) {
#pragma unroll
    for (int item = 0; item < ITEMS; ++item) {
      if (column(item) < int(cols)) P::load_packed_cols(args, live_columns[item], column(item));
    }
  }
  values.begin(args, begin + int(threadIdx.y) + int64_t(step));

  for (int base = begin; base < row_count; base += step) {
    const int r = base + int(threadIdx.y);
    // A team without a row only takes part in the barriers.
    const int64_t row_at = opaque(int64_t(r) * cols + first_column);
    RowInRegisters<D, S, V, ITEMS, ANYWHERE> work(args, scalar, r, r < row_count ? int(cols) : 0,
                                                  first_column, apart, row_at);
    if constexpr (ahead && Fulls::size > 0) await_copies();
    const typename P::template Starts<Fulls> from(args, r, row_at);
    values.take_up(args, work.row, r + 2 * int64_t(step));
    // Not within the loop over stages, which would make them anew for each.
    const auto read = [&](int item) {
      if constexpr (ahead)
        P::take_all(work.raw[item], next, item * threads);
      else if constexpr (ANYWHERE)
        P::template read_anywhere<L>(work.raw[item], from.to, item * apart,
                                     work.end - work.column(item), policy);
      else
        P::template read_all<L>(work.raw[item], from.to, item * apart, policy);
    };
    const auto channel = [&](int item, int) { return channels.first() + further[item]; };
    const auto fill_columns = [&](typename K::Col(&col)[V], int item, int64_t c) {
      if constexpr (keeps_columns) {
        P::unpack_cols(scalar, col, live_columns[item], c);
      } else if constexpr (ANYWHERE) {
        P::load_some_cols(args, scalar, col, int(c), work.end - int(c));
      } else {
        P::load_cols(args, scalar, col, c);
      }
    };
    const auto add = [&](auto stage, int item) {
      add_columns<P, decltype(stage)>(col_sums, run_sums, item, leaves);
    };
    const auto fetch_next = [&] { fetch(r + step); };  // this row has been read completely
    each(StagesOf<D>{}, [&](auto stage, auto n) {
      work.template run<decltype(stage), n.value == 0>(team, leaves, read, channel, fill_columns,
                                                       add, fetch_next);
    });
    if (r < row_count && threadIdx.x == 0 && team.rank() == 0)
      leave_row<P, V>(args, partial, r, scalar, work.row, leaves);
    values.advance();
    channels.advance();
  }
  if constexpr (live_runs) {
    each(typename P::RunSums{},
         [&](auto, auto n) { run_sums[n].put(run_place[n], thread, threads, ITEMS); });
  }
  leave_columns_of<P, V, ITEMS, ANYWHERE>(args, partial, team, first_column, apart, ITEMS, fold,
                                          col_sums, run_place);
  leave_totals<P>(partial, leaves.totals);
}

}  // namespace
}  // namespace fusegen
