// Lists of types, and loops over them that a compiler unrolls.
#pragma once

#include <type_traits>
#include <utility>

#include "fusegen/platform.h"

namespace fusegen {

// A place in a list.
template <int N>
struct Place {
  static constexpr int value = N;
  FUSEGEN_FN constexpr operator int() const { return N; }
};

template <class... Items>
struct List {
  using items = List;
  static constexpr int size = sizeof...(Items);
};
template <class... A, class... B>
FUSEGEN_FN constexpr List<A..., B...> operator+(List<A...>, List<B...>) {
  return {};
}

// Item N of the list that Source declares. Functions are made for such items, and not for the items
// themselves: these name members of structs, so the functions' names would have thousands of
// characters, which compilers take long to write and to read.
template <class Source, int N>
struct At;
template <class Source, class... Items, int... PLACES>
FUSEGEN_FN constexpr List<At<Source, PLACES>...> numbered(List<Items...>,
                                                          std::integer_sequence<int, PLACES...>) {
  return {};
}
template <class Source, class Declared>
using Numbered =
    decltype(numbered<Source>(Declared{}, std::make_integer_sequence<int, Declared::size>{}));
// The item itself.
template <int N, class Item>
struct Indexed {};
template <class Places, class... Items>
struct IndexedAll;
template <int... PLACES, class... Items>
struct IndexedAll<std::integer_sequence<int, PLACES...>, Items...> : Indexed<PLACES, Items>... {};
template <class... Items>
IndexedAll<std::make_integer_sequence<int, sizeof...(Items)>, Items...> indexed(List<Items...>);
template <int N, class Item>
Item item_at(Indexed<N, Item>);
template <class Declared, int N>
using ItemAt = decltype(item_at<N>(indexed(Declared{})));
template <class Source, int N>
struct At : ItemAt<typename Source::declared, N> {};

// The items of a role among those of Source, a list or what has one.
template <auto ROLE, class... Items>
FUSEGEN_FN constexpr auto only(List<Items...>) {
  return (List<>{} + ... + std::conditional_t<Items::role == ROLE, List<Items>, List<>>{});
}
template <class Source, auto ROLE>
using Only = decltype(only<ROLE>(typename Source::items{}));

// Calls f(item, place) for each item. `f` belongs to the device that the caller runs on, which nvcc
// does not see.
FUSEGEN_CALLS_ANY
template <class F>
FUSEGEN_FN void each(List<>, const F&) {}
FUSEGEN_CALLS_ANY
template <class A, class F>
FUSEGEN_FN void each(List<A>, const F& f) {
  f(A{}, Place<0>{});
}
FUSEGEN_CALLS_ANY
template <class A, class B, class F>
FUSEGEN_FN void each(List<A, B>, const F& f) {
  f(A{}, Place<0>{});
  f(B{}, Place<1>{});
}
FUSEGEN_CALLS_ANY
template <class... Items, class F, int... PLACES>
FUSEGEN_FN void each_of(List<Items...>, const F& f, std::integer_sequence<int, PLACES...>) {
  (f(Items{}, Place<PLACES>{}), ...);
}
FUSEGEN_CALLS_ANY
template <class A, class B, class C, class... Items, class F>
FUSEGEN_FN void each(List<A, B, C, Items...> items, const F& f) {
  each_of(items, f, std::make_integer_sequence<int, 3 + sizeof...(Items)>{});
}

// A value for each item, of the type `Kind::of<Item>`.
template <class Item, class Value>
struct Slot {
  Value value{};
};
template <class Kind, class Items>
struct Slots;
template <class Kind, class... Items>
struct Slots<Kind, List<Items...>> : Slot<Items, typename Kind::template of<Items>>... {
  template <class Item>
  FUSEGEN_FN auto& of() {
    return static_cast<Slot<Item, typename Kind::template of<Item>>&>(*this).value;
  }
};

// A type for each member of a struct, to compare members of different structs.
template <auto MEMBER>
struct Member;

// Whether an item is in a list, and at which place.
template <class Item, class Items>
constexpr bool has = false;
template <class Item, class... Items>
constexpr bool has<Item, List<Items...>> = (std::is_base_of_v<Item, Items> || ...);
template <class Item, class... Items>
constexpr int place_among() {
  int place = 0;
  (void)((std::is_base_of_v<Item, Items> || (++place, false)) || ...);
  return place;
}
template <class Item, class Items>
constexpr int place_of = 0;
template <class Item, class... Items>
constexpr int place_of<Item, List<Items...>> = place_among<Item, Items...>();

}  // namespace fusegen
