// The functions that formulas are made of, as precise as the result needs.
//
// A Math class implements every atom; the printer (fusegen/lower/print_cpp.py) writes
// `Math::exp(x)`. The same text serves the host and the device.
//
// `Math<T>` is the C library's. `FastMath<P>` computes in float32. Its error is within 4 ulp for
// float32 results of an exact x, and within an eighth of an ulp for 16-bit results. It has no
// branches, so the host's compiler can vectorize it. Below the smallest normal float32 number a
// result may be 0.
//
// Errors are relative, even if a result is near 0. In either precision, exp(0), sech2(0) and the
// slopes of tanh, expm1 and log1p at 0 are exactly 1: a formula may subtract nearly equal numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "fusegen/fitted.h"
#include "fusegen/arithmetic.h"
#include "fusegen/quadrant.h"

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

// Functions in float32 for results of precision P (fitted::Single or fitted::Brief). They use the
// hardware's exponential and reciprocal if there are any, and for 16-bit results its tanh too.
//
// The hardware's tanh has a relative error of 2^-11, which is half an ulp of float16 at 1. So it is
// good enough for a result, a factor or an argument, but not for a term of a sum. Use 2 sigmoid(2x)
// for 1 + tanh(x), tanhshrink(x) for x - tanh(x), and sech2(x) for 1 - tanh(x)^2. (CUDA C++
// Programming Guide, "Mathematical Functions"; PTX ISA, "Floating Point Instructions".)
//
// An exponential multiplies the rounding of its argument, which costs |x| / 2 ulp of exp(x) if x is
// a sum. So a GPU's exponentials of sums (OfSum) may lose as much again, and take less time.
template <class P, bool OF_SUM = false>
struct FastMath : Math<float> {
  using OfSum = FastMath<P, true>;
  static constexpr bool brief = std::is_same_v<P, fitted::Brief>;
  static constexpr Digits digits = brief ? Digits::brief : Digits::single;

#if !defined(__CUDA_ARCH__)
  static FUSEGEN_FN float sin(float x) { return on_circle(quadrant_of(x), 0); }
  static FUSEGEN_FN float cos(float x) { return on_circle(quadrant_of(x), 1); }

  // The sine, `turned` quadrants further.
  static FUSEGEN_FN float on_circle(Quadrant place, int32_t turned) {
    const float x = place.rest, s = x * x;
    const int32_t number = place.number + turned;
    const float sine = x * fitted::sin_ratio(fitted::Single{}, s);
    const float cosine = fitted::cos_of_root(fitted::Single{}, s);
    const float size = number & 1 ? cosine : sine;
    return bit_cast<float>(bit_cast<int32_t>(size) ^ int32_t(uint32_t(number & 2) << 30));
  }
  // With x = n + r, 2^x = 2^n exp(r ln 2), as in `exp` below. n + r has no rounding.
  static FUSEGEN_FN float exp2(float x) {
    const float shifted = x + 12582912.0f, r = x - (shifted - 12582912.0f);
    const float fraction = fitted::exp_fraction(P{}, 0.693147181f * r);
    const float scaled =
        bit_cast<float>(bit_cast<uint32_t>(fraction) + (bit_cast<uint32_t>(shifted) << 23));
    const float bounded = x < -126.0f ? 0.0f : scaled;
    return x < 128.0f ? bounded : x * INFINITY;
  }
#else
  static FUSEGEN_FN float exp2(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
  }
#endif

  static FUSEGEN_FN float exp(float x) {
#if defined(__CUDA_ARCH__)
    return brief || OF_SUM ? exp2(x * 1.44269504f) : ::expf(x);
#else
    // With x = n ln 2 + r, exp(x) = 2^n exp(r). Adding 1.5 * 2^23 rounds to an integer and leaves
    // it in the last bits, from where it is added to the exponent. Selections afterwards handle NaN
    // and results out of range; below 2^-126 the result is 0.
    const float shifted = fma(x, 1.44269504f, 12582912.0f);
    const float n = shifted - 12582912.0f;
    const float r =
        brief ? fma(n, -0.693147181f, x) : fma(n, -1.42860677e-6f, fma(n, -0.693145752f, x));
    const float scaled = bit_cast<float>(bit_cast<uint32_t>(fitted::exp_fraction(P{}, r)) +
                                         (bit_cast<uint32_t>(shifted) << 23));
    const float bounded = x < -87.33654f ? 0.0f : scaled;
    return x <= 88.72283f ? bounded : x * INFINITY;
#endif
  }

  // exp(x) for x <= 0 and within |x| / 2 ulp more: where it is added to a larger number.
  static FUSEGEN_FN float falling_exp_roughly(float x) {
#if defined(__CUDA_ARCH__)
    if constexpr (!brief) return exp2(maximum(x, -128.0f) * 1.44269504f);
#endif
    return exp(x);
  }

  // exp(x) for x <= 0. The hardware's 2^y loses few digits, but y = x / ln 2 is rounded: what y
  // leaves of x is the first term of a factor. The bound, where the result is 0, keeps infinities
  // out of the difference.
  static FUSEGEN_FN float falling_exp(float x) {
#if defined(__CUDA_ARCH__)
    if constexpr (!brief && !OF_SUM) {
      const float e = falling_exp_roughly(x), left = left_by_exp2(maximum(x, -128.0f));
      return fma(e, left, e);
    }
#endif
    return falling_exp_roughly(x);
  }

  // x - y ln 2, where y is x / ln 2 rounded.
  static FUSEGEN_FN float left_by_exp2(float x) {
    const float y = x * 1.44269504f;
    return fma(y, 1.90465421e-9f, fma(y, -0.693147182f, x));
  }

  // 2^x for 16-bit results.
  static FUSEGEN_FN float brief_exp2(float x) {
#if defined(__CUDA_ARCH__)
    return exp2(x);
#else
    return exp(x * 0.693147181f);
#endif
  }

  static FUSEGEN_FN float inverse(float x) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("rcp.approx.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
#else
    return 1.0f / x;
#endif
  }

#if defined(__CUDA_ARCH__)
  // Errors of 1 and 2 ulp of float32 do no harm to a 16-bit result. An exact quotient has a branch
  // for numbers near the ends of the range; this one scales them.
  static FUSEGEN_FN float divide(float a, float b) {
    if constexpr (!brief) return a / b;
    float quotient;
    asm("div.full.f32 %0, %1, %2;" : "=f"(quotient) : "f"(a), "f"(b));
    return quotient;
  }
  static FUSEGEN_FN float softsign(float x) { return divide(x, 1.0f + absolute(x)); }
  static FUSEGEN_FN float sqrt(float x) {
    if constexpr (!brief) return std::sqrt(x);
    float root;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
  }
  static FUSEGEN_FN float rsqrt(float x) {
    if constexpr (!brief) return 1.0f / std::sqrt(x);
    float result;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
  }
#endif

  // 1 / x for x >= 1, up to infinity.
  static FUSEGEN_FN float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    return inverse;
#else
    return 1.0f / x;
#endif
  }

  // 1 / x for x >= 1, by a step of Newton's method.
  static FUSEGEN_FN float reciprocal_rounded(float x) {
    const float inverse = reciprocal(x);
#if defined(__CUDA_ARCH__)
    return fma(inverse, fma(-x, inverse, 1.0f), inverse);
#else
    return inverse;
#endif
  }

  // 1 / (1 + e) for x >= 0, and e / (1 + e) below, with e = exp(-|x|). Derivatives use sigmoid(-x)
  // for 1 - sigmoid(x), which then shares e and the reciprocal with sigmoid(x).
  static FUSEGEN_FN float sigmoid(float x) {
    const float e = falling_exp(-absolute(x)), inverse = reciprocal(1.0f + e);
    return x < 0.0f ? e * inverse : inverse;
  }

  // (1 - e) / (1 + e) with e = exp(-2 |x|). Near 0, where 1 - e cancels, it is a polynomial.
  static FUSEGEN_FN float tanh(float x) {
#if defined(__CUDA_ARCH__)
    if constexpr (brief) {
      float result;
      asm("tanh.approx.f32 %0, %1;" : "=f"(result) : "f"(x));
      return result;
    }
#endif
    const float size = absolute(x), e = falling_exp_roughly(-2.0f * size);
    const float far = std::copysign((1.0f - e) * reciprocal(1.0f + e), x);
    const float near = x * fitted::tanh_ratio(P{}, x * x);
    return size < 0.55f ? near : far;
  }

  // 4 e / (1 + e)^2 with e = exp(-2 |x|). For 16-bit results a polynomial in 1 - e replaces 4 / (1
  // + e)^2: this takes one special function and no division.
  static FUSEGEN_FN float sech2(float x) {
    const float e = falling_exp(-2.0f * absolute(x));
    if constexpr (brief) return e * fitted::sech2_ratio(P{}, 1.0f - e);
    return 4.0f * e * reciprocal(fma(e, 2.0f + e, 1.0f));
  }

  // |x| - 1 + 2 e / (1 + e) with e = exp(-2 |x|). Near 0, where this cancels, it is a polynomial.
  static FUSEGEN_FN float tanhshrink(float x) {
    const float size = absolute(x), square = x * x, e = falling_exp_roughly(-2.0f * size);
    const float far = std::copysign(fma(2.0f * e, reciprocal(1.0f + e), size - 1.0f), x);
    const float near = x * square * fitted::tanhshrink_ratio(P{}, square);
    return size < 1.0f ? near : far;
  }

  static FUSEGEN_FN float expm1(float x) {
    const float near = x * fitted::expm1_ratio(P{}, x), far = exp(x) - 1.0f;
    return absolute(x) < 0.7f ? near : far;
  }

  static FUSEGEN_FN float softplus(float x) {
    const float e = falling_exp(-absolute(x));
    return fma(e, fitted::log1p_ratio(P{}, e), x < 0.0f ? 0.0f : x);
  }

  // The two terms may cancel, so it has the digits of float32 for 16-bit results too.
  static FUSEGEN_FN float logaddexp(float x, float y) {
    if constexpr (brief) return FastMath<fitted::Single>::logaddexp(x, y);
    const float larger = maximum(x, y), e = falling_exp(x == y ? 0.0f : -absolute(x - y));
    return fma(e, fitted::log1p_ratio(P{}, e), larger);
  }

  // tanh(softplus(x)) and its derivative, as above. They share e and the reciprocal.
  static FUSEGEN_FN float tanh_softplus(float x) {
    const float e = falling_exp(-absolute(x)),
                top = fma(e, x < 0.0f ? e + 2.0f : 2.0f, x < 0.0f ? 0.0f : 1.0f);
    return top * reciprocal(fma(2.0f, x < 0.0f ? 1.0f : e * e, top));
  }
  static FUSEGEN_FN float tanh_softplus_slope(float x) {
    const float e = falling_exp(-absolute(x)),
                top = fma(e, x < 0.0f ? e + 2.0f : 2.0f, x < 0.0f ? 0.0f : 1.0f);
    const float inverse = reciprocal(fma(2.0f, x < 0.0f ? 1.0f : e * e, top));
    const float above = 4.0f * (x < 0.0f ? e : e * e);
    return fma(above, e, above) * (inverse * inverse);
  }

  // exp(-x^2 / 2). An exponential multiplies the error of its argument, which is x^2 rounded here:
  // what that leaves of x^2 is the first term of a factor. Beyond 16 the result is 0.
  static FUSEGEN_FN float bell(float x) {
    if constexpr (brief) return brief_exp2((-0.72134752f * x) * x);
    if constexpr (OF_SUM) return exp(-0.5f * (x * x));
    const float minus = maximum(-absolute(x), -16.0f), half = 0.5f * minus, y = -(half * minus);
    const float left = fma(-half, minus, -y);
#if defined(__CUDA_ARCH__)
    const float e = exp2(y * 1.44269504f), all = left_by_exp2(y) + left;
    return fma(e, all, e);
#else
    const float e = exp(y);
    return fma(e, left, e);
#endif
  }

  // normcdf(-|x|), which keeps its relative accuracy.
  static FUSEGEN_FN float tail(float x) {
    if constexpr (brief) return brief_exp2(fitted::tail_log2(fitted::Brief{}, absolute(x)));
    if constexpr (OF_SUM) return bell(x) * tail_of_bell(reciprocal(fma(0.375f, absolute(x), 1.0f)));
    // Near 0 an error of the reciprocal counts twice.
    const float size = -maximum(-absolute(x), -16.0f);
    return bell(x) * tail_of_bell(reciprocal_rounded(fma(0.375f, size, 1.0f)));
  }
  static FUSEGEN_FN float tail_of_bell(float u) {
    return u * fitted::tail_ratio(fitted::Single{}, u);
  }

  static FUSEGEN_FN float normcdf(float x) {
    const float below = tail(x);
    return x < 0.0f ? below : 1.0f - below;
  }

  static FUSEGEN_FN float normpdf(float x) { return 0.39894228f * bell(x); }

  static FUSEGEN_FN float erf(float x) {
    const float above = OfSum::tail(1.41421356f * x);
    const float far = std::copysign(fma(-2.0f, above, 1.0f), x);
    const float near = x * fitted::erf_ratio(P{}, x * x);
    return absolute(x) < 0.7f ? near : far;
  }
};

}  // namespace fusegen
