// Polynomials that elementary.h builds on. Written by `python -m fusegen.fitted_header`; do not
// edit. Errors are relative, measured in float32 arithmetic with fused multiply-adds.
#pragma once

#include "fusegen/platform.h"

namespace fusegen::fitted {

// What a result is rounded to: float32, or 16 bits.
struct Single {};
struct Brief {};

// exp(s), for s from -0.34658 to 0.34658.
// single: degree 6, error 6.2e-08 (0.52 ulp of float32).
FUSEGEN_FN float exp_fraction(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(1), T(0.4999999), T(0.1666642), T(0.041668225), T(0.0083748195),
                    T(0.0013836836));
}
// brief: degree 3, error 7.5e-05 (6.3e+02 ulp of float32).
FUSEGEN_FN float exp_fraction(Brief, float s) {
  using T = float;
  return polynomial(s, T(0.99992806), T(1.0001644), T(0.50496346), T(0.16566722));
}

// (exp(s) - 1) / s, for s from -0.7 to 0.7.
// single: degree 6, error 9.2e-08 (0.77 ulp of float32).
FUSEGEN_FN float expm1_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(0.5000003), T(0.16666639), T(0.041661516), T(0.008334492),
                    T(0.001410129), T(0.00019840722));
}
// brief: degree 4, error 1.4e-05 (1.2e+02 ulp of float32).
FUSEGEN_FN float expm1_ratio(Brief, float s) {
  using T = float;
  return polynomial(s, T(0.9999964), T(0.4998979), T(0.16671124), T(0.04251599), T(0.008333231));
}

// log(1 + s) / s, for s from 0 to 1.
// single: degree 8, error 1.1e-07 (0.96 ulp of float32).
FUSEGEN_FN float log1p_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(0.99999994), T(-0.49999493), T(0.33319104), T(-0.24842992), T(0.1910592),
                    T(-0.13662857), T(0.07821943), T(-0.02950027), T(0.0052312557));
}
// brief: degree 4, error 5.7e-05 (4.8e+02 ulp of float32).
FUSEGEN_FN float log1p_ratio(Brief, float s) {
  using T = float;
  return polynomial(s, T(0.9999435), T(-0.4969778), T(0.30629474), T(-0.15741152), T(0.041337423));
}

// tanh(x) / x with s = x^2, |x| <= 0.55, for s from 0 to 0.3025.
// single: degree 4, error 9.4e-08 (0.78 ulp of float32).
FUSEGEN_FN float tanh_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(0.99999994), T(-0.33332795), T(0.13318875), T(-0.052589282),
                    T(0.016315384));
}
// brief: degree 2, error 3.9e-05 (3.3e+02 ulp of float32).
FUSEGEN_FN float tanh_ratio(Brief, float s) {
  using T = float;
  return polynomial(s, T(0.99996126), T(-0.33099818), T(0.11187955));
}

// erf(x) / x with s = x^2, |x| <= 0.7, for s from 0 to 0.49.
// single: degree 4, error 1.1e-07 (0.91 ulp of float32).
FUSEGEN_FN float erf_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(1.1283791), T(-0.3761222), T(0.112770006), T(-0.026474522),
                    T(0.004281838));
}
// brief: degree 2, error 7.9e-05 (6.6e+02 ulp of float32).
FUSEGEN_FN float erf_ratio(Brief, float s) {
  using T = float;
  return polynomial(s, T(1.1282908), T(-0.37291682), T(0.0949675));
}

// normcdf(-x) exp(x^2 / 2) / s with s = 1 / (1 + x / 4), 0 <= x <= 15, for s from 0.21053 to 1.
// single: degree 9, error 1.0e-07 (0.88 ulp of float32).
FUSEGEN_FN float tail_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(0.09974499), T(0.0995464), T(0.09508913), T(0.07390487), T(0.08136108),
                    T(0.02222509), T(0.017370256), T(0.059703942), T(-0.06612376), T(0.017178008));
}

// log2(normcdf(-s)); beyond 5 it falls on, for s from 0 to 5.
// brief: degree 5, absolute error 2.3e-04.
FUSEGEN_FN float tail_log2(Brief, float s) {
  using T = float;
  return polynomial(s, T(-1.0002283), T(-1.1477884), T(-0.46690834), T(-0.046318896),
                    T(0.0052972594), T(-0.00026991148));
}

}  // namespace fusegen::fitted
