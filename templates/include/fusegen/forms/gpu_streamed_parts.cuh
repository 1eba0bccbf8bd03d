// What the GPU's forms share that stream a row once for each stage.
#pragma once

#include "fusegen/forms/gpu_row_ahead.cuh"
#include "fusegen/forms/gpu_row_parts.cuh"
#include "fusegen/forms/gpu_stages.cuh"

namespace fusegen {
namespace {

// Pointers to tensors, with what the gaps before row r add.
template <class P, class Items>
struct RowPointers {
  typename P::Stored* to[Items::size + 1];
  __device__ __forceinline__ RowPointers(const typename P::Args& args, int64_t r) {
    const typename P::template Gaps<Items> gaps(args, r);
    each(Items{}, [&](auto item, auto n) {
      to[n] = pointer<typename P::Stored, decltype(item)::arg>(args) + gaps.before[n];
    });
  }
};

// What a thread reduces of a row in stage PLACE. A stage after a provisional maximum finds the
// maximum as well: each time it rises, what has been summed so far is scaled.
template <class P, class D, int PLACE>
struct StreamedStage {
  using T = typename P::T;
  using K = typename P::K;
  using Stage = StageAt<D, PLACE>;
  using Before = StageAt<D, PLACE - 1>;
  static constexpr bool joint = Only<Stage, Role::shifted>::size > 0;

  Reductions<T, Stage> reduced;
  Reductions<T, Before> largest;  // the maximum that this thread has seen so far, if joint

  // Before `take` of N vectors: computes what earlier stages leave of their elements.
  template <int N, int V>
  __device__ __forceinline__ void prepare(const typename K::Full (&full)[N][V],
                                          const typename K::Col (&col)[N][V],
                                          typename K::Row& row, const typename K::Scalar& scalar,
                                          typename K::Live (&live)[N][V]) {
    if constexpr (joint) {
      const T known = largest.largest[0];
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          typename K::Out out;
          stages_to<D, PLACE - 1>(full[n][v], col[n][v], row, scalar, live[n][v], out);
          largest.take(out);
        }
      }
      const T now = largest.largest[0];
      if (!(now == known)) reduced.scale(shift_factor<typename K::Functions>(known, now));
      each(Only<Stage, Role::shifted>{}, [&](auto item, auto) { row.*item.row = anchor(now); });
    }
  }
  // Takes a vector of elements.
  template <int V>
  __device__ __forceinline__ void take(const typename K::Full (&full)[V],
                                       const typename K::Col (&col)[V],
                                       const typename K::Row& row,
                                       const typename K::Scalar& scalar,
                                       typename K::Live (&live)[V], Elements<P, V>& leaves) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      typename K::Out out;
      if constexpr (joint)
        Stage::element(full[v], col[v], row, scalar, live[v], out);
      else
        stages_to<D, PLACE>(full[v], col[v], row, scalar, live[v], out);
      reduced.take(out);
      leaves.template take<Stage>(v, out);
    }
  }
  // Reduces over the team what all of its threads have taken.
  template <class Team>
  __device__ __forceinline__ void finish(Team& team, typename K::Row& row,
                                         RowReductions<P>& reductions) {
    if constexpr (joint) {
      const T thread = largest.largest[0];
      reductions.template reduce<Before>(team, row, largest);
      reduced.scale(shift_factor<typename K::Functions>(thread, reductions.near));
    }
    if constexpr (Only<Stage, Role::provisional>::size == 0)
      reductions.template reduce<Stage>(team, row, reduced);
  }
};

// N accesses of V elements each, of every tensor.
template <class P, int V, int N>
struct Accesses {
  using K = typename P::K;
  static constexpr int width = V, number = N;

  Packed<typename P::Stored, V> raw[N][P::Fulls::size + 1];
  typename K::Full full[N][V];
  typename K::Col col[N][V] = {};
  typename K::Live live[N][V];
};

// How a row is read if it may begin anywhere between two accesses of V elements: `vectors`
// accesses, and `edges` elements that lie before the first of them or behind the last.
template <int V>
struct RowAccesses {
  int64_t cols, vectors;
  int edges;

  __device__ __forceinline__ explicit RowAccesses(int64_t cols) : cols(cols) {
    // An odd row surely has so many, wherever it begins.
    vectors = (cols % V ? cols - (V - 1) : cols) / V;
    edges = int(cols - vectors * V);
  }
  // How many elements of row r lie before its first access.
  __device__ __forceinline__ int before(int64_t r) const {
    return int(-uint32_t(r) * uint32_t(cols) % V);
  }
  // The column of an edge, of which `before` lie before the first access.
  __device__ __forceinline__ int64_t edge(int n, int before) const {
    return n < before ? n : n + vectors * V;
  }
};

}  // namespace
}  // namespace fusegen
