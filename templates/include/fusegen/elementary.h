// The functions that formulas are made of, as precise as the result needs.
//
// A Math class implements every atom; the printer (fusegen/lower/print_cpp.py) writes
// `Math::exp(x)`. The same text serves the host and the device.
//
// `Math<T>` is the C library's. `FastMath<P>` computes in float32. Its error is within 4 ulp for
// float32 results of an exact x, 6 in the tail of the normal distribution, and within an eighth of
// an ulp for 16-bit results. It has no branches, so the host's compiler can vectorize it. Below the
// smallest normal float32 number a result may be 0.
//
// Errors are relative, even if a result is near 0. In either precision, exp(0), sech2(0) and the
// slopes of tanh, expm1 and log1p at 0 are exactly 1: a formula may subtract nearly equal numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "fusegen/angles.h"
#include "fusegen/arithmetic.h"
#include "fusegen/fitted.h"
#include "fusegen/library_math.h"

namespace fusegen {

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
struct FastMath : Angles {
  using OfSum = FastMath<P, true>;
  static constexpr bool brief = std::is_same_v<P, fitted::Brief>;
  static constexpr Digits digits = brief ? Digits::brief : Digits::single;

#if !defined(__CUDA_ARCH__)
  // fraction 2^n, added to the exponent; n is in the last bits of `power`.
  static FUSEGEN_FN float times_two_to(float fraction, uint32_t power) {
    return bit_cast<float>(bit_cast<uint32_t>(fraction) + (power << 23));
  }
  // 2^k exp(x), where that is a normal number. With x = n ln 2 + r it is 2^(n + k) exp(r).
  // Adding 1.5
  // * 2^23 rounds to an integer and leaves it in the last bits, from where it is added to the
  // exponent.
  static FUSEGEN_FN float exp_within(float x, int32_t k) {
    const float shifted = fma(x, 1.44269504f, 12582912.0f);
    const float n = shifted - 12582912.0f;
    const float r =
        brief ? fma(n, -0.693147181f, x) : fma(n, -1.42860677e-6f, fma(n, -0.693145752f, x));
    return times_two_to(fitted::exp_fraction(P{}, r), bit_cast<uint32_t>(shifted) + uint32_t(k));
  }
  // With x = n + r, 2^x = 2^n exp(r ln 2), as in `exp` below. n + r has no rounding.
  static FUSEGEN_FN float exp2(float x) {
    const float shifted = x + 12582912.0f, r = x - (shifted - 12582912.0f);
    const float fraction = fitted::exp_fraction(P{}, 0.693147181f * r);
    const float scaled = times_two_to(fraction, bit_cast<uint32_t>(shifted));
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
    // Selections handle NaN and results out of range; below 2^-126 the result is 0.
    const float bounded = x < -87.33654f ? 0.0f : exp_within(x, 0);
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

#if !defined(__CUDA_ARCH__)
  // (exp(|x|) -+ exp(-|x|)) / 2. Near 0, where terms cancel, it is a polynomial.
  static FUSEGEN_FN float sinh(float x) {
    const float size = absolute(x), half = half_exp(size);
    const float near = x * fitted::sinh_ratio({}, x * x);
    return size < 1.0f ? near : std::copysign(half - 0.25f / half, x);
  }
  static FUSEGEN_FN float cosh(float x) {
    const float half = half_exp(absolute(x));
    return half + 0.25f / half;
  }
  // exp(x) / 2 for x >= 0, which overflows later than exp(x).
  static FUSEGEN_FN float half_exp(float x) {
    return x <= 89.41598f ? exp_within(x, -1) : x * INFINITY;
  }

  // 2 normcdf(-x sqrt 2), by exp(-x^2). What float32 leaves of x^2 is the first term of a factor.
  static FUSEGEN_FN float erfc(float x) {
    if constexpr (brief) return FastMath<fitted::Single>::erfc(x);
    const double size = -maximum(-absolute(x), -11.0f), square = size * size;
    const float y = float(square), e = exp(-y), bell = e - e * float(square - y);
    const float above = 2.0f * bell * tail_of_bell(float(1.0 / (1.0 + 0.53033008588991 * size)));
    return x < 0.0f ? 2.0f - above : above;
  }
#endif

  static FUSEGEN_FN float erf(float x) {
    const float above = OfSum::tail(1.41421356f * x);
    const float far = std::copysign(fma(-2.0f, above, 1.0f), x);
    const float near = x * fitted::erf_ratio(P{}, x * x);
    return absolute(x) < 0.7f ? near : far;
  }
};

}  // namespace fusegen
