// What nvcc and the host compilers call the same thing by different names.
#pragma once

#include <cmath>
#include <cstring>

#if defined(__CUDACC__)
#define FUSEGEN_FN __host__ __device__ __forceinline__
#define FUSEGEN_UNROLL _Pragma("unroll")
#else
#define FUSEGEN_FN inline __attribute__((always_inline))
#define FUSEGEN_UNROLL _Pragma("GCC unroll 16")
#endif

namespace fusegen {

template <class To, class From>
FUSEGEN_FN To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// a b + c, rounded once where the processor can.
//
// Compilers are told not to fuse a product with a sum of their own accord (toolchain/compilers.py),
// because whether they do depends on what else stands beside it: a value that the forward pass
// saved would differ from the same value computed again. What is fused is written out, so one
// expression has the same bits wherever it stands.
template <class T>
FUSEGEN_FN T fma(T a, T b, T c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

// c + x (c1 + x (c2 + ...)): a polynomial by Horner's rule.
template <class T>
FUSEGEN_FN T polynomial(T, T c) {
  return c;
}
template <class T, class... Rest>
FUSEGEN_FN T polynomial(T x, T c, Rest... rest) {
  return fma(x, polynomial(x, rest...), c);
}

}  // namespace fusegen
