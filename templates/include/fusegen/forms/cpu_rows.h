// Rows as a whole, on the CPU: kernels that reduce each row, or whose elements belong to channels.
//
// A thread takes a tile of rows, one after the other, and runs each stage over the row before the
// next. A row is swept in blocks of 1024 columns. If there are fewer rows than threads, the threads
// share the blocks of one row. Buffers as long as a row hold what a later stage reads again, so a
// row that fits into the caches is read from memory once. Bound: memory for long chains of cheap
// operations, arithmetic for exponentials.
#pragma once

#include "fusegen/forms/cpu_parts.h"
#include "fusegen/forms/cpu_short_rows.h"

namespace fusegen {
namespace {

// How many channels the columns of a sweep have.
enum ChannelsOfSweep { several_channels, one_channel, of_each_column };
template <class Args>
FUSEGEN_FN bool has_channel_of_each_column(const Args& args) {
  return args.channel_run == 1 && args.cols <= args.channels;
}

// Whether rows are counted in another order than they have in memory: neighbours lie apart then,
// and those a cycle apart are neighbours.
template <class... Stores>
constexpr bool any_gap(List<Stores...>) {
  return (has_gap<Stores> || ...);
}

// The row in work, and what its stages share.
template <class D, class S>
struct RowTask {
  using P = Parts<D, S>;
  using T = typename P::T;
  using K = typename P::K;
  static constexpr int lives = D::recomputed ? 0 : P::Lives::size;

  typename P::Args args;
  typename K::Scalar scalar;
  Pointers<T, P::DerivedCols::size> derived;
  Pointers<T, lives> live;
  Pointers<T, P::Rngs::size> shared_rng;
  Pointers<T, P::ColSums::size> col_sums;
  Pointers<T, most_reductions_of(StagesOf<D>{})>
      block_sums;  // of a stage's reductions, for each block of the row
  Pointers<T, P::Totals::size> block_totals;
  Pointers<T, P::RunSums::size> run_parts;
  Pointers<T, P::RunSums::size> run_sums;              // of the row's channels, over several rows
  int64_t runs;                                        // of a row, one for each channel
  int64_t at;                                          // the row's first element
  int64_t gaps[P::Fulls::size + P::Stores::size + 1];  // before it, in each tensor
  typename K::Row row;

  // Runs a stage over a block of columns.
  template <class Stage, bool FIRST>
  FUSEGEN_FN void run(int64_t block) const {
    using Sums = Only<Stage, Role::sum>;
    using Largest = Only<Stage, Role::largest>;
    using Totals = Only<Stage, Role::total>;
    using RunSums = Only<Stage, Role::run_sum>;
    constexpr int sums = Sums::size + Totals::size;
    const int64_t begin = block * block_cols, end = std::min(args.cols, begin + block_cols);

    alignas(64) T drawn[P::Rngs::size + 1][block_cols];
    each(typename P::Rngs{}, [&](auto rng, auto n) {
      using Rng = decltype(rng);
      if constexpr (Rng::shared && FIRST)
        draw<Rng>(args, shared_rng[n] + begin, end - begin, at + begin);
      if constexpr (!Rng::shared && uses<Stage, Rng>)
        draw<Rng>(args, drawn[n], end - begin, at + begin);
    });

    // Sweeps the columns from … to. If they all belong to one channel, `spread` holds a number for
    // each of its tensors, and sums by channel are numbers; otherwise these are arrays over the
    // block. If each column has a channel of its own, `spread` is the first one, and sums by
    // channel are sums of columns.
    const auto piece = [&](auto channels, int64_t from, int64_t to, const auto& spread,
                           T(*terms)[block_cols]) __attribute__((always_inline)) {
      constexpr int which = decltype(channels)::value;
      constexpr bool one = which == one_channel;
      return sweep<T, sums + (one ? RunSums::size : 0), Largest::size>(from, to, [&](int64_t j) {
        typename K::Full full{};
        each(typename P::Fulls{}, [&](auto item, auto n) {
          using Item = decltype(item);
          constexpr int own = gap_place<Item, typename P::Fulls, decltype(n)::value>;
          full.*item.field =
              load(pointer<S, Item::arg>(args) + gaps[own] + element_of<Item>(at + j));
        });
        each(typename P::Rngs{}, [&](auto item, auto n) {
          if constexpr (uses<Stage, decltype(item)>) {
            full.*item.field = item.shared ? shared_rng[n][j] : drawn[n][j - begin];
          }
        });
        each(typename P::Spreads{}, [&](auto item, auto n) {
          using Item = decltype(item);
          if constexpr (uses<Stage, Item> && which == of_each_column)
            full.*item.field =
                load(pointer<typename Item::type, Item::arg>(args) + spread + (j - begin));
          else if constexpr (uses<Stage, Item>)
            full.*item.field = spread[n][j - begin];
        });
        typename K::Col col = P::loaded_column(args, j);
        each(typename P::DerivedCols{},
             [&](auto item, auto n) { col.*item.field = derived[n][j]; });
        typename K::Live values;
        typename K::Out out;
        if constexpr (D::recomputed) {
          each(Only<Stage, Role::after>{},
               [&](auto earlier, auto) { earlier.function(full, col, row, scalar, values, out); });
        } else {
          each(Only<Stage, Role::read>{}, [&](auto item, auto) {
            constexpr int n = place_of<Keep<decltype(item)::field>, typename P::Lives>;
            values.*item.field = live[n][j];
          });
        }
        Stage::element(full, col, row, scalar, values, out);
        if constexpr (!D::recomputed) {
          each(Only<Stage, Role::keep>{}, [&](auto item, auto) {
            live[place_of<decltype(item), typename P::Lives>][j] = values.*item.field;
          });
        }
        each(Only<Stage, Role::store>{}, [&](auto item, auto) {
          using Item = decltype(item);
          constexpr int n = place_of<Item, typename P::Stores>;
          constexpr int own = P::Fulls::size + gap_place<Item, typename P::Stores, n>;
          store(pointer<S, Item::arg>(args) + gaps[own] + element_of<Item>(at + j), out.*item.out);
        });
        each(Only<Stage, Role::col_sum>{}, [&](auto item, auto) {
          col_sums[place_of<decltype(item), typename P::ColSums>][j] += out.*item.out;
        });
        Reduced<T, sums + (one ? RunSums::size : 0), Largest::size> reduced;
        each(Sums{} + Totals{}, [&](auto item, auto n) { reduced.sum[n] = out.*item.out; });
        each(Largest{}, [&](auto item, auto n) { reduced.largest[n] = ordinal(out.*item.out); });
        each(RunSums{}, [&](auto item, auto n) {
          if constexpr (one)
            reduced.sum[sums + n] = out.*item.out;
          else if constexpr (which == of_each_column)
            run_sums[place_of<decltype(item), typename P::RunSums>][j] += out.*item.out;
          else
            terms[n][j - begin] = out.*item.out;
        });
        return reduced;
      });
    };
    const auto leave = [&](const auto& reduced) {
      each(Sums{}, [&](auto, auto n) { block_sums[n][block] = reduced.sum[n]; });
      each(Largest{}, [&](auto, auto n) {
        block_sums[Sums::size + n][block] = of_ordinal(reduced.largest[n]);
      });
      each(Totals{}, [&](auto item, auto n) {
        block_totals[place_of<decltype(item), typename P::Totals>][block] =
            reduced.sum[Sums::size + n];
      });
    };

    using Used = decltype(used<Stage>(typename P::Spreads{}));
    if constexpr (Used::size + RunSums::size == 0) {
      leave(piece(Place<several_channels>{}, begin, end, nullptr, nullptr));
    } else if (has_channel_of_each_column(args)) {
      leave(piece(Place<of_each_column>{}, begin, end, (at + begin) % args.channels, nullptr));
    } else if (args.channel_run >= long_run) {
      auto whole = Reduced<T, sums, Largest::size>::none();
      for_each_run(begin, end, args.channel_run, [&](int64_t from, int64_t to, int64_t run) {
        const int64_t channel = channel_of(at + from, args.channel_run, args.channels);
        Same<T> spread[P::Spreads::size + 1];
        each(typename P::Spreads{}, [&](auto item, auto n) {
          using Stored = typename decltype(item)::type;
          spread[n].value = load(pointer<Stored, decltype(item)::arg>(args) + channel);
        });
        const auto part = piece(Place<one_channel>{}, from, to, spread, nullptr);
        for (int n = 0; n < sums; ++n) whole.sum[n] += part.sum[n];
        for (int n = 0; n < Largest::size; ++n)
          whole.largest[n] = larger(whole.largest[n], part.largest[n]);
        each(RunSums{}, [&](auto item, auto n) {
          run_parts[place_of<decltype(item), typename P::RunSums>][block + run] =
              part.sum[sums + n];
        });
      });
      leave(whole);
    } else {
      alignas(64) T spread[P::Spreads::size + 1][block_cols], terms[RunSums::size + 1][block_cols];
      each(typename P::Spreads{}, [&](auto item, auto n) {
        if constexpr (has<decltype(item), Used>) {
          using Stored = typename decltype(item)::type;
          spread_channels(spread[n], pointer<Stored, decltype(item)::arg>(args), at + begin,
                          end - begin, args.channel_run, args.channels);
        }
      });
      leave(piece(Place<several_channels>{}, begin, end, spread, terms));
      each(RunSums{}, [&](auto item, auto n) {
        constexpr int own = place_of<decltype(item), typename P::RunSums>;
        add_runs(run_parts[own] + block, terms[n], begin, end, args.channel_run);
      });
    }
  }

  // Runs a stage over the row: what is computed once, then the columns; and finds what it reduces.
  template <class Stage, bool FIRST>
  FUSEGEN_FN void run_row(const Tiling& tiling, double* totals) {
    const int64_t blocks = tiling.blocks();
    each(Only<Stage, Role::row_lines>{}, [&](auto lines, auto) { lines.function(scalar, row); });
    if constexpr (Stage::has_elements) {
      parallel_for(blocks, tiling.block_grain(), [this](int64_t block) {
        const RowTask task = *this;  // a copy, so that the compiler sees that no store changes it
        task.template run<Stage, FIRST>(block);
      });
    }
    using Sums = Only<Stage, Role::sum>;
    each(Sums{}, [&](auto item, auto n) { row.*item.row = total<T>(block_sums[n], blocks); });
    each(Only<Stage, Role::largest>{},
         [&](auto item, auto n) { row.*item.row = largest(block_sums[Sums::size + n], blocks); });
    each(Only<Stage, Role::total>{}, [&](auto item, auto) {
      constexpr int n = place_of<decltype(item), typename P::Totals>;
      totals[n] += total<double>(block_totals[n], blocks);
    });
    each(Only<Stage, Role::run_sum>{}, [&](auto item, auto) {
      constexpr int n = place_of<decltype(item), typename P::RunSums>;
      if (!has_channel_of_each_column(args))
        join_runs(run_sums[n], run_parts[n], runs, run_length<decltype(item)>(args));
    });
  }
};

// The kernel that D describes, for tensors stored as S.
template <class D, class S>
void rows_of(const typename D::Args& args) {
  using P = Parts<D, S>;
  using T = typename P::T;
  using K = typename P::K;
  using Task = RowTask<D, S>;
  if constexpr (ShortRows<D, S>::exist) {
    if (ShortRows<D, S>::suit(args)) return ShortRows<D, S>::run(args);
  }
  const int64_t rows = args.rows, cols = args.cols;
  const typename K::Scalar scalar = P::scalars(args);
  const auto tiling = Tiling::of(rows, cols, cols, P::ColSums::size ? 4 : 64);
  int64_t runs = 0;  // of a row, one for each channel
  int64_t cycle = 0;
  if constexpr (P::RunSums::size > 0) runs = cols / args.channel_run;
  constexpr bool in_turns = any_gap(typename P::Stores{}) && P::Spreads::size > 0;
  if constexpr (P::RunSums::size > 0 || in_turns) cycle = args.cycle;
  const RowTasks tasks = RowTasks::of(tiling, cycle);
  const int64_t places = tasks.pieces * cycle * runs;
  const GridSums<D, S> sums{
      Buffers<T, P::ColSums::size>(tasks.count() * cols), Buffers<T, P::RowSums::size>(rows),
      Buffers<T, P::RunSums::size>(places), Buffers<double, P::Totals::size>(tasks.count())};
  for (int n = 0; n < P::RunSums::size; ++n) std::fill_n(sums.runs.pointers()[n], places, T(0));
  parallel_for(
      tasks.count(), tasks.grain(tiling),
      [=, col_parts = sums.cols.pointers(), row_parts = sums.rows.pointers(),
       run_sums = sums.runs.pointers(), total_parts = sums.totals.pointers()](int64_t group) {
        const Buffers<T, P::DerivedCols::size> derived(cols);
        const Buffers<T, Task::lives> live(cols);
        const Buffers<T, P::Rngs::size> shared_rng(any_shared(typename P::Rngs{}) ? cols : 0);
        const Buffers<T, most_reductions_of(StagesOf<D>{})> block_sums(tiling.blocks());
        const Buffers<T, P::Totals::size> block_totals(tiling.blocks());
        const Buffers<T, P::RunSums::size> run_parts(tiling.blocks() + runs);
        derive_columns<P>(args, scalar, 0, cols, derived.pointers());
        double totals[P::Totals::size + 1] = {};
        Task task{args,
                  scalar,
                  derived.pointers(),
                  live.pointers(),
                  shared_rng.pointers(),
                  {},
                  block_sums.pointers(),
                  block_totals.pointers(),
                  run_parts.pointers(),
                  {},
                  runs,
                  0,
                  {},
                  {}};
        each(typename P::ColSums{}, [&](auto, auto n) {
          task.col_sums.to[n] = col_parts[n] + group * cols;
          std::fill_n(task.col_sums[n], cols, T(0));
        });
        tasks.each_row(group, [&](int64_t i, int64_t place) {
          task.at = i * cols;
          find_gaps(typename P::Fulls{} + typename P::Stores{}, args, i, task.gaps);
          task.row = {};
          P::load_row(args, i, task.row);
          for (int n = 0; n < P::RunSums::size; ++n)
            task.run_sums.to[n] = run_sums[n] + place * runs;
          each(StagesOf<D>{}, [&](auto stage, auto n) {
            task.template run_row<decltype(stage), n == 0>(tiling, totals);
          });
          P::store_row(args, i, scalar, task.row);
          each(typename P::RowSums{},
               [&](auto item, auto n) { row_parts[n][i] = member(task.row, scalar, item.value); });
          each(typename P::RowTotals{}, [&](auto item, auto n) {
            totals[place_of<decltype(item), typename P::Totals>] +=
                member(task.row, scalar, item.value);
          });
        });
        for (int n = 0; n < P::Totals::size; ++n) total_parts[n][group] = totals[n];
      });
  sums.write(args, scalar, tasks.count(), tasks.count(), places);
}

template <template <class> class Form, class Args>
void run_rows(DType dtype, const Args& args) {
  with_dtype(dtype, [&](auto stored) { rows_of<Form<decltype(stored)>, decltype(stored)>(args); });
}

}  // namespace
}  // namespace fusegen
