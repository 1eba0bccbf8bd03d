// The functions that formulas are made of, by the C library, and stable functions built from them.
// `Math<T>` has all atoms; what is faster in float32 is in logarithms.h, angles.h and elementary.h.
#pragma once

#include <cmath>
#include <type_traits>

#include "fusegen/arithmetic.h"

namespace fusegen {

// x to a positive integer power, by repeated squaring: it rounds log2(N) times.
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

// a x^N, multiplied one factor at a time: x^N alone may underflow although the product does not.
template <int N, class T>
FUSEGEN_FN T times_power(T a, T x) {
  for (int i = 0; i < N; ++i) a *= x;
  return a;
}

// The larger of the two. NaN if either is NaN, as in torch.amax.
template <class T>
FUSEGEN_FN T maximum(T a, T b) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, float>) {
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
    return larger;
  }
#endif
  return (a > b || a != a) ? a : b;
}

// What a result is rounded to. Formulas fitted for one spec ask for it.
enum class Digits { exact, single, brief };

// The C library's functions, and numerically stable functions built from them.
template <class T>
struct Math {
  using Scalar = T;
  using OfSum = Math;  // the functions of an x that is a sum, and so rounded
  static constexpr Digits digits = Digits::exact;

  static FUSEGEN_FN T fma(T a, T b, T c) { return fusegen::fma(a, b, c); }
  // One of two values, both of which are computed. Of `?:` nvcc makes branches where it is nested,
  // and then the threads of a warp wait for one another at each element.
  static FUSEGEN_FN T where(bool condition, T a, T b) { return condition ? a : b; }

  static FUSEGEN_FN T absolute(T x) { return std::fabs(x); }
  static FUSEGEN_FN T acos(T x) { return std::acos(x); }
  static FUSEGEN_FN T acosh(T x) { return std::acosh(x); }
  static FUSEGEN_FN T asin(T x) { return std::asin(x); }
  static FUSEGEN_FN T asinh(T x) { return std::asinh(x); }
  static FUSEGEN_FN T atan(T x) { return std::atan(x); }
  static FUSEGEN_FN T atan2(T y, T x) { return std::atan2(y, x); }
  static FUSEGEN_FN T atanh(T x) { return std::atanh(x); }
  static FUSEGEN_FN T cos(T x) { return std::cos(x); }
  static FUSEGEN_FN T cosh(T x) { return std::cosh(x); }
  static FUSEGEN_FN T erf(T x) { return std::erf(x); }
  static FUSEGEN_FN T erfc(T x) { return std::erfc(x); }
  static FUSEGEN_FN T exp(T x) { return std::exp(x); }
  static FUSEGEN_FN T exp2(T x) { return std::exp2(x); }
  static FUSEGEN_FN T expm1(T x) { return std::expm1(x); }
  static FUSEGEN_FN T log(T x) { return std::log(x); }
  static FUSEGEN_FN T hypot(T x, T y) { return std::hypot(x, y); }
  static FUSEGEN_FN T log1p(T x) { return std::log1p(x); }
  static FUSEGEN_FN T log2(T x) { return std::log2(x); }
  static FUSEGEN_FN T log10(T x) { return std::log10(x); }
  static FUSEGEN_FN T pow(T x, T y) { return std::pow(x, y); }
  static FUSEGEN_FN T sin(T x) { return std::sin(x); }
  static FUSEGEN_FN T sinh(T x) { return std::sinh(x); }
  static FUSEGEN_FN T sqrt(T x) { return std::sqrt(x); }
  static FUSEGEN_FN T rsqrt(T x) { return T(1) / std::sqrt(x); }
  static FUSEGEN_FN T tan(T x) { return std::tan(x); }
  static FUSEGEN_FN T tanh(T x) { return std::tanh(x); }
  static FUSEGEN_FN T sign(T x) { return T((x > T(0)) - (x < T(0))); }
  static FUSEGEN_FN T ceil(T x) { return std::ceil(x); }
  static FUSEGEN_FN T floor(T x) { return std::floor(x); }
  static FUSEGEN_FN T round_half_even(T x) { return std::nearbyint(x); }
  static FUSEGEN_FN T trunc(T x) { return std::trunc(x); }

  static FUSEGEN_FN T softsign(T x) { return x / (T(1) + absolute(x)); }

  static FUSEGEN_FN T inverse(T x) { return T(1) / x; }
  static FUSEGEN_FN T divide(T a, T b) { return a / b; }

  // 1 / (1 + e) for x >= 0, and e / (1 + e) below, with e = exp(-|x|): a subnormal e is not lost,
  // of whose square root the derivative is no small number.
  static FUSEGEN_FN T sigmoid(T x) {
    const T e = exp(-absolute(x));
    return (x < T(0) ? e : T(1)) / (T(1) + e);
  }

  // log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which never overflows.
  static FUSEGEN_FN T softplus(T x) { return (x < T(0) ? T(0) : x) + log1p(exp(-absolute(x))); }

  // log(exp(x) + exp(y)), of the larger and their difference. Two equal infinities have none.
  static FUSEGEN_FN T logaddexp(T x, T y) {
    const T larger = maximum(x, y), away = x == y ? T(0) : absolute(x - y);
    return larger + log1p(exp(-away));
  }

  // x log(y), and 0 where x is 0 and y a number.
  static FUSEGEN_FN T xlogy(T x, T y) { return x == T(0) && y == y ? T(0) : x * log(y); }

  // tanh(softplus(x)) = (w^2 + 2 w) / (w^2 + 2 w + 2) with w = exp(x), and its derivative, 4 w (1 +
  // w) over the square of that. Of e = exp(-|x|), which is w or 1 / w, nothing overflows.
  static FUSEGEN_FN T tanh_softplus(T x) {
    const T e = exp(-absolute(x));
    const T top = x < T(0) ? e * (e + T(2)) : T(1) + T(2) * e;
    return top / (top + T(2) * (x < T(0) ? T(1) : e * e));
  }
  static FUSEGEN_FN T tanh_softplus_slope(T x) {
    const T e = exp(-absolute(x));
    const T top = x < T(0) ? e * (e + T(2)) : T(1) + T(2) * e;
    const T below = top + T(2) * (x < T(0) ? T(1) : e * e);
    return T(4) * (T(1) + e) * (x < T(0) ? e : e * e) / (below * below);
  }

  // 1 / cosh(x)^2 = 4 e / (1 + e)^2 with e = exp(-2 |x|).
  static FUSEGEN_FN T sech2(T x) {
    const T e = exp(T(-2) * absolute(x));
    return T(4) * e / ((T(1) + e) * (T(1) + e));
  }

  // x - tanh(x), which keeps its relative accuracy near 0. Below 1 it is the series of x cosh(x) -
  // sinh(x), divided by cosh(x). The terms of the series, 2k x^(2k + 1) / (2k + 1)!, all have one
  // sign. From 1 on it is |x| - 1 + 2 e / (1 + e) with e = exp(-2 |x|).
  static FUSEGEN_FN T tanhshrink(T x) {
    const T size = absolute(x), s = x * x, e = exp(T(-2) * size);
    T series = 1;
    for (int k = 9; k >= 2; --k) series = T(1) + s * series / T((2 * k - 2) * (2 * k + 1));
    const T near = x * s * series / (T(3) * std::cosh(x));
    const T far = std::copysign((size - T(1)) + T(2) * e / (T(1) + e), x);
    return size < T(1) ? near : far;
  }

  // erfc(-x / sqrt 2) / 2 keeps its relative accuracy in the left tail, where (1 + erf) / 2 has
  // none.
  static FUSEGEN_FN T normcdf(T x) { return T(0.5) * std::erfc(x * T(-0.70710678118654752440)); }

  // exp(-x^2 / 2) / sqrt(2 pi)
  static FUSEGEN_FN T normpdf(T x) { return T(0.39894228040143267794) * exp(T(-0.5) * x * x); }
};

}  // namespace fusegen
