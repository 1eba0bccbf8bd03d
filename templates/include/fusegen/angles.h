// Functions of angles and their inverses in float32, without branches, so that the host's compiler
// can vectorize them. A GPU's are those of its library. Their errors are within 4 ulp of float32,
// for 16-bit results too.
#pragma once

#include <cmath>
#include <cstdint>

#include "fusegen/arithmetic.h"
#include "fusegen/fitted.h"
#include "fusegen/logarithms.h"
#include "fusegen/quadrant.h"

namespace fusegen {

struct Angles : Logarithms {
#if !defined(__CUDA_ARCH__)
  static FUSEGEN_FN float sin(float x) { return on_circle(quadrant_of(x), 0); }
  static FUSEGEN_FN float cos(float x) { return on_circle(quadrant_of(x), 1); }

  // The sine, `turned` quadrants further.
  static FUSEGEN_FN float on_circle(Quadrant place, int32_t turned) {
    const float x = place.rest, s = x * x;
    const int32_t number = place.number + turned;
    const float sine = x * fitted::sin_ratio({}, s);
    const float cosine = fitted::cos_of_root({}, s);
    const float size = number & 1 ? cosine : sine;
    return bit_cast<float>(bit_cast<int32_t>(size) ^ int32_t(uint32_t(number & 2) << 30));
  }

  // In odd quadrants, tan(x + pi / 2) = -1 / tan(x).
  static FUSEGEN_FN float tan(float x) {
    const Quadrant place = quadrant_of(x);
    const float near = place.rest * fitted::tan_ratio({}, place.rest * place.rest);
    return place.number & 1 ? -1.0f / near : near;
  }

  // pi / 2 in two parts. The first alone is off by most of an ulp of what is left after a
  // subtraction.
  static constexpr float quarter = 1.57079637f, rest_of_quarter = -4.37113883e-8f;

  // Beyond 1 it is pi / 2 - atan(1 / x).
  static FUSEGEN_FN float atan(float x) {
    const float size = absolute(x);
    const bool far = size > 1.0f;
    return std::copysign(of_ratio(far ? 1.0f / size : size, far), x);
  }
  // atan of a ratio from 0 to 1, or of its inverse.
  static FUSEGEN_FN float of_ratio(float ratio, bool inverse) {
    const float near = ratio * fitted::atan_ratio({}, ratio * ratio);
    return inverse ? (quarter - near) + rest_of_quarter : near;
  }
  // The angle of the point (x, y): of the smaller side over the larger one, then mirrored.
  static FUSEGEN_FN float atan2(float y, float x) {
    const float across = absolute(x), up = absolute(y);
    const bool steep = up > across;
    const float smaller = steep ? across : up, larger = steep ? up : across;
    const float alike = larger > 0.0f ? 1.0f : 0.0f;
    const float angle = of_ratio(smaller == larger ? alike : smaller / larger, steep);
    const bool left = bit_cast<int32_t>(x) < 0;
    const float turned = left ? (2.0f * quarter - angle) + 2.0f * rest_of_quarter : angle;
    return x == x ? std::copysign(turned, y) : x;
  }

  // Beyond 1/2, asin(x) = pi / 2 - 2 asin(sqrt((1 - x) / 2)): the sine of half the angle from
  // there.
  static FUSEGEN_FN float asin(float x) {
    const float size = absolute(x), part = inverse_sine(size);
    const float far = (quarter - 2.0f * part) + rest_of_quarter;
    return std::copysign(size < 0.5f ? part : far, x);
  }
  static FUSEGEN_FN float acos(float x) {
    const float part = inverse_sine(absolute(x));
    const float middle = (quarter - std::copysign(part, x)) + rest_of_quarter;
    const float below = (2.0f * quarter - 2.0f * part) + 2.0f * rest_of_quarter;
    const float above = x < 0.0f ? below : 2.0f * part;
    return absolute(x) < 0.5f ? middle : above;
  }
  // asin(x), from 1/2 on of sqrt((1 - x) / 2). NaN beyond 1.
  static FUSEGEN_FN float inverse_sine(float x) {
    const bool near = x < 0.5f;
    const float square = near ? x * x : 0.5f * (1.0f - x);
    const float root = near ? x : std::sqrt(square);
    return root * fitted::asin_ratio({}, square);
  }

  // sqrt(x^2 + y^2), of the larger and the ratio: no square is out of range.
  static FUSEGEN_FN float hypot(float x, float y) {
    const float a = absolute(x), b = absolute(y);
    const float smaller = a < b ? a : b, larger = a < b ? b : a;
    const float ratio = smaller / (larger > 0.0f ? larger : 1.0f);
    const float size = larger * std::sqrt(fma(ratio, ratio, 1.0f));
    const float number = x == x && y == y ? size : NAN;
    return a == INFINITY || b == INFINITY ? INFINITY : number;
  }
#endif
};

}  // namespace fusegen
