// What the forms of both devices share: a kernel's items by their roles, and what is loaded,
// computed and stored for the whole call, for a row or for a column.
//
// All of it has internal linkage: kernel.cpp is compiled for several instruction sets.
#pragma once

#include "fusegen/forms/description.h"
#include "fusegen/precision.h"
#include "fusegen/random.h"

namespace fusegen {
namespace {

// Whether a stage, or some stages, read an input, for themselves or for an earlier stage that is
// repeated.
template <class Stage, class Input>
constexpr bool uses = has<Uses<Input::field>, typename Stage::items> ||
                      has<UsesAgain<Input::field>, typename Stage::items>;
// Of several inputs, those that it reads.
template <class Stage, class... Inputs>
FUSEGEN_FN constexpr auto used(List<Inputs...>) {
  return (List<>{} + ... + std::conditional_t<uses<Stage, Inputs>, List<Inputs>, List<>>{});
}
// Whether no item has one of some roles.
template <class Items, Role... ROLES>
constexpr bool has_none_of = ((Only<Items, ROLES>::size == 0) && ...);
// Where row i's number is in a tensor.
template <class Item, class Args>
FUSEGEN_FN int64_t row_place(const Args& args, int64_t i) {
  if constexpr (!Item::per_channel)
    return i;
  else if ((i | args.channel_run | args.channels) >> 31)
    return channel_of(i, args.channel_run, args.channels);
  else
    return args.channel_of_row(uint32_t(i));
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
// How many rows together have all channels.
template <class Item, class Args>
FUSEGEN_FN int64_t cycle_of(const Args& args) {
  return args.cycle;
}
// The seed of the call's random numbers.
template <class Item, class Args>
FUSEGEN_FN uint64_t seed_for(const Args& args) {
  return *args.seed;
}
// How far apart the columns of a row lie.
template <class D, class Args>
FUSEGEN_FN int64_t inner_of(const Args& args) {
  if constexpr (D::outer)
    return args.inner;
  else
    return 1;
}
// How many neighbours of a place belong to one row, if columns lie apart.
template <class D, class Args>
FUSEGEN_FN int64_t run_in_place(const Args& args) {
  if constexpr (D::interleaved)
    return args.run;
  else
    return 1;
}
// The element of an operand in row i and column `column`, as it is stored.
template <class D, class Item, class Args>
FUSEGEN_FN auto taken(const Args& args, int64_t i, int64_t column) {
  const int64_t row = Item::of_row ? i : 0, inner = Item::of_row ? inner_of<D>(args) : 1;
  using Stored = typename Item::type;
  if constexpr (std::is_null_pointer_v<std::remove_const_t<decltype(Item::arg)>>) {
    const int64_t place = place_in_row(row, column, args.cols, inner);
    return Stored(uniform(*args.seed, Item::stream, uint64_t(place)));
  } else {
    const Stored* const from = pointer<Stored, Item::arg>(args);
    if (args.cols == 0) return Stored{};
    const int64_t place = place_in_row(row, column, args.cols, inner);
    return from[gap_of<Item>(args, i / inner) + element_of<Item>(place)];
  }
}

// Pointers to N arrays.
template <class T, int N>
struct Pointers {
  T* to[N ? N : 1] = {};
  FUSEGEN_FN T* operator[](int n) const { return to[n]; }
};

// What the forms know of a kernel with description D over tensors stored as S.
template <class D, class S>
struct Parts {
  using T = compute_t<S>;
  using K = typename D::K;
  using Args = typename D::Args;
  using Inputs = InputsOf<D>;
  using Results = ResultsOf<D>;
  using Stages = StagesOf<D>;
  using AllStages = FirstStages<D>;

  template <Role ROLE>
  using Of = Only<AllStages, ROLE>;
  using Fulls = Only<Inputs, Role::full>;
  using Rngs = Only<Inputs, Role::rng>;
  using Spreads = Only<Inputs, Role::spread>;
  using DerivedCols = Only<Inputs, Role::derived>;
  using Lives = Of<Role::keep>;
  using Stores = Of<Role::store>;
  using ColSums = Of<Role::col_sum>;
  using RunSums = Of<Role::run_sum>;
  using Totals = decltype(Of<Role::total>{} + Only<Results, Role::row_total>{});
  using RowSums = Only<Results, Role::row_sum>;
  using RowTotals = Only<Results, Role::row_total>;
  // The values that all elements share.
  static FUSEGEN_FN typename K::Scalar scalars(const Args& args) {
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
  // What is loaded for row i: one number, one element that it takes, and all of them.
  template <class Item>
  static FUSEGEN_FN void load_number(const Args& args, int64_t i, typename K::Row& row) {
    const auto* const from = pointer<typename Item::type, Item::arg>(args);
    row.*Item::field = T(load(from + row_place<Item>(args, i)));
  }
  template <class Item>
  static FUSEGEN_FN void take_element(const Args& args, int64_t i, typename K::Row& row) {
    const int64_t column = pointer<int64_t, Item::index>(args)[i];
    row.*Item::field = T(Storage<typename Item::type>::load(taken<D, Item>(args, i, column)));
  }
  static FUSEGEN_FN void load_row(const Args& args, int64_t i, typename K::Row& row) {
    each(Only<Inputs, Role::row>{},
         [&](auto item, auto) { load_number<decltype(item)>(args, i, row); });
    each(Only<Inputs, Role::taken>{},
         [&](auto item, auto) { take_element<decltype(item)>(args, i, row); });
  }
  // Stores what belongs to row i.
  static FUSEGEN_FN void store_row(const Args& args, int64_t i, const typename K::Scalar& scalar,
                                   const typename K::Row& row) {
    each(Only<Results, Role::row_store>{},
         [&](auto item, auto) { put<decltype(item)>(args, i, member(row, scalar, item.value)); });
  }
  // Stores the results that depend on sums over the grid.
  static FUSEGEN_FN void finish(const Args& args, const typename K::Scalar& scalar) {
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
      col.*item.field =
          load(pointer<Stored, decltype(item)::arg>(args) + element_of<decltype(item)>(at));
    });
    each(Only<Inputs, Role::index>{}, [&](auto item, auto) { col.*item.field = T(at); });
    return col;
  }
};

}  // namespace
}  // namespace fusegen
