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

// Whether elements of a row belong to channels.
template <class P>
constexpr bool has_channels = P::Spreads::size + P::RunSums::size > 0;

// The sum of a thread's values, and of their squares about the mean, in one sweep: relative to the
// first value, which is about as far from the mean as any other. (Chan, Golub & LeVeque 1983,
// "Algorithms for computing the sample variance".)
template <class T>
struct Moments {
  T anchor = T(0), sum = T(0), squares = T(0);  // of the differences from the anchor
  int count = 0;

  // Before `take` of so many values, of which this is one.
  __device__ __forceinline__ void begin(T value, int values) {
    if (count == 0) anchor = value;
    count += values;
  }
  __device__ __forceinline__ void take(T value) {
    const T difference = value - anchor;
    sum += difference;
    squares = fma(difference, difference, squares);
  }
  __device__ __forceinline__ T total() const { return fma(T(count), anchor, sum); }
  // The sum of the squares about another mean.
  __device__ __forceinline__ T about(T mean) const {
    if (count == 0) return T(0);
    const T own = sum / T(count), apart = anchor + own - mean;
    return fma(T(count) * apart, apart, squares - sum * own);
  }
};

// N accesses of V elements each, of every tensor. WHOLE: all elements are to be taken; otherwise
// those whose bits are set.
template <class P, int V, int N, bool WHOLE = true>
struct Accesses {
  using K = typename P::K;
  static constexpr int width = V, number = N;
  static constexpr bool whole = WHOLE;

  Packed<typename P::Stored, V> raw[N][P::Fulls::size + 1];
  typename K::Full full[N][V];
  typename K::Col col[N][V] = {};
  typename K::Live live[N][V];
  uint32_t wanted[N] = {};

  __device__ __forceinline__ bool wants(int n, int v) const { return WHOLE || wanted[n] >> v & 1; }
};

// What a thread reduces of a row in stage PLACE, and what the stage before joins to it. After a
// provisional maximum: each time the maximum rises, what has been summed so far is scaled. After a
// sum whose mean is subtracted: both in one sweep.
template <class P, class D, int PLACE>
struct StreamedStage {
  using T = typename P::T;
  using K = typename P::K;
  using Stage = StageAt<D, PLACE>;
  using Before = StageAt<D, PLACE - 1>;
  static constexpr bool shifted = Only<Stage, Role::shifted>::size > 0;
  static constexpr bool centred = Only<Stage, Role::centred>::size > 0 && joins_next<Before>;

  Reductions<T, Stage> reduced;
  Reductions<T, Before> largest;  // the maximum that this thread has seen so far, if shifted
  Moments<T> moments;             // if centred

  // Before `take` of some accesses: computes what earlier stages leave of their elements.
  template <class Some>
  __device__ __forceinline__ void prepare(Some& some, typename K::Row& row,
                                          const typename K::Scalar& scalar) {
    if constexpr (shifted) {
      const T known = largest.largest[0];
#pragma unroll
      for (int n = 0; n < Some::number; ++n) {
#pragma unroll
        for (int v = 0; v < Some::width; ++v) {
          typename K::Out out;
          stages_to<D, PLACE - 1>(some.full[n][v], some.col[n][v], row, scalar, some.live[n][v],
                                  out);
          if (some.wants(n, v)) largest.take(out);
        }
      }
      const T now = largest.largest[0];
      if (!(now == known)) reduced.scale(shift_factor<typename K::Functions>(known, now));
      each(Only<Stage, Role::shifted>{}, [&](auto item, auto) { row.*item.row = anchor(now); });
    }
  }
  // Takes the elements of access n.
  template <class Some>
  __device__ __forceinline__ void take(Some& some, int n, const typename K::Row& row,
                                       const typename K::Scalar& scalar,
                                       Elements<P, Some::width>& leaves) {
#pragma unroll
    for (int v = 0; v < Some::width; ++v) {
      typename K::Out out;
      constexpr int stage = centred ? PLACE - 1 : PLACE;
      if constexpr (shifted)
        Stage::element(some.full[n][v], some.col[n][v], row, scalar, some.live[n][v], out);
      else
        stages_to<D, stage>(some.full[n][v], some.col[n][v], row, scalar, some.live[n][v], out);
      if constexpr (!Some::whole) {
        if constexpr (P::ColumnSums::size > 0) leaves.template clear<Stage>(v);
        if (!some.wants(n, v)) continue;
      }
      if constexpr (centred) {
        each(Only<Before, Role::sum>{}, [&](auto item, auto) {
          if (!Some::whole || v == 0) moments.begin(out.*item.out, Some::whole ? Some::width : 1);
          moments.take(out.*item.out);
        });
      } else {
        reduced.take(out);
        leaves.template take<Stage>(v, out);
      }
    }
  }
  // Reduces over the team what all of its threads have taken of a row of `cols` columns.
  template <class Team>
  __device__ __forceinline__ void finish(Team& team, const typename K::Scalar& scalar,
                                         typename K::Row& row, RowReductions<P>& reductions,
                                         int64_t cols) {
    if constexpr (centred) {
      T all[1] = {moments.total()};
      team.template reduce<Addition>(all);
      each(Only<Before, Role::sum>{}, [&](auto item, auto) { row.*item.row = all[0]; });
      P::template begin_stage<Stage>(scalar, row);  // which waited for the sum
      all[0] = moments.about(all[0] / T(cols));
      team.template reduce<Addition>(all);
      each(Only<Stage, Role::sum>{}, [&](auto item, auto) { row.*item.row = all[0]; });
    } else {
      if constexpr (shifted) {
        const T thread = largest.largest[0];
        reductions.template reduce<Before>(team, row, largest);
        reduced.scale(shift_factor<typename K::Functions>(thread, reductions.near));
      }
      if constexpr (!joins_next<Stage>) reductions.template reduce<Stage>(team, row, reduced);
    }
  }
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
