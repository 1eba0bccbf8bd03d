// The functions that formulas are made of, for each type that kernels compute in.
//
// Math<T> gives every atom a meaning; the printer (fusegen/lower/printer.py) writes `Math::exp(x)`.
// The same text serves the host and the device: overloads of <cmath> there, CUDA's own here.
#pragma once

#include <cmath>

#include "fusegen/platform.h"

namespace fusegen {

// x to a positive integer power by repeated squaring, which rounds log2(N) times.
template <int N, class T>
FUSEGEN_FN T power(T x) {
  static_assert(N >= 1, "power<N> wants N >= 1");
  if constexpr (N == 1) {
    return x;
  } else {
    const T half = power<N / 2>(x);
    return N % 2 ? half * half * x : half * half;
  }
}

// The larger of the two; NaN where either is NaN, as torch.amax has it.
template <class T>
FUSEGEN_FN T maximum(T a, T b) {
  return (a > b || a != a) ? a : b;
}

template <class T>
struct Math {
  using Scalar = T;

  static FUSEGEN_FN T absolute(T x) { return std::fabs(x); }
  static FUSEGEN_FN T cos(T x) { return std::cos(x); }
  static FUSEGEN_FN T erf(T x) { return std::erf(x); }
  static FUSEGEN_FN T exp(T x) { return std::exp(x); }
  static FUSEGEN_FN T expm1(T x) { return std::expm1(x); }
  static FUSEGEN_FN T log(T x) { return std::log(x); }
  static FUSEGEN_FN T log1p(T x) { return std::log1p(x); }
  static FUSEGEN_FN T pow(T x, T y) { return std::pow(x, y); }
  static FUSEGEN_FN T sin(T x) { return std::sin(x); }
  static FUSEGEN_FN T sqrt(T x) { return std::sqrt(x); }
  static FUSEGEN_FN T rsqrt(T x) { return T(1) / std::sqrt(x); }
  static FUSEGEN_FN T tanh(T x) { return std::tanh(x); }
  static FUSEGEN_FN T sign(T x) { return T((x > T(0)) - (x < T(0))); }

  // 1 / (1 + exp(-x)); exp overflows to infinity for very negative x, which gives the right 0.
  static FUSEGEN_FN T sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }

  // log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which never overflows.
  static FUSEGEN_FN T softplus(T x) { return (x < T(0) ? T(0) : x) + log1p(exp(-absolute(x))); }

  // erfc(-x / sqrt 2) / 2 keeps its relative accuracy in the left tail, where (1 + erf) / 2 has
  // none.
  static FUSEGEN_FN T normcdf(T x) { return T(0.5) * std::erfc(x * T(-0.70710678118654752440)); }

  // exp(-x^2 / 2) / sqrt(2 pi)
  static FUSEGEN_FN T normpdf(T x) { return T(0.39894228040143267794) * exp(T(-0.5) * x * x); }
};

}  // namespace fusegen
