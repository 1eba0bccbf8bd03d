// Several rows at once, on the CPU: a vector holds one column of several rows.
//
// The forms for rows whose columns lie apart (cpu_outer.h) and for rows of few columns
// (cpu_short_rows.h) are built around it. Sums go in blocks of 16 columns to sums in double. Groups
// of channels that lie between one another are runs of such rows: what is reduced of each is joined
// over the run, and each lane has a channel of its own.
#pragma once

#include "fusegen/forms/by_channel.h"
#include "fusegen/forms/cpu_parts.h"

namespace fusegen {
namespace {

// A value of the row, which is kept for many rows at once.
template <auto FIELD>
struct Row {
  static constexpr auto field = FIELD;
};
template <auto... FIELDS>
constexpr List<Row<FIELDS>...> listed(Fields<FIELDS...>) {
  return {};
}
template <class... Items>
constexpr List<Row<Items::field>...> row_fields(List<Items...>) {
  return {};
}
// What the items of stages compute of it.
template <class Item>
constexpr auto computed_row() {
  if constexpr (Item::role == Role::row_lines)
    return listed(typename Item::fields{});
  else if constexpr (Item::role == Role::sum || Item::role == Role::largest)
    return List<Row<Item::row>>{};
  else
    return List<>{};
}
template <class... Items>
constexpr auto computed_rows(List<Items...>) {
  return (List<>{} + ... + computed_row<Items>());
}

// Neighbouring rows of one matrix, and what the stages over them share. Where a row's columns are
// adjacent in memory, tiles hold the elements as `turned`: those of one column next to each other.
template <class D, class S, bool TURNED = false>
struct RowsInLanes {
  using P = Parts<D, S>;
  using T = typename P::T;
  using K = typename P::K;
  using Ordinal = decltype(ordinal(T()));
  using Fulls = typename P::Fulls;
  using Inputs = typename P::Inputs;
  using Loaded = decltype(row_fields(Only<Inputs, Role::row>{} + Only<Inputs, Role::taken>{}));
  using Rows = decltype(Loaded{} + computed_rows(typename P::AllStages::items{}));

  static constexpr bool grouped = D::interleaved;
  // The sums by channel of a stage to which each lane adds by itself.
  template <class Stage>
  using SumsOfLanes = std::conditional_t<grouped, Only<Stage, Role::run_sum>, List<>>;

  typename P::Args args;  // with matrices [cols, inner], also of groups
  typename K::Scalar scalar;
  int64_t matrix, begin, lanes;  // lanes begin … begin + lanes - 1 of the matrix
  int64_t gaps[P::Fulls::size + P::Stores::size + 1];  // before the matrix, in each tensor
  Pointers<T, P::DerivedCols::size> derived;
  Pointers<T, P::Lives::size> live;
  Pointers<T, P::Rngs::size> drawn;
  Pointers<T, Rows::size> known;  // each value of Row, for all lanes
  Pointers<T, P::ColSums::size> col_sums;
  Pointers<T, P::RunSums::size> run_sums;
  double* totals;
  Pointers<T, TURNED ? Fulls::size + P::Stores::size : 0> turned;  // [cols, lanes] of each tensor

  FUSEGEN_FN typename K::Row row(int64_t n) const {
    typename K::Row found{};
    each(Rows{}, [&](auto item, auto k) { found.*item.field = known[k][n]; });
    return found;
  }

  // The row of a lane.
  FUSEGEN_FN int64_t row_of(int64_t n) const {
    if constexpr (TURNED)
      return begin + n;
    else
      return (matrix * args.inner + begin + n) / run_in_place<D>(args);
  }
  // Joins what is reduced of the lanes of each run.
  template <class T, class Op>
  FUSEGEN_FN void join_runs(T* values, const Op& op) const {
    if constexpr (grouped) {
      for (int64_t first = 0; first < lanes; first += args.run) {
        T joined = values[first];
        for (int64_t n = first + 1; n < first + args.run; ++n) joined = op(joined, values[n]);
        std::fill_n(values + first, args.run, joined);
      }
    }
  }

  FUSEGEN_FN void load_rows() const {
    for (int64_t n = 0; n < lanes; ++n) {
      typename K::Row row{};
      P::load_row(args, row_of(n), row);
      each(Loaded{}, [&](auto item, auto k) { known[k][n] = row.*item.field; });
    }
  }

  // Stores what belongs to each row, and leaves its part of the sums over the grid.
  FUSEGEN_FN void store_rows(const Pointers<T, P::RowSums::size>& row_parts) const {
    for (int64_t n = 0; n < lanes; n += run_in_place<D>(args)) {
      const typename K::Row known_row = row(n);
      const int64_t i = row_of(n);
      P::store_row(args, i, scalar, known_row);
      each(typename P::RowSums{},
           [&](auto item, auto k) { row_parts[k][i] = member(known_row, scalar, item.value); });
      each(typename P::RowTotals{}, [&](auto item, auto) {
        totals[place_of<decltype(item), typename P::Totals>] +=
            member(known_row, scalar, item.value);
      });
    }
  }

  // Runs a stage over all columns of these rows: a function of its own, with a copy of the task, so
  // that the compiler sees that no store changes a pointer.
  template <class Stage>
  __attribute__((noinline, flatten)) static void run(const RowsInLanes& shared) {
    const RowsInLanes task = shared;
    using Sums = Only<Stage, Role::sum>;
    using Largest = Only<Stage, Role::largest>;
    using OfLanes = SumsOfLanes<Stage>;
    const int64_t lanes = task.lanes, cols = task.args.cols;
    each(Only<Stage, Role::row_lines>{}, [&](auto lines, auto) {
      for (int64_t n = 0; n < lanes; ++n) {
        typename K::Row row = task.row(n);
        lines.function(task.scalar, row);
        each(listed(typename decltype(lines)::fields{}), [&](auto item, auto) {
          task.known[place_of<decltype(item), Rows>][n] = row.*item.field;
        });
      }
    });
    const Buffers<T, Sums::size> sum_memory(lanes);
    const Buffers<double, Sums::size> whole_sum_memory(lanes);
    const Buffers<T, OfLanes::size> added_memory(lanes);
    const Buffers<double, OfLanes::size> whole_added_memory(lanes);
    const Buffers<Ordinal, Largest::size> largest_memory(lanes);
    const Buffers<T, Largest::size> whole_largest_memory(lanes);
    const auto sum = sum_memory.pointers();
    const auto whole_sum = whole_sum_memory.pointers();
    const auto added = added_memory.pointers();
    const auto whole_added = whole_added_memory.pointers();
    const auto largest = largest_memory.pointers();
    const auto whole_largest = whole_largest_memory.pointers();
    each(Sums{}, [&](auto, auto r) { std::fill_n(whole_sum[r], lanes, 0.0); });
    each(OfLanes{}, [&](auto, auto r) { std::fill_n(whole_added[r], lanes, 0.0); });
    each(Largest{}, [&](auto, auto r) { std::fill_n(whole_largest[r], lanes, T(-INFINITY)); });

    if constexpr (Stage::has_elements) {
      for (int64_t block = 0; block < cols; block += added_cols) {
        each(Sums{}, [&](auto, auto r) { std::fill_n(sum[r], lanes, T(0)); });
        each(OfLanes{}, [&](auto, auto r) { std::fill_n(added[r], lanes, T(0)); });
        each(Largest{},
             [&](auto, auto r) { std::fill_n(largest[r], lanes, ordinal(T(-INFINITY))); });
        for (int64_t j = block; j < std::min(cols, block + added_cols); ++j) {
          task.template column<Stage>(j, sum, added, largest);
        }
        each(OfLanes{}, [&](auto, auto r) {
          for (int64_t n = 0; n < lanes; ++n) whole_added[r][n] += added[r][n];
        });
        each(Sums{}, [&](auto, auto r) {
          for (int64_t n = 0; n < lanes; ++n) whole_sum[r][n] += sum[r][n];
        });
        each(Largest{}, [&](auto, auto r) {
          for (int64_t n = 0; n < lanes; ++n) {
            whole_largest[r][n] = maximum(whole_largest[r][n], of_ordinal(largest[r][n]));
          }
        });
      }
    }
    each(OfLanes{}, [&](auto item, auto r) {
      T* const to = task.run_sums[place_of<decltype(item), typename P::RunSums>] + task.begin;
      for (int64_t n = 0; n < lanes; ++n) to[n] += T(whole_added[r][n]);
    });
    each(Sums{}, [&](auto item, auto r) {
      task.join_runs(whole_sum[r], [](double a, double b) { return a + b; });
      T* const to = task.known[place_of<Row<decltype(item)::row>, Rows>];
      for (int64_t n = 0; n < lanes; ++n) to[n] = T(whole_sum[r][n]);
    });
    each(Largest{}, [&](auto item, auto r) {
      task.join_runs(whole_largest[r], [](T a, T b) { return maximum(a, b); });
      T* const to = task.known[place_of<Row<decltype(item)::row>, Rows>];
      for (int64_t n = 0; n < lanes; ++n) to[n] = whole_largest[r][n];
    });
  }

  // Columns are too far apart for the processor's own prefetcher.
  template <class Stage>
  FUSEGEN_FN void prefetch_column(int64_t j, int64_t at) const {
    if (j + columns_ahead < args.cols) {
      const int64_t soon = at + columns_ahead * args.inner;
      each(Fulls{}, [&](auto item, auto n) {
        if constexpr (has<Uses<decltype(item)::field>, typename Stage::items>) {
          prefetch(pointer<S, decltype(item)::arg>(args) + gaps[n] + soon, lanes);
        }
      });
      each(Only<Stage, Role::store>{}, [&](auto item, auto) {
        constexpr int n = place_of<decltype(item), typename P::Stores>;
        prefetch<to_write>(pointer<S, decltype(item)::arg>(args) + gaps[Fulls::size + n] + soon,
                           lanes);
      });
    }
  }

  // Runs a stage over column j.
  template <class Stage, int SUMS, int ADDED, int LARGEST>
  FUSEGEN_FN void column(int64_t j, const Pointers<T, SUMS>& sum,
                         const Pointers<T, ADDED>& of_lanes,
                         const Pointers<Ordinal, LARGEST>& largest) const {
    using ColSums = Only<Stage, Role::col_sum>;
    using Totals = Only<Stage, Role::total>;
    using RunSums = Only<Stage, Role::run_sum>;
    constexpr int added = ColSums::size + Totals::size;
    int64_t at = j * lanes;
    if constexpr (!TURNED) {
      at = (matrix * args.cols + j) * args.inner + begin;
      prefetch_column<Stage>(j, at);
      each(typename P::Rngs{},
           [&](auto item, auto n) { draw<decltype(item)>(args, drawn[n], lanes, at); });
    }
    int64_t channel = begin;  // of all lanes, or of the first one
    if constexpr (P::Spreads::size + RunSums::size > 0) {
      channel = grouped ? (matrix * args.inner + begin) % args.channels
                        : channel_of(at, args.channel_run, args.channels);
    }
    T spread[P::Spreads::size + 1];
    each(typename P::Spreads{}, [&](auto item, auto n) {
      using Stored = typename decltype(item)::type;
      spread[n] = load(pointer<Stored, decltype(item)::arg>(args) + channel);
    });
    constexpr int in_all = added + (grouped ? 0 : RunSums::size);  // sums of the whole column
    const auto reduced = sweep<T, in_all, 0>(0, lanes, [&](int64_t n) {
      typename K::Full full{};
      each(Fulls{}, [&](auto item, auto k) {
        if constexpr (TURNED)
          full.*item.field = turned[k][at + n];
        else
          full.*item.field = load(pointer<S, decltype(item)::arg>(args) + gaps[k] + at + n);
      });
      each(typename P::Rngs{},
           [&](auto item, auto k) { full.*item.field = drawn[k][TURNED ? at + n : n]; });
      each(typename P::Spreads{}, [&](auto item, auto k) {
        using Stored = typename decltype(item)::type;
        if constexpr (grouped)
          full.*item.field = load(pointer<Stored, decltype(item)::arg>(args) + channel + n);
        else
          full.*item.field = spread[k];
      });
      typename K::Col col = P::loaded_column(args, j);
      each(typename P::DerivedCols{}, [&](auto item, auto k) { col.*item.field = derived[k][j]; });
      const typename K::Row known_row = row(n);
      typename K::Live values;
      typename K::Out out;
      each(Only<Stage, Role::read>{}, [&](auto item, auto) {
        constexpr int k = place_of<Keep<decltype(item)::field>, typename P::Lives>;
        values.*item.field = live[k][j * lanes + n];
      });
      Stage::element(full, col, known_row, scalar, values, out);
      each(Only<Stage, Role::keep>{}, [&](auto item, auto) {
        live[place_of<decltype(item), typename P::Lives>][j * lanes + n] = values.*item.field;
      });
      each(Only<Stage, Role::sum>{}, [&](auto item, auto r) { sum[r][n] += out.*item.out; });
      each(Only<Stage, Role::largest>{}, [&](auto item, auto r) {
        largest[r][n] = larger(largest[r][n], ordinal(out.*item.out));
      });
      each(Only<Stage, Role::store>{}, [&](auto item, auto) {
        constexpr int k = place_of<decltype(item), typename P::Stores>;
        if constexpr (TURNED)
          turned[Fulls::size + k][at + n] = out.*item.out;
        else
          store(pointer<S, decltype(item)::arg>(args) + gaps[Fulls::size + k] + at + n,
                out.*item.out);
      });
      Reduced<T, in_all, 0> one;
      each(ColSums{} + Totals{} + RunSums{}, [&](auto item, auto k) {
        if constexpr (decltype(k)::value < in_all)
          one.sum[k] = out.*item.out;
        else
          of_lanes[decltype(k)::value - in_all][n] += out.*item.out;
      });
      return one;
    });
    each(ColSums{}, [&](auto item, auto k) {
      col_sums[place_of<decltype(item), typename P::ColSums>][j] += reduced.sum[k];
    });
    each(Totals{}, [&](auto item, auto k) {
      totals[place_of<decltype(item), typename P::Totals>] += reduced.sum[ColSums::size + k];
    });
    if constexpr (!grouped) {
      each(RunSums{}, [&](auto item, auto k) {
        run_sums[place_of<decltype(item), typename P::RunSums>][channel] += reduced.sum[added + k];
      });
    }
  }
};

}  // namespace
}  // namespace fusegen
