// Arithmetic that the host and the GPU share.
#pragma once

#include <cmath>
#include <cstring>

#include "fusegen/platform.h"

namespace fusegen {

// Reinterprets a value's bits as another type of the same size.
template <class To, class From>
FUSEGEN_FN To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// a b + c, rounded once if the processor supports it.
//
// Compilers are told not to fuse products and sums on their own (toolchain/compilers.py), because
// whether they do depends on the code around. A value that the forward pass saved would then differ
// from the same value computed again. Fused operations are written out instead, so one expression
// has the same bits everywhere.
template <class T>
FUSEGEN_FN T fma(T a, T b, T c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

// The nearest integer, of a number below 2^51: what is added to 1.5 * 2^52 is rounded.
FUSEGEN_FN double rounded(double x) {
  constexpr double to_integer = 6755399441055744.0;
  return (x + to_integer) - to_integer;
}

// c + x (c1 + x (c2 + …)): a polynomial by Horner's rule.
template <class T>
FUSEGEN_FN T polynomial(T, T c) {
  return c;
}
template <class T, class... Rest>
FUSEGEN_FN T polynomial(T x, T c, Rest... rest) {
  return fma(x, polynomial(x, rest...), c);
}

}  // namespace fusegen
