// Where a float32 number lies on the circle: in which quadrant, and where in it. For any number,
// and without branches, so that a compiler can vectorize it. Host code; a GPU has functions of its
// own.
#pragma once

#include <cstdint>

#include "fusegen/arithmetic.h"
#include "fusegen/remainders.h"

namespace fusegen {

// x = number pi / 2 + rest, where |rest| <= pi / 4, modulo 2 pi.
struct Quadrant {
  float rest;
  int32_t number;
};

// A number from 2^24 on is an integer of 24 bits times 2^n, and 2^n is replaced by its remainder
// modulo 2 pi (Payne and Hanek 1983, "Radian reduction for trigonometric functions", with a table
// of remainders instead of the bits of 2 / pi). Then multiples of pi / 2 are subtracted (Cody and
// Waite 1980, "Software Manual for the Elementary Functions"). All is done in three parts of which
// the products of the first two are exact.
FUSEGEN_FN Quadrant quadrant_of(float x) {
  const int32_t bits = bit_cast<int32_t>(x), exponent = ((bits >> 23) & 255) - 150;
  const int32_t power = exponent > 0 ? exponent : 0;
  const float integer = bit_cast<float>((bits & int32_t(0x807fffff)) | 0x4b000000);
  const double factor = exponent > 0 ? integer : x;
  const double high = factor * remainder_high[power], middle = factor * remainder_middle[power],
               low = factor * remainder_low[power];
  const double quarters = rounded((high + middle) * 0.63661977236758134308);
  const double rest = (high - quarters * quarter_high) + (middle - quarters * quarter_middle) +
                      (low - quarters * quarter_low);
  return {float(rest), int32_t(quarters)};
}

}  // namespace fusegen
