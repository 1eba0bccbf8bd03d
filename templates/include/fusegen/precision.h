// The Math class for each storage type: precise enough for its results, and no more.
#pragma once

#include "fusegen/storage.h"
#include "fusegen/elementary.h"

namespace fusegen {

// Precision<S>::Type is the Math class for results of storage type S.
template <class S>
struct Precision;
template <>
struct Precision<double> {
  using Type = Math<double>;
};
template <>
struct Precision<float> {
  using Type = FastMath<fitted::Single>;
};
template <>
struct Precision<bfloat16> {
  using Type = FastMath<fitted::Brief>;
};
template <>
struct Precision<float16> {
  using Type = FastMath<fitted::Brief>;
};

// Short for Precision<S>::Type.
template <class S>
using math_t = typename Precision<S>::Type;

}  // namespace fusegen
