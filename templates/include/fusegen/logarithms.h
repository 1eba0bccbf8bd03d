// Logarithms, powers and inverse hyperbolic functions in float32, without branches, so that the
// host's compiler can vectorize them. A GPU's are those of its library. Their errors are within 4
// ulp of float32, for 16-bit results too.
#pragma once

#include <cmath>
#include <cstdint>

#include "fusegen/arithmetic.h"
#include "fusegen/fitted.h"
#include "fusegen/library_math.h"

namespace fusegen {

// A positive number as 2^power (1 + rest), where 1 + rest lies between the roots of 1/2 and 2.
struct Scaled {
  float rest;
  int32_t power;
};

struct Logarithms : Math<float> {
#if !defined(__CUDA_ARCH__)
  // Of a normal number. The bits of sqrt(1/2) are taken off, and what is left above the mantissa is
  // the power (Muller, Elementary Functions, 3rd ed. 2016, ch. 11).
  static FUSEGEN_FN Scaled scaled(float x) {
    const int32_t bits = bit_cast<int32_t>(x), power = (bits - 0x3f3504f3) >> 23;
    return {bit_cast<float>(bits - int32_t(uint32_t(power) << 23)) - 1.0f, power};
  }
  // Of any positive number: a subnormal one is multiplied by 2^23 first.
  static FUSEGEN_FN Scaled scaled_any(float x) {
    const bool small = x < 1.17549435e-38f;
    const Scaled at = scaled(small ? x * 8388608.0f : x);
    return {at.rest, at.power - (small ? 23 : 0)};
  }
  // log(1 + s) where 1 + s lies between the roots of 1/2 and 2.
  static FUSEGEN_FN float log_near_one(float s) { return s * fitted::log_ratio({}, s); }

  // A logarithm in base b, of which ln_b = 1 / ln(b). Its log(2) is given in two parts: products of
  // the first and a power are exact.
  static FUSEGEN_FN float in_base(float x, float ln_b, float two, float rest_of_two) {
    const Scaled at = scaled_any(x);
    const float power = float(at.power);
    const float sum = power * two + fma(power, rest_of_two, log_near_one(at.rest) * ln_b);
    return with_ends(x, sum);
  }
  // The logarithm of x, whose value is given where x is positive and finite.
  static FUSEGEN_FN float with_ends(float x, float log) {
    const float beyond = x == 0.0f ? -INFINITY : NAN;
    const float positive = x < INFINITY ? log : x;
    return x > 0.0f ? positive : beyond;
  }
  static FUSEGEN_FN float log(float x) { return in_base(x, 1.0f, 0.693145752f, 1.42860677e-6f); }
  static FUSEGEN_FN float log2(float x) { return in_base(x, 1.44269504f, 1.0f, 0.0f); }
  static FUSEGEN_FN float log10(float x) {
    return in_base(x, 0.434294482f, 0.301025391f, 4.60503907e-6f);
  }

  // Of u = 1 + x, and of what u lost of x: log(1 + x) = n ln 2 + log(2^-n u + 2^-n (x - (u - 1))).
  static FUSEGEN_FN float log1p(float x) {
    const float u = 1.0f + x, lost = x - (u - 1.0f);
    const Scaled at = scaled(u);
    // 2^-n, and from 2^25 on, where `lost` does not count, any finite number.
    const float scale = bit_cast<float>(int32_t(uint32_t(127 - at.power) << 23));
    const float rest = at.rest + (u < 33554432.0f ? lost * scale : 0.0f);
    const float sum = fma(float(at.power), 0.693147181f, log_near_one(rest));
    const float ends = with_ends(u, sum);
    return x == 0.0f ? x : ends;
  }

  static FUSEGEN_FN float xlogy(float x, float y) {
    return x == 0.0f && y == y ? 0.0f : x * log(y);
  }

  // log2(x) in double precision, for positive x: 2 / ln(2) artanh(z) with z = s / (2 + s), by the
  // series of artanh. |z| is at most 0.1716, so eight terms are good to 2^-44.
  static FUSEGEN_FN double log2_in_double(float x) {
    const Scaled at = scaled_any(x);
    const double z = double(at.rest) / (2.0 + double(at.rest)), s = z * z;
    const double series =
        polynomial(s, 1.0, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15);
    return double(at.power) + 2.8853900817779268 * (z * series);
  }

  // 2^(y log2|x|), with the sign of an odd power. C's `pow` says what it is at infinities and
  // zeros.
  static FUSEGEN_FN float pow(float x, float y) {
    const float size = absolute(x);
    const double inside = log2_in_double(size);
    const double finite = size < INFINITY ? inside : double(size);
    const double power = double(y) * (size == 0.0f ? -double(INFINITY) : finite);
    // Beyond +-160 it is 0 or infinite. NaN stays, since it is not less.
    const double above = power < -160.0 ? -160.0 : power;
    const double within = above > 160.0 ? 160.0 : above;
    const double nearest = rounded(within);
    const float fraction =
        fitted::exp_fraction(fitted::Single{}, float((within - nearest) * 0.69314718055994531));
    // Two factors, so that neither is out of range.
    const int32_t n = within == within ? int32_t(nearest) : 0, half = n >> 1;
    const float raised = fraction * power_of_two(half) * power_of_two(n - half);
    const float half_y = 0.5f * y;
    const bool whole = std::trunc(y) == y, odd = whole && std::trunc(half_y) != half_y;
    const float sign = bit_cast<int32_t>(x) < 0 && odd ? -raised : raised;
    const float real = x < 0.0f && x > -INFINITY && !whole ? NAN : sign;
    // 1 to any power, any number to 0, and -1 to an infinite power.
    const bool one = x == 1.0f || y == 0.0f || (x == -1.0f && absolute(y) == INFINITY);
    return one ? 1.0f : real;
  }
  static FUSEGEN_FN float power_of_two(int32_t n) {
    return bit_cast<float>(int32_t(uint32_t(n + 127) << 23));
  }

  // log(|x| + sqrt(x^2 + 1)), by what is added to 1 in there. From 2^14 on it is log(2 |x|), to
  // 2^-30.
  static FUSEGEN_FN float asinh(float x) {
    const float size = absolute(x);
    const bool large = size > 16384.0f;
    const float near = large ? 1.0f : size;
    const float added = near + near * near / (1.0f + std::sqrt(near * near + 1.0f));
    const float sum = log1p(large ? size - 1.0f : added) + (large ? 0.693147181f : 0.0f);
    return std::copysign(sum, x);
  }
  // log(x + sqrt(x^2 - 1)), likewise, with t = x - 1: x^2 - 1 = t (t + 2).
  static FUSEGEN_FN float acosh(float x) {
    const float t = x - 1.0f;
    const bool large = x > 16384.0f;
    const float near = large ? 1.0f : t;
    const float added = near + std::sqrt(near * (near + 2.0f));
    const float sum = log1p(large ? t : added) + (large ? 0.693147181f : 0.0f);
    return x < 1.0f ? NAN : sum;
  }
  // log((1 + |x|) / (1 - |x|)) / 2
  static FUSEGEN_FN float atanh(float x) {
    const float size = absolute(x);
    return std::copysign(0.5f * log1p(2.0f * size / (1.0f - size)), x);
  }
#endif
};

}  // namespace fusegen
