// How the places of a matrix [places, inner] are dealt to threads that walk down them.
#pragma once

#include <cstdint>
#include <numeric>

#include "fusegen/platform.h"

namespace fusegen {
namespace {

// The share of a block's threads that have columns, if up to 32 stand side by side.
inline double busy_lanes(int64_t columns) {
  int64_t lanes = 1;
  while (lanes < 32 && lanes < columns) lanes *= 2;
  return double(columns) / double((columns + lanes - 1) / lanes * lanes);
}

// The elements of a step of the walk: whole places, which accesses of `width` elements divide.
// There are several places where more threads then have columns, as long as many steps are left.
inline int64_t step_of_walk(int64_t inner, int width, int64_t elements) {
  const int64_t least = std::lcm(inner, int64_t(width));
  int64_t step = least;
  for (int64_t places = 2; places <= 16 && places * least * 256 <= elements; ++places) {
    if (busy_lanes(step / width) >= 0.95) break;
    if (busy_lanes(places * least / width) > busy_lanes(step / width)) step = places * least;
  }
  return step;
}

// Places that are matrices [channels, run]: `run` neighbours belong to one channel.
struct ChannelRuns {
  int64_t channels, run;

  // The channel of element `at` of a step.
  FUSEGEN_FN uint32_t channel(uint32_t at) const { return at / uint32_t(run) % uint32_t(channels); }
  // Those of V neighbours from element `at` on. Two divisions, not two for each of them.
  template <int V>
  FUSEGEN_FN void channels_of(uint32_t (&found)[V], uint32_t at) const {
    const uint32_t runs = at / uint32_t(run);
    uint32_t channel = runs % uint32_t(channels), left = (runs + 1) * uint32_t(run) - at;
    FUSEGEN_UNROLL
    for (int v = 0; v < V; ++v) {
      found[v] = channel;
      if (--left > 0) continue;
      left = uint32_t(run);
      channel = channel + 1 < uint32_t(channels) ? channel + 1 : 0;
    }
  }
  // Where element `at` of a step of `together` elements is if those of a channel are put together.
  FUSEGEN_FN uint32_t by_channel(uint32_t at, uint32_t together) const {
    const uint32_t places = at / uint32_t(channels * run);
    return channel(at) * (together / uint32_t(channels)) + places * uint32_t(run) +
           at % uint32_t(run);
  }

  // Whether a walk down the places in accesses of `width` elements pays: few accesses of a run
  // stand side by side, or they do not divide it, and there are so many places that what a thread
  // loads for its channels costs little.
  bool walks(int64_t places, int width) const {
    constexpr int64_t few = 16, many = 32;
    return run > 1 && channels > 0 && places >= many && channels * run < INT32_MAX / 32 &&
           (run % width != 0 || run / width < few);
  }
};
// The most blocks that may share the steps of a walk if each leaves parts of sums, one for each
// element of a step: a 40th of the elements.
inline int64_t most_with_parts(int64_t steps) {
  return steps / 40;
}

}  // namespace
}  // namespace fusegen
