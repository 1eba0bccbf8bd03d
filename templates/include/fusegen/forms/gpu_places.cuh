// How the places of a matrix [places, inner] are dealt to threads that walk down them.
#pragma once

#include <cstdint>
#include <numeric>

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

}  // namespace
}  // namespace fusegen
