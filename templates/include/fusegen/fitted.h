// Polynomials that elementary.h builds on. Written by `python -m fusegen.tools.fitted_header`;
// do not edit. Errors are relative, measured in float32 arithmetic with fused multiply-adds.
#pragma once

#include "fusegen/arithmetic.h"

namespace fusegen::fitted {

// What a result is rounded to: float32, or 16 bits.
struct Single {};
struct Brief {};

// exp(s), for s from -0.34658 to 0.34658.
// single: degree 6, error 6.1e-08 (0.51 ulp of float32).
FUSEGEN_FN float exp_fraction(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(1), T(0.49999994), T(0.16666521), T(0.041668415), T(0.008368704),
                    T(0.0013813192));
}
// brief: degree 4, error 5.4e-06 (45 ulp of float32).
FUSEGEN_FN float exp_fraction(Brief, float s) {
  using T = float;
  return polynomial(s, T(1), T(1), T(0.50005156), T(0.1675357), T(0.041274853));
}

// (exp(s) - 1) / s, for s from -0.7 to 0.7.
// single: degree 6, error 1.0e-07 (0.85 ulp of float32).
FUSEGEN_FN float expm1_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(0.5000003), T(0.16666646), T(0.04166173), T(0.008334292),
                    T(0.0014098187), T(0.00019855336));
}
// brief: degree 4, error 1.6e-05 (1.3e+02 ulp of float32).
FUSEGEN_FN float expm1_ratio(Brief, float s) {
  using T = float;
  return polynomial(s, T(1), T(0.4999064), T(0.1666956), T(0.042495128), T(0.0083485795));
}

// log(1 + s) / s, for s from 0 to 1.
// single: degree 8, error 9.5e-08 (0.8 ulp of float32).
FUSEGEN_FN float log1p_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(-0.49999648), T(0.3332132), T(-0.2485715), T(0.19153589),
                    T(-0.13753644), T(0.0792025), T(-0.030064464), T(0.0053644767));
}
// brief: degree 4, error 6.7e-05 (5.6e+02 ulp of float32).
FUSEGEN_FN float log1p_ratio(Brief, float s) {
  using T = float;
  return polynomial(s, T(1), T(-0.49777666), T(0.30923563), T(-0.16137765), T(0.043112066));
}

// log(1 + s) / s, sqrt(1/2) <= 1 + s <= sqrt(2), for s from -0.2929 to 0.41422.
// single: degree 8, error 8.5e-08 (0.71 ulp of float32).
FUSEGEN_FN float log_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(-0.5), T(0.3333391), T(-0.2500134), T(0.19963083), T(-0.16577445),
                    T(0.1491445), T(-0.14268446), T(0.08702476));
}

// sinh(x) / x with s = x^2, |x| <= 1, for s from 0 to 1.
// single: degree 3, error 8.3e-08 (0.69 ulp of float32).
FUSEGEN_FN float sinh_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(0.16666716), T(0.008330283), T(0.00020372232));
}

// tanh(x) / x with s = x^2, |x| <= 0.55, for s from 0 to 0.3025.
// single: degree 4, error 7.0e-08 (0.59 ulp of float32).
FUSEGEN_FN float tanh_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(-0.33332947), T(0.13320729), T(-0.052671947), T(0.016437696));
}
// brief: degree 2, error 4.8e-05 (4.1e+02 ulp of float32).
FUSEGEN_FN float tanh_ratio(Brief, float s) {
  using T = float;
  return polynomial(s, T(1), T(-0.33153257), T(0.11331743));
}

// (x - tanh(x)) / x^3 with s = x^2, |x| <= 1, for s from 0 to 1.
// single: degree 7, error 1.3e-07 (1.1 ulp of float32).
FUSEGEN_FN float tanhshrink_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(0.33333334), T(-0.1333331), T(0.053963423), T(-0.02182959), T(0.00869796),
                    T(-0.0032069618), T(0.00092361245), T(-0.00014282418));
}
// brief: degree 4, error 8.7e-06 (73 ulp of float32).
FUSEGEN_FN float tanhshrink_ratio(Brief, float s) {
  using T = float;
  return polynomial(s, T(0.33333045), T(-0.13318785), T(0.052753977), T(-0.018141119),
                    T(0.003652435));
}

// 4 / (1 + e)^2 with s = 1 - e, for s from 0 to 1.
// brief: degree 6, error 7.2e-05 (6e+02 ulp of float32).
FUSEGEN_FN float sech2_ratio(Brief, float s) {
  using T = float;
  return polynomial(s, T(1), T(0.9951861), T(0.8461775), T(-0.115526885), T(2.0364575),
                    T(-2.062999), T(1.3004168));
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

// sin(x) / x with s = x^2, |x| <= pi / 4, for s from 0 to 0.6169.
// single: degree 3, error 3.9e-08 (0.33 ulp of float32).
FUSEGEN_FN float sin_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(-0.16666655), T(0.00833216), T(-0.0001951525));
}

// cos(x) with s = x^2, |x| <= pi / 4, for s from 0 to 0.6169.
// single: degree 3, error 9.3e-08 (0.78 ulp of float32).
FUSEGEN_FN float cos_of_root(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(-0.49999884), T(0.041655775), T(-0.001359183));
}

// tan(x) / x with s = x^2, |x| <= pi / 4, for s from 0 to 0.6169.
// single: degree 6, error 7.5e-08 (0.63 ulp of float32).
FUSEGEN_FN float tan_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(0.33333158), T(0.13338794), T(0.05341153), T(0.024429707),
                    T(0.003120034), T(0.009385607));
}

// asin(x) / x with s = x^2, |x| <= 1/2, for s from 0 to 0.25.
// single: degree 5, error 6.3e-08 (0.53 ulp of float32).
FUSEGEN_FN float asin_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(0.16666752), T(0.074953), T(0.045470316), T(0.024178984),
                    T(0.042168185));
}

// atan(x) / x with s = x^2, |x| <= 1, for s from 0 to 1.
// single: degree 8, error 6.9e-08 (0.58 ulp of float32).
FUSEGEN_FN float atan_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(1), T(-0.33333153), T(0.19993772), T(-0.1421104), T(0.10665952),
                    T(-0.07552108), T(0.043210667), T(-0.01636722), T(0.0029205205));
}

// normcdf(-x) exp(x^2 / 2) / s with s = 1 / (1 + 3 x / 8), 0 <= x <= 15, for s from 0.15094 to 1.
// single: degree 9, error 8.9e-08 (0.75 ulp of float32).
FUSEGEN_FN float tail_ratio(Single, float s) {
  using T = float;
  return polynomial(s, T(0.1495937), T(0.14987019), T(0.1254109), T(0.10745565), T(-0.054109164),
                    T(0.21147268), T(-0.4187875), T(0.3407122), T(-0.13216667), T(0.020548046));
}

// log2(normcdf(-s)); beyond 5 it falls on, for s from 0 to 5.
// brief: degree 5, absolute error 2.6e-04.
FUSEGEN_FN float tail_log2(Brief, float s) {
  using T = float;
  return polynomial(s, T(-1), T(-1.1487749), T(-0.46576676), T(-0.046850402), T(0.0054048365),
                    T(-0.00027780235));
}

}  // namespace fusegen::fitted
