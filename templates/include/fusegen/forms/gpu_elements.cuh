// What a stage leaves of V neighbouring elements on the GPU: numbers to store, terms of sums over
// the grid, and what it reduces over the row.
#pragma once

#include "fusegen/forms/gpu_grid_sums.cuh"

namespace fusegen {
namespace {

// The sums of columns or channels that a stage adds to.
template <class Stage>
using ColumnSumsIn = decltype(Only<Stage, Role::col_sum>{} + Only<Stage, Role::run_sum>{});

// What is known of all elements of a thread, and of the vector in work. P: GpuParts.
template <class P, int V>
struct Elements {
  using T = typename P::T;
  using S = typename P::Stored;

  T totals[P::Totals::size + 1] = {};
  Vector<T, V> stored[P::Stores::size + 1];
  Vector<T, V> summed[P::ColumnSums::size + 1];

  // Takes element v's outputs of a stage. What is not `here` adds nothing to a total.
  template <class Stage, class Out>
  __device__ __forceinline__ void take(int v, const Out& out, bool here = true) {
    each(Only<Stage, Role::store>{}, [&](auto item, auto) {
      stored[place_of<decltype(item), typename P::Stores>].value[v] = out.*item.out;
    });
    if constexpr (P::Totals::size > 0) {
      each(Only<Stage, Role::total>{}, [&](auto item, auto) {
        totals[place_of<decltype(item), typename P::Totals>] += here ? out.*item.out : T(0);
      });
    }
    if constexpr (P::ColumnSums::size > 0) {
      each(ColumnSumsIn<Stage>{}, [&](auto item, auto) {
        summed[place_of<decltype(item), typename P::ColumnSums>].value[v] = out.*item.out;
      });
    }
  }
  // Gives element v nothing to add to sums of columns or channels.
  template <class Stage>
  __device__ __forceinline__ void clear(int v) {
    each(ColumnSumsIn<Stage>{}, [&](auto item, auto) {
      summed[place_of<decltype(item), typename P::ColumnSums>].value[v] = T(0);
    });
  }
  // Adds the totals of other elements.
  template <int W>
  __device__ __forceinline__ void add_totals(const Elements<P, W>& others) {
    if constexpr (P::Totals::size > 0) {
#pragma unroll
      for (int n = 0; n < P::Totals::size; ++n) totals[n] += others.totals[n];
    }
  }
  // Stores those elements of a stage whose bits are set, one by one.
  template <class Stage>
  __device__ __forceinline__ void store_some(S* const* to, int64_t offset, uint32_t wanted) const {
    each(Only<Stage, Role::store>{}, [&](auto item, auto n) {
      const auto& values = stored[place_of<decltype(item), typename P::Stores>];
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (wanted >> v & 1)
          fusegen::store(to[n] + element_of<decltype(item)>(offset + v), values.value[v]);
      }
    });
  }
  // Stores the vectors of a stage, `offset` elements after the pointers of its results. WHOLE: in
  // one access after a condition.
  template <class Stage, bool WHOLE = false, class Offset = int64_t>
  __device__ __forceinline__ void store(S* const* to, Offset offset) const {
    using Stored = Only<Stage, Role::store>;
    each(Stored{}, [&](auto item, auto n) {
      using Item = decltype(item);
      const auto& values = stored[place_of<Item, typename P::Stores>];
      constexpr int other = alternates<Item> ? neighbour<Item>(Stored{}) : 0;
      if constexpr (!alternates<Item>) {
        put<WHOLE>(to[n] + offset, values);
      } else if constexpr (other < Stored::size) {
        const auto& others = stored[place_of<ItemAt<Stored, other>, typename P::Stores>];
        S* const start = to[n] + vector_of<Item, V>(offset);
        if constexpr (Item::place == 0)
          put<WHOLE>(start, alternating_in<0>(values, others));
        else
          put<WHOLE>(start, alternating_in<1>(others, values));
      } else {  // an earlier or a later stage stores the others
#pragma unroll
        for (int v = 0; v < V; ++v)
          fusegen::store(to[n] + element_of<Item>(int64_t(0) + offset + v), values.value[v]);
      }
    });
  }
  // The same wherever they begin; only elements that exist are stored.
  template <class Stage>
  __device__ __forceinline__ void store_anywhere(S* const* to, int offset,
                                                 const VectorPlace& place) const {
    each(Only<Stage, Role::store>{}, [&](auto item, auto n) {
      const auto& values = stored[place_of<decltype(item), typename P::Stores>];
      Packed<S, V> packed;
#pragma unroll
      for (int v = 0; v < V; ++v) packed.value[v] = Storage<S>::store(values.value[v]);
      fusegen::store_anywhere(to[n] + offset, packed, place);
    });
  }

 private:
  template <bool WHOLE>
  static __device__ __forceinline__ void put(S* to, const Vector<T, V>& values) {
    if constexpr (WHOLE)
      store_at_once(to, values);
    else
      store_vector(to, values);
  }
};

// Turns live values that a stage reads into values relative to the row's maximum.
template <class Stage, int V, class Live, class T>
__device__ __forceinline__ void rescale_live(Live* live, T factor) {
  each(Only<Stage, Role::rescaled>{}, [&](auto value, auto) {
#pragma unroll
    for (int v = 0; v < V; ++v) live[v].*value.field *= factor;
  });
}

// What a thread has reduced of a row in a stage.
template <class T, class Stage>
struct Reductions {
  using Sums = Only<Stage, Role::sum>;
  using Largest = Only<Stage, Role::largest>;

  T sum[Sums::size + 1];
  T largest[Largest::size + 1];

  __device__ __forceinline__ Reductions() {
#pragma unroll
    for (int n = 0; n < Sums::size; ++n) sum[n] = Addition::identity<T>();
#pragma unroll
    for (int n = 0; n < Largest::size; ++n) largest[n] = Maximum::identity<T>();
  }
  // Takes what an element leaves, if it is `here`.
  template <class Out>
  __device__ __forceinline__ void take(const Out& out, bool here = true) {
    if constexpr (Sums::size > 0)
      each(Sums{}, [&](auto item, auto n) {
        sum[n] = Addition::combine(sum[n], here ? out.*item.out : Addition::identity<T>());
      });
    if constexpr (Largest::size > 0)
      each(Largest{}, [&](auto item, auto n) {
        largest[n] = Maximum::combine(largest[n], here ? out.*item.out : Maximum::identity<T>());
      });
  }
  __device__ __forceinline__ void scale(T factor) {
#pragma unroll
    for (int n = 0; n < Sums::size; ++n) sum[n] *= factor;
  }
  // Reduces them over the team, some at a time.
  template <class Team, class Row>
  __device__ __forceinline__ void reduce(Team& team, Row& row) const {
    if constexpr (Largest::size > 0) some<Maximum, Largest, 0>(team, row, largest);
    if constexpr (Sums::size > 0) some<Addition, Sums, 0>(team, row, sum);
  }

 private:
  template <class Op, class All, int FROM, class Team, class Row>
  static __device__ __forceinline__ void some(Team& team, Row& row, const T* values) {
    constexpr int left = All::size - FROM, count = left < jointly ? left : jointly;
    T all[count];
#pragma unroll
    for (int n = 0; n < count; ++n) all[n] = values[FROM + n];
    team.template reduce<Op>(all);
    put<All, FROM>(row, all);
    if constexpr (left > count) some<Op, All, FROM + jointly>(team, row, values);
  }
  template <class All, int FROM, int COUNT, class Row>
  static __device__ __forceinline__ void put(Row& row, const T (&all)[COUNT]) {
    each(All{}, [&](auto item, auto n) {
      constexpr int place = decltype(n)::value - FROM;
      if constexpr (place >= 0 && place < COUNT) row.*item.row = all[place];
    });
  }
};

}  // namespace
}  // namespace fusegen
