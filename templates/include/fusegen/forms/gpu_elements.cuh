// What a stage leaves of V neighbouring elements on the GPU: numbers to store, terms of sums over
// the grid, and what it reduces over the row.
#pragma once

#include "fusegen/forms/gpu_parts.cuh"

namespace fusegen {
namespace {

// What is known of all elements of a thread, and of the vector in work. P: GpuParts.
template <class P, int V>
struct Elements {
  using T = typename P::T;
  using S = typename P::Stored;

  T totals[P::Totals::size + 1] = {};
  Vector<T, V> stored[P::Stores::size + 1];
  Vector<T, V> summed[P::ColumnSums::size + 1];

  // Takes element v's outputs of a stage with these items.
  template <class Items, class Out>
  __device__ __forceinline__ void take(int v, const Out& out) {
    each(Only<Items, Role::store>{}, [&](auto item, auto) {
      stored[place_of<decltype(item)>(typename P::Stores{})].value[v] = out.*item.out;
    });
    each(Only<Items, Role::total>{}, [&](auto item, auto) {
      totals[place_of<decltype(item)>(typename P::Totals{})] += out.*item.out;
    });
    each(Only<Items, Role::col_sum>{} + Only<Items, Role::run_sum>{}, [&](auto item, auto) {
      summed[place_of<decltype(item)>(typename P::ColumnSums{})].value[v] = out.*item.out;
    });
  }
  // Stores the vectors of a stage, `offset` elements after the pointers of its results. WHOLE: in
  // one access after a condition.
  template <class Items, bool WHOLE = false>
  __device__ __forceinline__ void store(S* const* to, int64_t offset) const {
    each(Only<Items, Role::store>{}, [&](auto item, auto n) {
      const auto& values = stored[place_of<decltype(item)>(typename P::Stores{})];
      if constexpr (WHOLE)
        store_at_once(to[n] + offset, values);
      else
        store_vector(to[n] + offset, values);
    });
  }
};

// Turns live values that a stage with these items reads into values relative to the row's maximum.
template <class Items, int V, class Live, class T>
__device__ __forceinline__ void rescale_live(Live* live, T factor) {
  each(Only<Items, Role::rescaled>{}, [&](auto value, auto) {
#pragma unroll
    for (int v = 0; v < V; ++v) live[v].*value.field *= factor;
  });
}

// What a thread has reduced of a row in a stage with these items.
template <class T, class Items>
struct Reductions {
  using Sums = Only<Items, Role::sum>;
  using Largest = Only<Items, Role::largest>;

  T sum[Sums::size + 1];
  T largest[Largest::size + 1];

  __device__ __forceinline__ Reductions() {
    each(Sums{}, [&](auto, auto n) { sum[n] = Addition::identity<T>(); });
    each(Largest{}, [&](auto, auto n) { largest[n] = Maximum::identity<T>(); });
  }
  template <class Out>
  __device__ __forceinline__ void take(const Out& out) {
    each(Sums{}, [&](auto item, auto n) { sum[n] = Addition::combine(sum[n], out.*item.out); });
    each(Largest{},
         [&](auto item, auto n) { largest[n] = Maximum::combine(largest[n], out.*item.out); });
  }
  __device__ __forceinline__ void scale(T factor) {
    each(Sums{}, [&](auto, auto n) { sum[n] *= factor; });
  }
  // Reduces them over the team, some at a time.
  template <class Team, class Row>
  __device__ __forceinline__ void reduce(Team& team, Row& row) const {
    some<Maximum, Largest, 0>(team, row, largest);
    some<Addition, Sums, 0>(team, row, sum);
  }

 private:
  template <class Op, class All, int FROM, class Team, class Row>
  static __device__ __forceinline__ void some(Team& team, Row& row, const T* values) {
    constexpr int left = All::size - FROM, count = left < jointly ? left : jointly;
    if constexpr (count > 0) {
      T all[count];
#pragma unroll
      for (int n = 0; n < count; ++n) all[n] = values[FROM + n];
      team.template reduce<Op>(all);
      each(All{}, [&](auto item, auto n) {
        constexpr int place = decltype(n)::value - FROM;
        if constexpr (place >= 0 && place < count) row.*item.row = all[place];
      });
      some<Op, All, FROM + jointly>(team, row, values);
    }
  }
};

}  // namespace
}  // namespace fusegen
