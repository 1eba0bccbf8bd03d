// Columns of two items that alternate in one tensor: threads read vectors of both and sort them.
#pragma once

#include <cstdint>
#include <type_traits>

#include "fusegen/forms/parts.h"
#include "fusegen/vector.cuh"

namespace fusegen {
namespace {

// Where an item's vector of the V elements from n on is. Two items whose columns alternate have two
// neighbouring vectors together: the first one is read with the item of the even columns, and the
// second one with the other. `alternating_*` sort them afterwards.
template <class Item, int V, class Offset>
FUSEGEN_FN constexpr auto vector_of(Offset n) {
  if constexpr (Item::step == 1)
    return n;
  else
    return Item::step * (int64_t(0) + n) + Item::place * V;
}

// Element `at` of two neighbouring vectors.
template <class Pack>
__device__ __forceinline__ auto element_of_two(const Pack& first, const Pack& second, int at) {
  constexpr int width = sizeof(first.value) / sizeof(first.value[0]);
  return at < width ? first.value[at] : second.value[at - width];
}

// Every second element of two neighbouring vectors, from the first one or from the next one on.
template <int PLACE, class Pack>
__device__ __forceinline__ Pack alternating_of(const Pack& first, const Pack& second) {
  constexpr int width = sizeof(first.value) / sizeof(first.value[0]);
  Pack found;
#pragma unroll
  for (int v = 0; v < width; ++v) found.value[v] = element_of_two(first, second, 2 * v + PLACE);
  return found;
}

// The reverse: the first or the second of two neighbouring vectors, of their alternating elements.
template <int PLACE, class Pack>
__device__ __forceinline__ Pack alternating_in(const Pack& even, const Pack& odd) {
  constexpr int width = sizeof(even.value) / sizeof(even.value[0]);
  Pack found;
#pragma unroll
  for (int v = 0; v < width; ++v) {
    const int at = width * PLACE + v;
    found.value[v] = at % 2 ? odd.value[at / 2] : even.value[at / 2];
  }
  return found;
}

// Reads the V elements of columns that an item has from column c on, however they alternate.
template <class Item, int V, class S>
__device__ __forceinline__ Packed<S, V> load_columns(const S* from, int64_t c) {
  if constexpr (alternates<Item>)
    return alternating_of<Item::place>(load_packed<V>(from + 2 * c),
                                       load_packed<V>(from + 2 * c + V));
  else
    return load_packed<V>(from + c);
}

// Whether a stage needs an item's vector, for the item itself or for the one that alternates with
// it.
template <class Stage, class Item, class... Items>
FUSEGEN_FN constexpr bool needs(List<Items...>) {
  return ((uses<Stage, Items> &&
           (std::is_same_v<Items, Item> ||
            (alternates<Items> && std::is_same_v<Member<Items::gap>, Member<Item::gap>>))) ||
          ...);
}

}  // namespace
}  // namespace fusegen
