// Rows of few columns, on the CPU: fewer than make it worth a vector loop for each row.
//
// A tile has up to 64 neighbouring rows. It is loaded and turned, so that the elements of one
// column are next to each other; the stages run over it as over rows whose columns lie apart, a
// vector for one column of several rows; then it is turned back and stored. `suit` says which rows
// are short. Bound: turning, a few cycles an element.
#pragma once

#include "fusegen/forms/cpu_lanes.h"

// Whether packages have these kernels. Without them other kernels for rows take their place, and
// g++ takes two thirds of the time.
#if !defined(FUSEGEN_SHORT_ROWS)
#define FUSEGEN_SHORT_ROWS true
#endif

namespace fusegen {
namespace {

// These are functions of their own, compiled once for a dtype.
//
// Turns [from_rows, from_cols] into [from_cols, from_rows].
template <class T>
__attribute__((noinline)) void turn(const T* from, int64_t from_rows, int64_t from_cols, T* to) {
  for (int64_t i = 0; i < from_rows; ++i) {
    for (int64_t j = 0; j < from_cols; ++j) to[j * from_rows + i] = from[i * from_cols + j];
  }
}
// Loads and stores elements that lie STEP apart.
template <int STEP, class S, class T>
__attribute__((noinline)) void load_stretch(const S* from, T* to, int64_t count) {
#pragma omp simd
  for (int64_t k = 0; k < count; ++k) {
    to[k] = load(from + STEP * k);
  }
}
template <int STEP, class S, class T>
__attribute__((noinline)) void store_stretch(S* to, const T* from, int64_t count) {
#pragma omp simd
  for (int64_t k = 0; k < count; ++k) {
    store(to + STEP * k, from[k]);
  }
}

template <class D, class S>
struct ShortRows {
  using P = Parts<D, S>;
  using T = typename P::T;
  using Task = RowsInLanes<D, S, true>;
  static constexpr int64_t tile_rows = 64, most_cols = 128;
  // A tile's sums of columns are added to those of the tiles before it in the compute type.
  static constexpr int64_t tiles_of_task = 16;

  // Whether there are kernels for short rows: not for elements that belong to channels, nor for
  // double and for passes over many tensors, as second derivatives are, for each kernel takes time
  // to compile.
  static constexpr bool exist = FUSEGEN_SHORT_ROWS && !D::outer && !D::interleaved &&
                                P::Spreads::size + P::RunSums::size == 0 && sizeof(S) < 8 &&
                                P::Fulls::size + P::Stores::size <= 4;
  // A vector loop over a row computes the columns that vectors leave one by one. They are too many
  // if they are a sixth of the row, or if the row is shorter than two vectors.
  static bool suit(const typename D::Args& args) {
    constexpr int64_t vector = FUSEGEN_VECTOR_BYTES / sizeof(S);
    const int64_t cols = args.cols;
    return cols > 0 && args.rows > 1 &&
           (cols < 2 * vector || (cols <= most_cols && cols % vector * 6 >= cols));
  }

  // Where row i of an item is in its tensor.
  template <class Item>
  static FUSEGEN_FN S* start_of_row(const typename D::Args& args, int64_t i) {
    return const_cast<S*>(pointer<S, Item::arg>(args)) + gap_of<Item>(args, i) +
           element_of<Item>(i * args.cols);
  }
  // Calls f(stored, numbers, count) for adjacent elements of the tile's rows, which `numbers` has
  // one after the other.
  template <class Item, class F>
  static FUSEGEN_FN void each_stretch(const Task& task, T* numbers, const F& f) {
    const int64_t cols = task.args.cols;
    if constexpr (!has_gap<Item> && Item::step == 1) {
      f(start_of_row<Item>(task.args, task.begin), numbers, task.lanes * cols);
    } else {
      for (int64_t n = 0; n < task.lanes; ++n)
        f(start_of_row<Item>(task.args, task.begin + n), numbers + n * cols, cols);
    }
  }

  // Loads a tile's tensors and random numbers. `flat` has room for a tile.
  static FUSEGEN_FN void load_tile(const Task& task, T* flat) {
    const int64_t cols = task.args.cols;
    each(typename P::Fulls{}, [&](auto item, auto n) {
      using Item = decltype(item);
      each_stretch<Item>(task, flat, load_stretch<Item::step, S, T>);
      turn(flat, task.lanes, cols, task.turned[n]);
    });
    each(typename P::Rngs{}, [&](auto item, auto n) {
      draw<decltype(item)>(task.args, flat, task.lanes * cols, task.begin * cols);
      turn(flat, task.lanes, cols, task.drawn[n]);
    });
  }

  static FUSEGEN_FN void store_tile(const Task& task, T* flat) {
    each(typename P::Stores{}, [&](auto item, auto n) {
      using Item = decltype(item);
      turn(task.turned[P::Fulls::size + n], task.args.cols, task.lanes, flat);
      each_stretch<Item>(task, flat, store_stretch<Item::step, S, T>);
    });
  }

  // The kernel that D describes, for tensors stored as S.
  static void run(const typename D::Args& args) {
    const int64_t rows = args.rows, cols = args.cols;
    const typename P::K::Scalar scalar = P::scalars(args);
    const int64_t task_rows = tile_rows * tiles_of_task;
    const int64_t tasks = (rows + task_rows - 1) / task_rows;
    const GridSums<D, S> sums{Buffers<T, P::ColSums::size>(tasks * cols),
                              Buffers<T, P::RowSums::size>(rows), Buffers<T, 0>(0),
                              Buffers<double, P::Totals::size>(tasks)};
    const int64_t grain = std::max<int64_t>(1, Tiling::elements_per_thread / (task_rows * cols));
    parallel_for(tasks, grain,
                 [=, col_parts = sums.cols.pointers(), row_parts = sums.rows.pointers(),
                  total_parts = sums.totals.pointers()](int64_t group) {
                   const int64_t tile = tile_rows * cols;
                   const Buffers<T, P::DerivedCols::size> derived(cols);
                   const Buffers<T, P::Lives::size> live(tile);
                   const Buffers<T, P::Rngs::size> drawn(tile);
                   const Buffers<T, Task::Rows::size> known(tile_rows);
                   const Buffers<T, P::Fulls::size + P::Stores::size> turned(tile);
                   const Buffer<T> flat(tile);
                   double totals[P::Totals::size + 1] = {};
                   Task task{args,
                             scalar,
                             0,
                             0,
                             0,
                             {},
                             derived.pointers(),
                             live.pointers(),
                             drawn.pointers(),
                             known.pointers(),
                             {},
                             {},
                             totals,
                             turned.pointers()};
                   each(typename P::ColSums{}, [&](auto, auto n) {
                     task.col_sums.to[n] = col_parts[n] + group * cols;
                     std::fill_n(task.col_sums[n], cols, T(0));
                   });
                   derive_columns<P>(args, scalar, 0, cols, task.derived);
                   const int64_t end = std::min(rows, (group + 1) * task_rows);
                   for (task.begin = group * task_rows; task.begin < end; task.begin += tile_rows) {
                     task.lanes = std::min(tile_rows, end - task.begin);
                     load_tile(task, flat.data());
                     task.load_rows();
                     each(StagesOf<D>{},
                          [&](auto stage, auto) { Task::template run<decltype(stage)>(task); });
                     store_tile(task, flat.data());
                     task.store_rows(row_parts);
                   }
                   for (int n = 0; n < P::Totals::size; ++n) total_parts[n][group] = totals[n];
                 });
    sums.write(args, scalar, tasks, tasks, 0);
  }
};

}  // namespace
}  // namespace fusegen
