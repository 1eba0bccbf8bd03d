// What a stage that runs over the whole tensor leaves of each row, and how its parts are joined.
#pragma once

#include "fusegen/forms/gpu_places.cuh"
#include "fusegen/forms/gpu_stages.cuh"
#include "fusegen/forms/gpu_strand_sums.cuh"
#include "fusegen/forms/gpu_streamed_parts.cuh"

namespace fusegen {
namespace {

// The tensor as matrices [places, inner]. `run` neighbours of each place belong to one row. A step
// of the walk is `together` elements: whole places, which accesses divide. The steps of a matrix
// are dealt out to `slices` blocks, of `strands` threads for each column.
struct StageWalk {
  int64_t matrices, places, steps;
  uint32_t inner, run, together, slices, strands;
  bool by_sample;  // whether each matrix has channels of its own

  FUSEGEN_FN int64_t elements() const { return places * inner; }
  FUSEGEN_FN uint32_t rows() const { return inner / run; }  // of a matrix
  // The row of an element, from its place among those of a step.
  FUSEGEN_FN int64_t row(int64_t matrix, uint32_t column) const {
    return matrix * rows() + column % inner / run;
  }
  // How many elements a slice has in a column.
  FUSEGEN_FN int64_t count(uint32_t slice, uint32_t column) const {
    return Counts(*this).of(slice, column);
  }
  // Where parts of a slice's columns begin.
  FUSEGEN_FN int64_t part(int64_t matrix, uint32_t slice) const {
    return (matrix * slices + slice) * together;
  }
  FUSEGEN_FN int64_t parts() const { return matrices * slices * together; }

  // The same for many slices and columns, with two divisions of 64 bits for all of them.
  struct Counts {
    int64_t whole, left, last;
    uint32_t strands;

    FUSEGEN_FN explicit Counts(const StageWalk& walk) : strands(walk.strands) {
      const int64_t cycle = int64_t(walk.strands) * walk.slices;
      whole = walk.steps / cycle * strands;
      left = walk.steps % cycle;
      last = walk.elements() - walk.steps * walk.together;
    }
    FUSEGEN_FN int64_t of(uint32_t slice, uint32_t column) const {
      const int64_t more = left - int64_t(slice) * strands;
      return whole +
             (more < 0         ? 0
              : more < strands ? more
                               : strands) +
             (slice == 0 && column < last);
    }
  };
};

// Whether a stage's sum is found together with the next stage's, in one pass that also stores what
// the stage does.
template <class Stage>
constexpr bool is_joined = Only<Stage, Role::joined>::size > 0;
template <class Stage>
constexpr bool is_centred = Only<Stage, Role::centred>::size > 0;
// Whether a stage is a pass over the tensor.
template <class Stage>
constexpr bool is_pass =
    Stage::has_elements && !is_joined<Stage> &&
    (reduces_row<Stage> || Only<Stage, Role::store>::size + Only<Stage, Role::run_sum>::size +
                                   Only<Stage, Role::total>::size >
                               0);
template <class D>
struct LastReducing {
  static constexpr int place = last_reducing(StagesOf<D>{});
};
// How many passes come before stage PLACE.
template <int PLACE, class... Stages>
constexpr int passes_before(List<Stages...>) {
  int place = 0, passes = 0;
  ((passes += is_pass<Stages> && place < PLACE, ++place), ...);
  return passes;
}
// The most reductions of a stage; a sum and the squares about its mean are two.
template <class... Stages>
constexpr int most_reductions(List<Stages...>) {
  int most = 0;
  ((most = std::max(most, ReducedIn<Stages>::size + is_centred<Stages>)), ...);
  return most;
}

// What is known of row r before a pass: what is loaded, what earlier stages reduced, and what
// follows from that. The stages before BEFORE are reduced.
template <class P, int BEFORE, class Reduced>
__device__ __forceinline__ void know_row(const typename P::Args& args,
                                         const typename P::K::Scalar& scalar, int64_t r,
                                         const Reduced& reduced, typename P::K::Row& row) {
  P::load_row(args, r, row);
  each(typename P::Stages{}, [&](auto stage, auto n) {
    using Stage = decltype(stage);
    if constexpr (n.value <= BEFORE) P::template begin_stage<Stage>(scalar, row);
    if constexpr (n.value < BEFORE) {
      each(ReducedIn<Stage>{}, [&](auto item, auto) {
        row.*item.row = reduced[place_of<decltype(item), ReducedIn<typename P::AllStages>>][r];
      });
    }
  });
}

// What a thread reduces of V columns in a pass, and leaves in global memory: one part for each
// column of its block.
template <class T, class Stage, int V>
struct ColumnReductions {
  Reductions<T, Stage> reduced[V];

  template <class Out>
  __device__ __forceinline__ void take(int v, const Out& out) {
    reduced[v].take(out);
  }
  // Said after a vector of elements, or after those of it whose bits are set.
  __device__ __forceinline__ void took() {}
  __device__ __forceinline__ void took_some(uint32_t) {}
  // `first`: where the parts of the block begin; `columns`: how many may have any.
  __device__ __forceinline__ void leave(T* strands, T* first, uint32_t columns,
                                        const StageWalk& walk, uint32_t) const {
    const int64_t apart = walk.parts();
    const auto to = [&](auto op, int part, const auto& of) {
      T values[V];
#pragma unroll
      for (int v = 0; v < V; ++v) values[v] = of(reduced[v]);
      join_strands<256, decltype(op)>(strands, values, [&](int column, T value) {
        if (column < columns) first[part * apart + column] = value;
      });
    };
    each(Only<Stage, Role::largest>{},
         [&](auto, auto n) { to(Maximum{}, n, [&](const auto& one) { return one.largest[n]; }); });
    each(Only<Stage, Role::sum>{}, [&](auto, auto n) {
      to(Addition{}, Only<Stage, Role::largest>::size + n,
         [&](const auto& one) { return one.sum[n]; });
    });
  }
};
// The same of a sum and that of the squares about its mean: the parts are a column's total, and
// the squares about the column's own mean.
template <class T, class Joined, int V>
struct ColumnMoments {
  Moments<T> moments[V];  // which all count the same vectors
  int vectors = 0;
  uint32_t further = 0;  // the elements of one that is not whole

  template <class Out>
  __device__ __forceinline__ void take(int v, const Out& out) {
    each(Only<Joined, Role::sum>{}, [&](auto item, auto) {
      if (vectors == 0) moments[v].anchor = out.*item.out;
      moments[v].take(out.*item.out);
    });
  }
  __device__ __forceinline__ void took() { ++vectors; }
  __device__ __forceinline__ void took_some(uint32_t wanted) { further = wanted; }
  __device__ __forceinline__ void leave(T* strands, T* first, uint32_t columns,
                                        const StageWalk& walk, uint32_t slice) {
    __shared__ T mean[32 * V];
    T values[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      moments[v].count = vectors + (further >> v & 1);
      values[v] = moments[v].total();
    }
    join_strands<256, Addition>(strands, values, [&](int column, T total) {
      const int64_t count = walk.count(slice, blockIdx.x * blockDim.x * V + column);
      mean[column] = total / T(count);
      if (column < columns) first[column] = total;
    });
    __syncthreads();
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = moments[v].about(mean[threadIdx.x * V + v]);
    join_strands<256, Addition>(strands, values, [&](int column, T squares) {
      if (column < columns) first[walk.parts() + column] = squares;
    });
  }
};

// Calls f with the slice, the column and the place of each part that blocks left of a row. The
// threads with the same threadIdx.y share the parts of a row.
template <class F>
__device__ __forceinline__ void each_part(const StageWalk& walk, int64_t matrix, uint32_t row,
                                          const F& f) {
  const uint32_t spans = walk.together / walk.inner, columns = spans * walk.run;
  const uint32_t count = columns * walk.slices;  // all parts are in memory: 32 bits count them
  const int64_t first = walk.part(matrix, 0);
#pragma unroll 8
  for (uint32_t n = threadIdx.x; n < count; n += blockDim.x) {
    const uint32_t slice = n / columns, of_slice = n - slice * columns;
    const uint32_t span = of_slice / walk.run;
    const uint32_t column = span * walk.inner + row * walk.run + (of_slice - span * walk.run);
    f(slice, column, first + int64_t(slice) * walk.together + column);
  }
}
// Joins one value of each of these threads: a warp, or the whole block. All get the result.
template <class Op, class T>
__device__ __forceinline__ T join_threads(T value) {
  value = reduce_warp<Op>(value);
  if (blockDim.x == 32) return value;
  __shared__ T warps[8];
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  value = warps[0];
#pragma unroll
  for (int warp = 1; warp < 8; ++warp) value = Op::combine(value, warps[warp]);
  return value;
}

}  // namespace
}  // namespace fusegen
