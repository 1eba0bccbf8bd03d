// Elements by themselves, on the CPU: one stage, nothing reduced over rows.
//
// A task is a tile of rows and columns. Where there are sums over rows, tiles are narrow, so that
// their sums stay in the L1 cache; otherwise they are as wide as the rows, so that each tensor is
// one stream of memory. Bound: memory, except for chains of many elementary functions.
#pragma once

#include "fusegen/forms/cpu_parts.h"

namespace fusegen {
namespace {

// The kernel that D describes, for tensors stored as S.
template <class D, class S>
void pointwise_of(const typename D::Args& args) {
  using P = Parts<D, S>;
  using T = typename P::T;
  using K = typename P::K;
  using Totals = typename P::Totals;
  const int64_t rows = args.rows, cols = args.cols;
  const typename K::Scalar scalar = P::scalars(args);
  constexpr bool narrow = P::ColSums::size > 0;
  const auto tiling = Tiling::of(rows, cols, narrow ? 2048 : 32768, narrow ? 8 : rows);
  const GridSums<D, S> sums{Buffers<T, P::ColSums::size>(tiling.groups() * cols),
                            Buffers<T, P::RowSums::size>(0), Buffers<T, P::RunSums::size>(0),
                            Buffers<double, P::Totals::size>(tiling.tasks())};
  parallel_for(
      tiling.tasks(), tiling.grain(),
      [=, col_parts = sums.cols.pointers(), total_parts = sums.totals.pointers()](int64_t task) {
        const int64_t group = task / tiling.columns(),
                      begin = task % tiling.columns() * tiling.tile_cols;
        const int64_t count = std::min(tiling.tile_cols, cols - begin);
        const int64_t first = group * tiling.tile_rows,
                      last = std::min(rows, first + tiling.tile_rows);
        const Buffers<T, P::DerivedCols::size> derived_memory(count);
        const auto derived = derived_memory.pointers();
        derive_columns<P>(args, scalar, begin, count, derived);
        alignas(64) T drawn[P::Rngs::size + 1][block_cols];
        Pointers<T, P::ColSums::size> col_sums;
        each(typename P::ColSums{}, [&](auto, auto n) {
          col_sums.to[n] = col_parts[n] + group * cols + begin;
          std::fill_n(col_sums[n], count, T(0));
        });
        double totals[Totals::size + 1] = {};
        for (int64_t i = first; i < last; ++i) {
          const int64_t at = i * cols + begin;
          int64_t gaps[P::Fulls::size + P::Stores::size + 1];
          find_gaps(typename P::Fulls{} + typename P::Stores{}, args, D::flat ? at : i, gaps);
          typename K::Row row{};
          P::load_row(args, i, row);
          each(typename P::template Of<Role::row_lines>{},
               [&](auto lines, auto) { lines.function(scalar, row); });
          for (int64_t block = 0; block < count; block += block_cols) {
            const int64_t end = std::min(count, block + block_cols);
            if (narrow && i + 1 < last &&
                count < cols) {  // the processor sees each row of a narrow tile as a new stream
              each(typename P::Fulls{}, [&](auto item, auto) {
                using Item = decltype(item);
                prefetch(pointer<S, Item::arg>(args) + gap_of<Item>(args, i + 1) +
                             Item::step * (at + cols + block),
                         Item::step * (end - block));
              });
            }
            each(typename P::Rngs{}, [&](auto item, auto n) {
              draw<decltype(item)>(args, drawn[n], end - block, at + block);
            });
            const auto reduced = sweep<T, Totals::size, 0>(block, end, [&](int64_t j) {
              typename K::Full full{};
              each(typename P::Fulls{}, [&](auto item, auto n) {
                using Item = decltype(item);
                constexpr int own = gap_place<Item, typename P::Fulls, decltype(n)::value>;
                full.*item.field =
                    load(pointer<S, Item::arg>(args) + gaps[own] + element_of<Item>(at + j));
              });
              each(typename P::Rngs{},
                   [&](auto item, auto n) { full.*item.field = drawn[n][j - block]; });
              typename K::Col col = P::loaded_column(args, begin + j);
              each(typename P::DerivedCols{},
                   [&](auto item, auto n) { col.*item.field = derived[n][j]; });
              typename K::Live live;
              typename K::Out out;
              each(StagesOf<D>{}, [&](auto stage, auto) {
                if constexpr (decltype(stage)::has_elements) {
                  stage.element(full, col, row, scalar, live, out);
                }
              });
              each(typename P::Stores{}, [&](auto item, auto n) {
                using Item = decltype(item);
                constexpr int own =
                    P::Fulls::size + gap_place<Item, typename P::Stores, decltype(n)::value>;
                store(pointer<S, Item::arg>(args) + gaps[own] + element_of<Item>(at + j),
                      out.*item.out);
              });
              each(typename P::ColSums{},
                   [&](auto item, auto n) { col_sums[n][j] += out.*item.out; });
              Reduced<T, Totals::size, 0> one;
              each(Totals{}, [&](auto item, auto n) { one.sum[n] = out.*item.out; });
              return one;
            });
            for (int n = 0; n < Totals::size; ++n) totals[n] += reduced.sum[n];
          }
        }
        for (int n = 0; n < Totals::size; ++n) total_parts[n][task] = totals[n];
      });
  sums.write(args, scalar, tiling.groups(), tiling.tasks(), 0);
}

template <template <class> class Form, class Args>
void run_pointwise(DType dtype, const Args& args) {
  with_dtype(dtype,
             [&](auto stored) { pointwise_of<Form<decltype(stored)>, decltype(stored)>(args); });
}

}  // namespace
}  // namespace fusegen
