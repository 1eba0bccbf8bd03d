// Outer reductions, on the CPU: the columns of a row are not adjacent in memory, but neighbouring
// rows are.
//
// Such rows form matrices [cols, inner]. A task has `lanes` neighbouring rows of one matrix.
// Buffers of cols x lanes hold what a later stage reads again, so `lanes` is chosen for the L2
// cache. Bound: memory, as long as they fit there.
#pragma once

#include "fusegen/forms/cpu_lanes.h"

namespace fusegen {
namespace {

// A call with samples of another size, if rows differ by their channels alone: as few as there is
// work for threads, because a task has its own cost. They must divide the places, which they do
// better the more factors their number has.
template <class D, class Args>
Args with_large_samples(const Args& args) {
  Args found = args;
  if constexpr (differs_by_channel<D>) {
    if (has_adjacent_channels<D>(args)) {
      const int64_t places = args.rows / args.inner * args.cols;
      int64_t samples = std::min<int64_t>(places, 64);
      while (places % samples != 0) --samples;
      found.rows = samples * args.inner;
      found.cols = places / samples;
    }
  }
  return found;
}

// The kernel that D describes, for tensors stored as S.
template <class D, class S>
void outer_of(const typename D::Args& given) {
  using P = Parts<D, S>;
  using T = typename P::T;
  using K = typename P::K;
  using Task = RowsInLanes<D, S>;
  auto args = with_large_samples<D>(given);
  if constexpr (D::interleaved) {  // a lane for each channel of a place
    args.rows *= args.run;
    args.cols /= args.run;
  }
  const int64_t rows = args.rows, cols = args.cols, inner = args.inner;
  const typename K::Scalar scalar = P::scalars(given);
  const int64_t run = run_in_place<D>(args);
  const auto tiling = OuterTiling::of(rows, cols, inner, run);
  int64_t channels = 0, samples = 1;  // of a task; and how many have channels of their own
  if constexpr (P::RunSums::size > 0) {
    channels = D::interleaved ? inner : args.channels;
    if (args.channels > channels) samples = args.channels / channels;
  }
  const GridSums<D, S> sums{Buffers<T, P::ColSums::size>(tiling.tasks() * cols),
                            Buffers<T, P::RowSums::size>(rows),
                            Buffers<T, P::RunSums::size>(tiling.tasks() * channels),
                            Buffers<double, P::Totals::size>(tiling.tasks())};
  parallel_for(
      tiling.tasks(), 1,
      [=, col_parts = sums.cols.pointers(), row_parts = sums.rows.pointers(),
       run_parts = sums.runs.pointers(),
       total_parts = sums.totals.pointers()](int64_t task_number) {
        const int64_t matrix = task_number / tiling.tiles();
        const int64_t begin = task_number % tiling.tiles() * tiling.lanes;
        const int64_t lanes = std::min(tiling.lanes, inner - begin);
        const Buffers<T, P::DerivedCols::size> derived(cols);
        const Buffers<T, P::Lives::size> live(cols * lanes);
        const Buffers<T, P::Rngs::size> drawn(lanes);
        const Buffers<T, Task::Rows::size> known(lanes);
        double totals[P::Totals::size + 1] = {};
        Task task{args,
                  scalar,
                  matrix,
                  begin,
                  lanes,
                  {},
                  derived.pointers(),
                  live.pointers(),
                  drawn.pointers(),
                  known.pointers(),
                  {},
                  {},
                  totals,
                  {}};
        each(typename P::Fulls{} + typename P::Stores{},
             [&](auto item, auto n) { task.gaps[n] = gap_of<decltype(item)>(args, matrix); });
        each(typename P::ColSums{}, [&](auto, auto n) {
          task.col_sums.to[n] = col_parts[n] + task_number * cols;
          std::fill_n(task.col_sums[n], cols, T(0));
        });
        each(typename P::RunSums{}, [&](auto, auto n) {
          task.run_sums.to[n] = run_parts[n] + task_number * channels;
          std::fill_n(task.run_sums[n], channels, T(0));
        });
        derive_columns<P>(args, scalar, 0, cols, task.derived);
        task.load_rows();
        each(StagesOf<D>{}, [&](auto stage, auto) { Task::template run<decltype(stage)>(task); });
        task.store_rows(row_parts);
        for (int n = 0; n < P::Totals::size; ++n) total_parts[n][task_number] = totals[n];
      });
  sums.write(args, scalar, tiling.tasks(), tiling.tasks(), tiling.tasks() * channels, samples);
}

template <template <class> class Form, class Args>
void run_outer(DType dtype, const Args& args) {
  with_dtype(dtype, [&](auto stored) { outer_of<Form<decltype(stored)>, decltype(stored)>(args); });
}

}  // namespace
}  // namespace fusegen
