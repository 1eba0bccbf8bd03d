// Lists of types, and loops over them that a compiler unrolls.
#pragma once

#include <type_traits>
#include <utility>

#include "fusegen/platform.h"

namespace fusegen {

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

// The items of a role.
template <auto ROLE, class... Items>
constexpr auto only(List<Items...>) {
  return (List<>{} + ... + std::conditional_t<Items::role == ROLE, List<Items>, List<>>{});
}
template <class Items, auto ROLE>
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

}  // namespace fusegen
