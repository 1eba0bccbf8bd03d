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
  static constexpr int size = sizeof...(Items);
};
template <class... A, class... B>
FUSEGEN_FN constexpr List<A..., B...> operator+(List<A...>, List<B...>) {
  return {};
}

// The items of a role.
template <auto ROLE, class... Items>
FUSEGEN_FN constexpr auto only(List<Items...>) {
  return (List<>{} + ... + std::conditional_t<Items::role == ROLE, List<Items>, List<>>{});
}
template <class Items, auto ROLE>
using Only = decltype(only<ROLE>(Items{}));

// The items of all stages.
template <class... Stages>
FUSEGEN_FN constexpr auto all_items(List<Stages...>) {
  return (List<>{} + ... + typename Stages::items{});
}

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
template <class... Items, class F, int... PLACES>
FUSEGEN_FN void each_of(List<Items...>, const F& f, std::integer_sequence<int, PLACES...>) {
  (f(Items{}, Place<PLACES>{}), ...);
}
FUSEGEN_CALLS_ANY
template <class A, class B, class... Items, class F>
FUSEGEN_FN void each(List<A, B, Items...> items, const F& f) {
  each_of(items, f, std::make_integer_sequence<int, 2 + sizeof...(Items)>{});
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

// N values, each made by make(place).
template <class Value, int N>
struct Several {
  Value values[N];
  template <class F>
  FUSEGEN_FN explicit Several(const F& make)
      : Several(make, std::make_integer_sequence<int, N>{}) {}
  FUSEGEN_FN Value& operator[](int n) { return values[n]; }

 private:
  template <class F, int... PLACES>
  FUSEGEN_FN Several(const F& make, std::integer_sequence<int, PLACES...>)
      : values{make(Place<PLACES>{})...} {}
};
template <class Value>
struct Several<Value, 0> {
  Value& operator[](int);  // never called
  template <class F>
  FUSEGEN_FN explicit Several(const F&) {}
};

// Whether an item is in a list, and at which place.
template <class Item, class... Items>
FUSEGEN_FN constexpr bool has(List<Items...>) {
  return (std::is_same_v<Item, Items> || ...);
}
template <class Item, class... Items>
FUSEGEN_FN constexpr int place_of(List<Items...>) {
  int place = 0;
  (void)((std::is_same_v<Item, Items> || (++place, false)) || ...);
  return place;
}

}  // namespace fusegen
