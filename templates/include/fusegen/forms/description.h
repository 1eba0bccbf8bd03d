// The words in which a package describes a kernel to its form: which fields of the structs in
// element.h are loaded from which arguments, and what each stage computes, keeps, reduces, stores
// and adds up.
//
// FIELD, OUT and ROW are members of those structs; ARG and GAP are members of the kernel's
// arguments (kernel.h).
#pragma once

#include <cstdint>
#include <type_traits>

#include "fusegen/dtype.h"
#include "fusegen/forms/lists.h"
#include "fusegen/strided.h"

namespace fusegen {

// What an item says: of inputs, of what a stage does, and of results that no stage writes.
enum class Role {
  full,
  rng,
  spread,
  col,
  index,
  derived,
  column_lines,
  row,
  taken,
  scalar,
  number,
  scalar_lines,
  row_lines,
  after,
  uses,
  uses_columns,
  read,
  keep,
  provisional,
  shifted,
  rescaled,
  joined,
  centred,
  sum,
  largest,
  store,
  col_sum,
  run_sum,
  total,
  row_store,
  row_sum,
  row_total,
  col_store,
  known_total,
  final_lines,
  final
};

// Fields of a struct.
template <auto... FIELDS>
struct Fields {};

// ---- Inputs: what elements, columns, rows and the whole call read.

// A tensor with one number for each element. GAP: what lies between its rows.
template <auto FIELD, auto ARG, auto GAP = nullptr>
struct Full {
  static constexpr Role role = Role::full;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
  static constexpr auto gap = GAP;
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
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
};
// One number for each column, stored as `Stored`.
template <auto FIELD, auto ARG, class Stored>
struct Col {
  static constexpr Role role = Role::col;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
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
// The function that computes the derived ones.
template <auto FUNCTION>
struct ColumnLines {
  static constexpr Role role = Role::column_lines;
  static constexpr auto function = FUNCTION;
};
// One number for each row, stored as `Stored`; or, PER_CHANNEL, for each channel, where a channel
// is a run of rows.
template <auto FIELD, auto ARG, class Stored, bool PER_CHANNEL = false>
struct RowLoad {
  static constexpr Role role = Role::row;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
  static constexpr bool per_channel = PER_CHANNEL;
  using type = Stored;
};
// One element of a row, stored as `Stored`, in the column that a number of the row says: INDEX is
// the argument with these numbers. OF_ROW: whether the operand differs from row to row; otherwise
// it has one number for each column.
template <auto FIELD, auto INDEX, auto ARG, class Stored, bool OF_ROW, auto GAP = nullptr>
struct Taken {
  static constexpr Role role = Role::taken;
  static constexpr auto field = FIELD;
  static constexpr auto index = INDEX;
  static constexpr auto arg = ARG;
  static constexpr auto gap = GAP;
  static constexpr bool of_row = OF_ROW;
  using type = Stored;
};
// The same of random numbers.
template <auto FIELD, auto INDEX, uint32_t STREAM, class Stored, bool OF_ROW>
struct TakenRng {
  static constexpr Role role = Role::taken;
  static constexpr auto field = FIELD;
  static constexpr auto index = INDEX;
  static constexpr auto arg = nullptr;
  static constexpr uint32_t stream = STREAM;
  static constexpr bool of_row = OF_ROW;
  using type = Stored;
};
// One number for all elements, stored as `Stored`.
template <auto FIELD, auto ARG, class Stored>
struct Scalar {
  static constexpr Role role = Role::scalar;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
  using type = Stored;
};
// A number that the call passes: an attribute, or an extent such as the number of columns.
template <auto FIELD, auto ARG>
struct Number {
  static constexpr Role role = Role::number;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
};
// The function that computes further ones, once per call.
template <auto FUNCTION>
struct ScalarLines {
  static constexpr Role role = Role::scalar_lines;
  static constexpr auto function = FUNCTION;
};

// ---- What a stage does. ELEMENT is its function in element.h, or nullptr where it computes values
// of rows alone.

// The function that computes values of the row before the stage begins, and the values.
template <auto FUNCTION, auto... FIELDS>
struct RowLines {
  static constexpr Role role = Role::row_lines;
  static constexpr auto function = FUNCTION;
  using fields = Fields<FIELDS...>;
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
// Said of a stage that reads operands of columns.
struct UsesColumns {
  static constexpr Role role = Role::uses_columns;
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
  static constexpr auto out = OUT;
  static constexpr auto row = ROW;
};
template <auto OUT, auto ROW>
struct Largest {
  static constexpr Role role = Role::largest;
  static constexpr auto out = OUT;
  static constexpr auto row = ROW;
};
// A result with one number for each element.
template <auto OUT, auto ARG, auto GAP = nullptr>
struct Store {
  static constexpr Role role = Role::store;
  static constexpr auto out = OUT;
  static constexpr auto arg = ARG;
  static constexpr auto gap = GAP;
};

// The maximum that the stage finds may be that of some of the row's elements: the next stage's sums
// are relative to it, and both are joined to those of the row together.
struct Provisional {
  static constexpr Role role = Role::provisional;
};
// ROW: the provisional maximum that the stage's sums are relative to.
template <auto ROW>
struct Shifted {
  static constexpr Role role = Role::shifted;
  static constexpr auto row = ROW;
};
// A live value relative to that maximum, which this stage is the first to read again.
template <auto FIELD>
struct Rescaled {
  static constexpr Role role = Role::rescaled;
  static constexpr auto field = FIELD;
};

// A form that streams a row may find the stage's sum, S, together with that of the next stage,
// which is of the squares of what is summed less its mean, S / cols.
struct Joined {
  static constexpr Role role = Role::joined;
};
// Said of that next stage.
struct Centred {
  static constexpr Role role = Role::centred;
};

// ---- Sums over the grid. `Results` are the arguments they are written to.

// A result in the tensors' dtype, and one in the type that it is computed in.
template <auto ARG>
struct To {
  static constexpr auto arg = ARG;
  static constexpr bool computed = false;
};
template <auto ARG>
struct Save {
  static constexpr auto arg = ARG;
  static constexpr bool computed = true;
};
// Over the rows, for each column.
template <auto OUT, class... Results>
struct ColSum {
  static constexpr Role role = Role::col_sum;
  static constexpr auto out = OUT;
  using results = List<Results...>;
};
// Over the elements of each channel, where a channel is a run of elements.
template <auto OUT, class... Results>
struct RunSum {
  static constexpr Role role = Role::run_sum;
  static constexpr auto out = OUT;
  using results = List<Results...>;
};
// Over all elements.
template <auto OUT, class... Results>
struct Total {
  static constexpr Role role = Role::total;
  static constexpr auto out = OUT;
  using results = List<Results...>;
};

// ---- Results that no stage writes. VALUE is a member of Row (Col, Total) or of Scalar.

// One number for each row, or for each column.
template <auto VALUE, auto ARG, class Stored>
struct RowStore {
  static constexpr Role role = Role::row_store;
  static constexpr auto value = VALUE;
  static constexpr auto arg = ARG;
  using type = Stored;
};
template <auto VALUE, auto ARG, class Stored>
struct ColStore {
  static constexpr Role role = Role::col_store;
  static constexpr auto value = VALUE;
  static constexpr auto arg = ARG;
  using type = Stored;
};
// Sums over one number of each row: for each channel, where a channel is a run of rows, and over
// all rows.
template <auto VALUE, class... Results>
struct RowSum {
  static constexpr Role role = Role::row_sum;
  static constexpr auto value = VALUE;
  using results = List<Results...>;
};
template <auto VALUE, class... Results>
struct RowTotal {
  static constexpr Role role = Role::row_total;
  static constexpr auto value = VALUE;
  using results = List<Results...>;
};
// Results that depend on sums over the grid: the sums, the function that computes the values, and
// the values.
template <auto FIELD, auto ARG>
struct KnownTotal {
  static constexpr Role role = Role::known_total;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
};
template <auto FUNCTION, class Totals>
struct FinalLines {
  static constexpr Role role = Role::final_lines;
  using type = Totals;
  static constexpr auto function = FUNCTION;
};
template <auto VALUE, auto ARG, class Stored>
struct Final {
  static constexpr Role role = Role::final;
  static constexpr auto value = VALUE;
  static constexpr auto arg = ARG;
  using type = Stored;
};

// ---- Stages, and what forms ask of items.

template <auto ELEMENT, class... Items>
struct Stage {
  static constexpr auto element = ELEMENT;
  static constexpr bool has_elements = !std::is_null_pointer_v<decltype(ELEMENT)>;
  using items = List<Items...>;
};

// What a description declares, with items by their places: the inputs, the stages, and the results
// that no stage writes.
template <class D>
struct InputsOf {
  using declared = typename D::inputs;
  using items = Numbered<InputsOf, declared>;
};
template <class D>
struct ResultsOf {
  using declared = typename D::results;
  using items = Numbered<ResultsOf, declared>;
};
template <class D, int N>
struct StageAt : ItemAt<typename D::stages, N> {
  using declared = typename ItemAt<typename D::stages, N>::items;
  using items = Numbered<StageAt, declared>;
};
// Before the first one.
template <class D>
struct StageAt<D, -1> {
  using items = List<>;
};
template <class D, int... PLACES>
FUSEGEN_FN constexpr List<StageAt<D, PLACES>...> stages_at(std::integer_sequence<int, PLACES...>) {
  return {};
}
template <class D>
using StagesOf = decltype(stages_at<D>(std::make_integer_sequence<int, D::stages::size>{}));
// The items of the first N stages.
template <class... Stages>
FUSEGEN_FN constexpr auto all_items(List<Stages...>) {
  return (List<>{} + ... + typename Stages::items{});
}
template <class D, int N = D::stages::size>
struct FirstStages {
  using items = decltype(all_items(stages_at<D>(std::make_integer_sequence<int, N>{})));
};

// Whether there may be gaps between the rows of an item's tensor.
template <class Item>
constexpr bool has_gap = !std::is_null_pointer_v<std::remove_const_t<decltype(Item::gap)>>;
// How far the gaps before row r put an item's tensor.
template <class Item, class Args>
FUSEGEN_FN int64_t gap_of(const Args& args, int64_t r) {
  if constexpr (has_gap<Item>)
    return gap_before(args.*Item::gap, r);
  else
    return 0;
}

// An argument as a pointer to numbers that are stored as S.
template <class S, auto ARG, class Args>
FUSEGEN_FN auto pointer(const Args& args) {
  using Memory = std::remove_pointer_t<std::remove_reference_t<decltype(args.*ARG)>>;
  return static_cast<std::conditional_t<std::is_const_v<Memory>, const S*, S*>>(args.*ARG);
}
// Stores number i there. A call without derivatives passes no memory for saved statistics.
template <class Item, class Args, class T>
FUSEGEN_FN void put(const Args& args, int64_t i, T value) {
  auto* const memory = pointer<typename Item::type, Item::arg>(args);
  if (memory) store(memory + i, value);
}
// A member of a struct or of the scalars, whichever it belongs to.
template <class Struct, class Scalar, class T, class Owner>
FUSEGEN_FN T member(const Struct& values, const Scalar& scalar, T Owner::* value) {
  if constexpr (std::is_same_v<Owner, Struct>)
    return values.*value;
  else
    return scalar.*value;
}

// What a kernel has unless its description says otherwise.
struct Description {
  using inputs = List<>;
  using stages = List<>;
  using results = List<>;
  static constexpr bool flat = false;        // whether no value depends on where a row ends
  static constexpr bool recomputed = false;  // whether live values are computed again, not kept
  static constexpr bool outer = false;       // whether columns may lie apart, `args.inner` elements
};

}  // namespace fusegen
