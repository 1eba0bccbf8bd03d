// The words in which a package describes a kernel to its form: which fields of the structs in
// element.h are loaded from which arguments, and what each stage computes, keeps, reduces, stores
// and adds up.
//
// FIELD, OUT and ROW are members of those structs; ARG and GAP are members of the kernel's
// arguments (kernel.h).
#pragma once

#include <cstdint>
#include <type_traits>

#include "fusegen/storage.h"
#include "fusegen/forms/input_items.h"
#include "fusegen/forms/lists.h"
#include "fusegen/forms/result_items.h"
#include "fusegen/forms/stage_items.h"
#include "fusegen/strided.h"

namespace fusegen {

// Its items stand in input_items.h, stage_items.h and result_items.h. A stage has a function in
// element.h, ELEMENT, or nullptr.
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

// Where element n of an item is in its tensor, if there are no gaps.
template <class Item>
FUSEGEN_FN constexpr int64_t element_of(int64_t n) {
  return Item::step * n + Item::place;
}
// Whether the columns of an item alternate with those of another one.
template <class Item>
constexpr bool alternates = Item::step > 1;
template <class... Items>
constexpr bool any_alternates(List<Items...>) {
  return (alternates<Items> || ...);
}

// The first of some items that lies behind the same gaps as this one.
template <class Item, class... Items>
FUSEGEN_FN constexpr int same_gap(List<Items...>) {
  int place = 0;
  (void)((std::is_same_v<Member<Items::gap>, Member<Item::gap>> || (++place, false)) || ...);
  return place;
}
// The item whose columns alternate with those of this one, by its place among some items; their
// number if it is not among them.
template <class Item, class... Items>
FUSEGEN_FN constexpr int neighbour(List<Items...>) {
  int place = 0;
  (void)(((std::is_same_v<Member<Items::gap>, Member<Item::gap>> && Items::place != Item::place) ||
          (++place, false)) ||
         ...);
  return place;
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
  static constexpr bool interleaved = false;  // whether so may groups of `args.run` columns
  static constexpr bool keeps_rows = false;  // whether `args.known_rows` gets what is known of rows
  static constexpr bool knows_rows = false;  // whether it has that already
};

}  // namespace fusegen
