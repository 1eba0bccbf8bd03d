// The words in which a package describes a kernel to its form: which fields of the structs in
// element.h are loaded from which arguments, and what each stage computes, keeps, reduces, stores
// and adds up.
//
// FIELD, OUT and ROW are members of those structs; ARG and GAP are members of the kernel's
// arguments (kernel.h).
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "fusegen/dtype.h"
#include "fusegen/strided.h"

namespace fusegen {

enum class Role {
  full,
  rng,
  spread,
  col,
  index,
  derived,
  row,  // what an element reads
  row_lines,
  after,
  uses,
  read,
  keep,  // what a stage computes with
  sum,
  largest,
  store,
  col_sum,
  run_sum,
  total,  // what becomes of its values
  row_sum,
  row_total
};  // and of each row's

// ---- Lists and places in them.

template <int N>
using Place = std::integral_constant<int, N>;

template <class... Items>
struct List {
  static constexpr int size = sizeof...(Items);
};
template <class... A, class... B>
constexpr List<A..., B...> operator+(List<A...>, List<B...>) {
  return {};
}

// ---- What an element reads.

// A tensor with one number for each element. GAP: what lies between its rows.
template <auto FIELD, auto ARG, auto GAP = nullptr>
struct Full {
  static constexpr Role role = Role::full;
  static constexpr auto field = FIELD, arg = ARG, gap = GAP;
};
// Random numbers of one of the call's streams. SHARED: several stages read them.
template <auto FIELD, uint32_t STREAM, bool SHARED = false>
struct Rng {
  static constexpr Role role = Role::rng;
  static constexpr auto field = FIELD;
  static constexpr uint32_t stream = STREAM;
  static constexpr bool shared = SHARED;
};
// A tensor with one number for each channel, where a channel is a run of elements.
template <auto FIELD, auto ARG>
struct Spread {
  static constexpr Role role = Role::spread;
  static constexpr auto field = FIELD, arg = ARG;
};
// One number for each column, stored as `Stored`.
template <auto FIELD, auto ARG, class Stored>
struct Col {
  static constexpr Role role = Role::col;
  static constexpr auto field = FIELD, arg = ARG;
  using type = Stored;
};
// The number of the column.
template <auto FIELD>
struct Index {
  static constexpr Role role = Role::index;
  static constexpr auto field = FIELD;
};
// What K::columns computes once for each column.
template <auto FIELD>
struct Derived {
  static constexpr Role role = Role::derived;
  static constexpr auto field = FIELD;
};
// A value of the row: loaded, or computed or reduced on the way.
template <auto FIELD, bool LOADED = false>
struct Row {
  static constexpr Role role = Role::row;
  static constexpr auto field = FIELD;
  static constexpr bool loaded = LOADED;
};

// ---- What a stage does. ELEMENT is its function in element.h, or nullptr where it computes values
// of rows alone.

// The function that computes values of the row before the stage begins, and the values.
template <auto FUNCTION, auto... FIELDS>
struct RowLines {
  static constexpr Role role = Role::row_lines;
  static constexpr auto function = FUNCTION;
  using fields = List<Row<FIELDS>...>;
};
// An earlier stage whose live values this one computes again, if the form does not keep them.
template <auto FUNCTION>
struct After {
  static constexpr Role role = Role::after;
  static constexpr auto function = FUNCTION;
};
// An input of each element that the stage reads: for itself, or only to compute those live values
// again.
template <auto FIELD>
struct Uses {
  static constexpr Role role = Role::uses;
};
template <auto FIELD>
struct UsesAgain {
  static constexpr Role role = Role::uses;
};
// A live value of an earlier stage that it reads, or one that it leaves for later stages.
template <auto FIELD>
struct Read {
  static constexpr Role role = Role::read;
  static constexpr auto field = FIELD;
};
template <auto FIELD>
struct Keep {
  static constexpr Role role = Role::keep;
  static constexpr auto field = FIELD;
};
// A sum or maximum over the row.
template <auto OUT, auto ROW>
struct Sum {
  static constexpr Role role = Role::sum;
  static constexpr auto out = OUT, row = ROW;
};
template <auto OUT, auto ROW>
struct Largest {
  static constexpr Role role = Role::largest;
  static constexpr auto out = OUT, row = ROW;
};
// A result with one number for each element.
template <auto OUT, auto ARG, auto GAP = nullptr>
struct Store {
  static constexpr Role role = Role::store;
  static constexpr auto out = OUT, arg = ARG, gap = GAP;
};

// ---- Sums over the grid. `Results` are the arguments they are written to.

template <auto ARG, class Stored>
struct To {
  static constexpr auto arg = ARG;
  using type = Stored;
};
// Over the rows, for each column.
template <auto OUT, class... Results>
struct ColSum {
  static constexpr Role role = Role::col_sum;
  static constexpr auto out = OUT;
};
// Over the elements of each channel, where a channel is a run of elements.
template <auto OUT, class... Results>
struct RunSum {
  static constexpr Role role = Role::run_sum;
  static constexpr auto out = OUT;
};
// Over all elements.
template <auto OUT, class... Results>
struct Total {
  static constexpr Role role = Role::total;
  static constexpr auto out = OUT;
};
// Over one number of each row: for each channel, where a channel is a run of rows, and over all
// rows.
template <class... Results>
struct RowSum {
  static constexpr Role role = Role::row_sum;
};
template <class... Results>
struct RowTotal {
  static constexpr Role role = Role::row_total;
};

// ---- Stages, and what a list holds.

template <auto ELEMENT, class... Items>
struct Stage {
  static constexpr auto element = ELEMENT;
  static constexpr bool has_elements = !std::is_null_pointer_v<decltype(ELEMENT)>;
  using items = List<Items...>;
};

// The items of a role.
template <Role ROLE, class... Items>
constexpr auto only(List<Items...>) {
  return (List<>{} + ... + std::conditional_t<Items::role == ROLE, List<Items>, List<>>{});
}
template <class Items, Role ROLE>
using Only = decltype(only<ROLE>(Items{}));

// The items of all stages.
template <class... Stages>
constexpr auto all_items(List<Stages...>) {
  return (List<>{} + ... + typename Stages::items{});
}

// Calls f(item, place) for each item.
template <class... Items, class F, int... PLACES>
FUSEGEN_FN void each_of(List<Items...>, const F& f, std::integer_sequence<int, PLACES...>) {
  (f(Items{}, Place<PLACES>{}), ...);
}
template <class... Items, class F>
FUSEGEN_FN void each(List<Items...> items, const F& f) {
  each_of(items, f, std::make_integer_sequence<int, sizeof...(Items)>{});
}

// Whether an item is in a list, and at which place.
template <class Item, class... Items>
constexpr bool has(List<Items...>) {
  return (std::is_same_v<Item, Items> || ...);
}
template <class Item, class... Items>
constexpr int place_of(List<Items...>) {
  int place = 0;
  (void)((std::is_same_v<Item, Items> || (++place, false)) || ...);
  return place;
}

// How far the gaps before row r put an item's tensor.
template <class Item, class Args>
FUSEGEN_FN int64_t gap_of(const Args& args, int64_t r) {
  if constexpr (std::is_null_pointer_v<std::remove_const_t<decltype(Item::gap)>>)
    return 0;
  else
    return gap_before(args.*Item::gap, r);
}

// An argument as a pointer to numbers that are stored as S.
template <class S, auto ARG, class Args>
FUSEGEN_FN auto pointer(const Args& args) {
  using Memory = std::remove_pointer_t<std::remove_reference_t<decltype(args.*ARG)>>;
  return static_cast<std::conditional_t<std::is_const_v<Memory>, const S*, S*>>(args.*ARG);
}
// Number i of an argument, for the lines that a package writes itself.
template <class S>
FUSEGEN_FN compute_t<S> at(const void* memory, int64_t i) {
  return load(static_cast<const S*>(memory) + i);
}
// Stores a number there. A call without derivatives passes no memory for saved statistics.
template <class S>
FUSEGEN_FN void put(void* memory, int64_t i, compute_t<S> value) {
  if (memory) store(static_cast<S*>(memory) + i, value);
}

// What a kernel has unless its description says otherwise.
struct Description {
  using inputs = List<>;  // Full, Rng, Spread, Col, Index, Derived
  using row = List<>;     // the fields of Row
  using stages = List<>;
  using row_results =
      List<>;  // RowSum, RowTotal; row_sum(Place<n>, …) and row_total(…) give the nth number
  static constexpr bool flat = false;        // whether no value depends on where a row ends
  static constexpr bool recomputed = false;  // whether live values are computed again, not kept

  template <class Args, class Scalar>
  static void load_scalars(const Args&, Scalar&) {}
  template <class Args, class Row>
  static FUSEGEN_FN void load_row(const Args&, int64_t, Row&) {}
  template <class Scalar, class Col>
  static FUSEGEN_FN void columns(const Scalar&, Col&) {}
  template <class Args, class Scalar, class Row>
  static FUSEGEN_FN void store_row(const Args&, int64_t, const Scalar&, const Row&) {}
  template <class Args, class Scalar, class Col>
  static FUSEGEN_FN void store_column(const Args&, int64_t, const Scalar&, const Col&) {}
  template <class N, class Scalar, class Row>
  static double row_sum(N, const Scalar&, const Row&);
  template <class N, class Scalar, class Row>
  static double row_total(N, const Scalar&, const Row&);
  template <class Args, class Scalar>
  static void finish(const Args&, const Scalar&) {}
};

}  // namespace fusegen
