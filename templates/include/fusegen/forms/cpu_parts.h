// What the CPU's forms share: buffers, what they load and store, and sums over the grid.
#pragma once

#include "fusegen/cpu.h"
#include "fusegen/forms/cpu_sweep.h"
#include "fusegen/forms/description.h"

namespace fusegen {
namespace {

// Whether a stage with these items reads an input, for itself or for an earlier stage that it
// repeats.
template <class Items, class Input>
constexpr bool uses() {
  return has<Uses<Input::field>>(Items{}) || has<UsesAgain<Input::field>>(Items{});
}
// Of several inputs, those that it reads.
template <class Items, class... Inputs>
constexpr auto used(List<Inputs...>) {
  return (List<>{} + ... + std::conditional_t<uses<Items, Inputs>(), List<Inputs>, List<>>{});
}
// Where row i's number is in a tensor.
template <class Item, class Args>
FUSEGEN_FN int64_t row_place(const Args& args, int64_t i) {
  if constexpr (Item::per_channel)
    return channel_of(i, args.channel_run, args.channels);
  else
    return i;
}
// How many neighbours belong to one channel, and how many channels there are.
template <class Item, class Args>
FUSEGEN_FN int64_t run_length(const Args& args) {
  return args.channel_run;
}
template <class Item, class Args>
FUSEGEN_FN int64_t channels_of(const Args& args) {
  return args.channels;
}
// Whether several stages read one of some random inputs.
template <class... Rngs>
constexpr bool any_shared(List<Rngs...>) {
  return (Rngs::shared || ...);
}
// The most that a stage reduces over a row.
template <class... Stages>
constexpr int most_reductions_of(List<Stages...>) {
  int most = 0;
  ((most = std::max(most, Only<typename Stages::items, Role::sum>::size +
                              Only<typename Stages::items, Role::largest>::size)),
   ...);
  return most;
}

// Pointers to N arrays.
template <class T, int N>
struct Pointers {
  T* to[N ? N : 1] = {};
  T* operator[](int n) const { return to[n]; }
};

// N uninitialised arrays of `count` numbers each.
template <class T, int N>
class Buffers {
 public:
  explicit Buffers(int64_t count) : Buffers(count, std::make_integer_sequence<int, N>{}) {}
  Pointers<T, N> pointers() const {
    Pointers<T, N> found;
    for (int n = 0; n < N; ++n) found.to[n] = memory_[n].data();
    return found;
  }

 private:
  template <int... PLACES>
  Buffers(int64_t count, std::integer_sequence<int, PLACES...>)
      : memory_{Buffer<T>(PLACES >= 0 ? count : 0)...} {}

  Buffer<T> memory_[N];
};
template <class T>
class Buffers<T, 0> {
 public:
  explicit Buffers(int64_t) {}
  Pointers<T, 0> pointers() const { return {}; }
};

// What the forms know of a kernel with description D over tensors stored as S.
template <class D, class S>
struct Parts {
  using T = compute_t<S>;
  using K = typename D::K;
  using Args = typename D::Args;
  using Items = decltype(all_items(typename D::stages{}));
  using Inputs = typename D::inputs;

  template <Role ROLE>
  using Of = Only<Items, ROLE>;
  using Fulls = Only<Inputs, Role::full>;
  using Rngs = Only<Inputs, Role::rng>;
  using Spreads = Only<Inputs, Role::spread>;
  using DerivedCols = Only<Inputs, Role::derived>;
  using Lives = Of<Role::keep>;
  using Stores = Of<Role::store>;
  using ColSums = Of<Role::col_sum>;
  using RunSums = Of<Role::run_sum>;
  using Totals = decltype(Of<Role::total>{} + Only<typename D::results, Role::row_total>{});
  using RowSums = Only<typename D::results, Role::row_sum>;
  using RowTotals = Only<typename D::results, Role::row_total>;
  static constexpr int most_reductions = most_reductions_of(typename D::stages{});
  static constexpr bool shares_rng = any_shared(Rngs{});

  // The values that all elements share.
  static typename K::Scalar scalars(const Args& args) {
    typename K::Scalar scalar{};
    each(Only<Inputs, Role::scalar>{}, [&](auto item, auto) {
      using Stored = typename decltype(item)::type;
      scalar.*item.field = load(pointer<Stored, decltype(item)::arg>(args));
    });
    each(Only<Inputs, Role::number>{},
         [&](auto item, auto) { scalar.*item.field = T(args.*item.arg); });
    each(Only<Inputs, Role::scalar_lines>{}, [&](auto lines, auto) { lines.function(scalar); });
    return scalar;
  }
  // What is loaded for row i.
  static FUSEGEN_FN void load_row(const Args& args, int64_t i, typename K::Row& row) {
    each(Only<Inputs, Role::row>{}, [&](auto item, auto) {
      using Stored = typename decltype(item)::type;
      const auto* const from = pointer<Stored, decltype(item)::arg>(args);
      row.*item.field = T(load(from + row_place<decltype(item)>(args, i)));
    });
    D::take_elements(args, i, row);
  }
  // Stores what belongs to row i.
  static FUSEGEN_FN void store_row(const Args& args, int64_t i, const typename K::Scalar& scalar,
                                   const typename K::Row& row) {
    each(Only<typename D::results, Role::row_store>{},
         [&](auto item, auto) { put<decltype(item)>(args, i, member(row, scalar, item.value)); });
  }
  // Stores the results that depend on sums over the grid.
  static void finish(const Args& args, const typename K::Scalar& scalar) {
    using Results = typename D::results;
    each(Only<Results, Role::final_lines>{}, [&](auto lines, auto) {
      typename decltype(lines)::type total{};
      each(Only<Results, Role::known_total>{}, [&](auto item, auto) {
        total.*item.field = load(pointer<T, decltype(item)::arg>(args));
      });
      lines.function(scalar, total);
      each(Only<Results, Role::final>{}, [&](auto item, auto) {
        put<decltype(item)>(args, 0, member(total, scalar, item.value));
      });
    });
  }
  // Computes what is derived of a column.
  static FUSEGEN_FN void derive(const typename K::Scalar& scalar, typename K::Col& col) {
    each(Only<Inputs, Role::column_lines>{},
         [&](auto lines, auto) { lines.function(scalar, col); });
  }
  // The operands of column `at`. What is derived from them is left out.
  static FUSEGEN_FN typename K::Col loaded_column(const Args& args, int64_t at) {
    typename K::Col col{};
    each(Only<Inputs, Role::col>{}, [&](auto item, auto) {
      using Stored = typename decltype(item)::type;
      col.*item.field = load(pointer<Stored, decltype(item)::arg>(args) + at);
    });
    each(Only<Inputs, Role::index>{}, [&](auto item, auto) { col.*item.field = T(at); });
    return col;
  }
  // Fills arrays with what is derived of columns begin … begin + count - 1.
  static FUSEGEN_FN void derive_columns(const Args& args, const typename K::Scalar& scalar,
                                        int64_t begin, int64_t count,
                                        const Pointers<T, DerivedCols::size>& to) {
    if constexpr (DerivedCols::size > 0) {
      for (int64_t j = 0; j < count; ++j) {
        typename K::Col col = loaded_column(args, begin + j);
        derive(scalar, col);
        each(DerivedCols{}, [&](auto item, auto place) { to[place][j] = col.*item.field; });
      }
    }
  }
};

// Fills an array with one of the call's streams of random numbers, from element `first` on.
template <class Rng, class Args, class T>
FUSEGEN_FN void draw(const Args& args, T* to, int64_t count, int64_t first) {
  fill_uniform(to, count, *args.seed, Rng::stream, uint64_t(first));
}

// Calls f with a pointer to each result that a sum over the grid is written to.
template <template <auto, class...> class Added, auto VALUE, class... Results, class Args, class F>
FUSEGEN_FN void each_result(Added<VALUE, Results...>, const Args& args, const F& f) {
  (f(pointer<typename Results::type, Results::arg>(args)), ...);
}

// The partial sums that tasks leave. `groups` of them have sums of columns, `tasks` sums over
// everything, and `places` is how many sums of channels there are.
template <class D, class S>
struct GridSums {
  using P = Parts<D, S>;
  using T = typename P::T;

  Buffers<T, P::ColSums::size> cols;
  Buffers<T, P::RowSums::size> rows;
  Buffers<T, P::RunSums::size> runs;
  Buffers<double, P::Totals::size> totals;

  // Adds them up in order and writes the results, then those that depend on them.
  void write(const typename P::Args& args, const typename P::K::Scalar& scalar, int64_t groups,
             int64_t tasks, int64_t places) const {
    each(typename P::ColSums{}, [&](auto item, auto n) {
      each_result(item, args,
                  [&](auto* to) { store_col_sums(to, cols.pointers()[n], groups, args.cols); });
    });
    each(typename P::RunSums{}, [&](auto item, auto n) {
      each_result(item, args, [&](auto* to) {
        store_channel_sums(to, runs.pointers()[n], places, channels_of<decltype(item)>(args), 1);
      });
    });
    each(typename P::RowSums{}, [&](auto item, auto n) {
      each_result(item, args, [&](auto* to) {
        store_channel_sums(to, rows.pointers()[n], args.rows, channels_of<decltype(item)>(args),
                           run_length<decltype(item)>(args));
      });
    });
    each(typename P::Totals{}, [&](auto item, auto n) {
      each_result(item, args, [&](auto* to) { store_total(to, totals.pointers()[n], tasks); });
    });
    P::finish(args, scalar);
  }
};

}  // namespace
}  // namespace fusegen
