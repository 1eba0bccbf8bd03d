// What outer reductions on the GPU keep of neighbouring rows, and how their strands reduce it.
#pragma once

#include "fusegen/forms/gpu_row_parts.cuh"
#include "fusegen/forms/gpu_stages.cuh"

namespace fusegen {
namespace {

// A distance of `count` steps, each of `step` elements. Added to a pointer it is one instruction if
// `count` is known when compiling: a multiplication of 32 bits and an addition of 64.
struct Steps {
  uint32_t step;
  int count;

  template <class S>
  friend __device__ __forceinline__ S* operator+(S* from, Steps by) {
    using Byte = std::conditional_t<std::is_const_v<S>, const char, char>;
    uint64_t bytes;  // the compiler would multiply 64 bits
    asm("mul.wide.u32 %0, %1, %2;"
        : "=l"(bytes)
        : "r"(by.step), "r"(uint32_t(by.count * int(sizeof(S)))));
    return reinterpret_cast<S*>(reinterpret_cast<Byte*>(from) + bytes);
  }
  friend __device__ __forceinline__ int64_t operator+(int64_t from, Steps by) {
    return from + int64_t(uint64_t(by.step) * uint32_t(by.count));
  }
};

// What a thread keeps if it has W neighbouring rows.
template <class D, class L, class S, int W>
struct OuterLive {
  using P = GpuParts<D, S>;
  static constexpr int resident = sizeof(S) == 8 ? 1 : L::resident_outer;
  // How many columns, from the registers they take between two stages.
  static constexpr int items() {
    const double bytes = live_bytes<S>(typename L::between{}, 4.0 / W) +
                         double(P::ColumnSums::size) * sizeof(typename P::T) / W;
    return outer_items<S>(bytes, W, resident);
  }
};

// Whether a row has a number of its own that neither a channel nor an index says: a thread copies
// such numbers ahead.
template <class Row>
constexpr bool is_plain = !Row::per_channel && !std::is_same_v<typename Row::type, int64_t>;
// The rows that are plain, or those that are not.
template <bool PLAIN, class... Rows>
constexpr auto rows_if(List<Rows...>) {
  return (List<>{} + ... + std::conditional_t<is_plain<Rows> == PLAIN, List<Rows>, List<>>{});
}

// Reduces what the strands of a block have of V neighbouring rows, in a stage.
template <class T, class Stage, int V, class Row>
__device__ __forceinline__ void reduce_strands(const OuterTeam<T, V>& team,
                                               const Reductions<T, Stage> (&reduced)[V],
                                               Row (&row)[V]) {
  const auto reduce = [&](auto op, auto item, const auto& of) {
    T values[V];
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = of(reduced[v]);
    team.template reduce<decltype(op)>(values);
#pragma unroll
    for (int v = 0; v < V; ++v) row[v].*item.row = values[v];
  };
  each(Only<Stage, Role::largest>{}, [&](auto item, auto n) {
    reduce(Maximum{}, item, [&](const auto& one) { return one.largest[n]; });
  });
  each(Only<Stage, Role::sum>{}, [&](auto item, auto n) {
    reduce(Addition{}, item, [&](const auto& one) { return one.sum[n]; });
  });
}

template <int V>
struct PackedRows {
  template <class Item>
  using of = Packed<typename Item::type, V>*;
};

}  // namespace
}  // namespace fusegen
