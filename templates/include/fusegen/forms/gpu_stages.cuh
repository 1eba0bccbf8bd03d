// Stages that run again: forms that keep nothing between two stages compute what earlier stages
// computed.
#pragma once

#include "fusegen/forms/gpu_row_parts.cuh"

namespace fusegen {
namespace {

// Runs the stages up to LAST on one element, from its operands on.
template <class D, int LAST, class Full, class Col, class Row, class Scalar, class Live, class Out>
__device__ __forceinline__ void stages_to(const Full& full, const Col& col, const Row& row,
                                          const Scalar& scalar, Live& live, Out& out) {
  each(StagesOf<D>{}, [&](auto stage, auto n) {
    if constexpr (n.value <= LAST && stage.has_elements)
      stage.element(full, col, row, scalar, live, out);
  });
}

// Whether a stage's reduction is found in the next stage's sweep: a provisional maximum, or a sum
// whose mean the next stage subtracts. A stage that also stores something has a sweep of its own.
template <class Stage>
constexpr bool joins_next =
    Only<Stage, Role::provisional>::size > 0 ||
    (Only<Stage, Role::joined>::size > 0 && Only<Stage, Role::store>::size == 0);
// Whether a stage reads the row, if it is streamed.
template <class Stage>
constexpr bool reads_row = Stage::has_elements && !joins_next<Stage>;
template <class... Stages>
constexpr int last_reading(List<Stages...>) {
  int place = 0, last = -1;
  ((last = reads_row<Stages> ? place : last, ++place), ...);
  return last;
}
template <class D>
struct LastReading {
  static constexpr int place = last_reading(StagesOf<D>{});
};

// What a stage reduces over the row, and the last of some stages that reduces anything.
template <class Stage>
using ReducedIn = decltype(Only<Stage, Role::largest>{} + Only<Stage, Role::sum>{});
template <class Stage>
constexpr bool reduces_row = ReducedIn<Stage>::size > 0;
template <class... Stages>
constexpr int last_reducing(List<Stages...>) {
  int place = 0, last = -1;
  ((last = reduces_row<Stages> ? place : last, ++place), ...);
  return last;
}

// Whether a kernel computes anything for elements, and not for rows alone.
template <class... Stages>
constexpr bool reads_elements(List<Stages...>) {
  return (Stages::has_elements || ...);
}

// A thread's walk over the channels of its columns, if there are channels along a row.
struct NoWalk {
  __device__ __forceinline__ NoWalk anew() const { return {}; }
  __device__ __forceinline__ int channel() const { return 0; }
  __device__ __forceinline__ void advance() {}
};
template <class P>
__device__ __forceinline__ auto channel_walk(const typename P::Args& args, int column, int apart) {
  if constexpr (P::Spreads::size > 0)
    return ChannelWalk(column, apart, run_length<P>(args));
  else
    return NoWalk{};
}

}  // namespace
}  // namespace fusegen
