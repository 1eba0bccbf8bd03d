// The CPU's vector loop over adjacent elements, which every form is built around.
#pragma once

#include "fusegen/cpu.h"

namespace fusegen {
namespace {

// The numbers that a loop adds up, and the largest ones it finds, as ordinals.
template <class T, int SUMS, int LARGEST>
struct Reduced {
  using Ordinal = decltype(ordinal(T()));
  T sum[SUMS ? SUMS : 1];
  Ordinal largest[LARGEST ? LARGEST : 1];

  static Reduced none() {
    Reduced found{};
    for (auto& one : found.largest) one = ordinal(T(-INFINITY));
    return found;
  }
};

// Calls f(j) for j = begin … end - 1 in a vector loop, adds up the sums that it returns and finds
// the largest ones. A compiler makes vectors of sums that are variables, not of arrays, so the
// first eight have names.
template <class T, int SUMS, int LARGEST, class F>
FUSEGEN_FN Reduced<T, SUMS, LARGEST> sweep(int64_t begin, int64_t end, const F& f) {
  static_assert(LARGEST <= 2, "more maxima than a loop has names for");
  using All = Reduced<T, SUMS, LARGEST>;
  constexpr int named = 8, others = SUMS > named ? SUMS - named : 1;
  T s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0, other[others] = {};
  auto m0 = ordinal(T(-INFINITY)), m1 = m0;
  if constexpr (SUMS > named) {
#pragma omp simd reduction(+ : s0, s1, s2, s3, s4, s5, s6, s7, other[ : others]) \
    reduction(max : m0, m1)
    for (int64_t j = begin; j < end; ++j) {
      const All one = f(j);
      s0 += one.sum[0], s1 += one.sum[1], s2 += one.sum[2], s3 += one.sum[3];
      s4 += one.sum[4], s5 += one.sum[5], s6 += one.sum[6], s7 += one.sum[7];
      for (int n = named; n < SUMS; ++n) other[n - named] += one.sum[n];
      if constexpr (LARGEST > 0) m0 = larger(m0, one.largest[0]);
      if constexpr (LARGEST > 1) m1 = larger(m1, one.largest[1]);
    }
  } else {
#pragma omp simd reduction(+ : s0, s1, s2, s3, s4, s5, s6, s7) reduction(max : m0, m1)
    for (int64_t j = begin; j < end; ++j) {
      const All one = f(j);
      if constexpr (SUMS > 0) s0 += one.sum[0];
      if constexpr (SUMS > 1) s1 += one.sum[1];
      if constexpr (SUMS > 2) s2 += one.sum[2];
      if constexpr (SUMS > 3) s3 += one.sum[3];
      if constexpr (SUMS > 4) s4 += one.sum[4];
      if constexpr (SUMS > 5) s5 += one.sum[5];
      if constexpr (SUMS > 6) s6 += one.sum[6];
      if constexpr (SUMS > 7) s7 += one.sum[7];
      if constexpr (LARGEST > 0) m0 = larger(m0, one.largest[0]);
      if constexpr (LARGEST > 1) m1 = larger(m1, one.largest[1]);
    }
  }
  const T sums[named] = {s0, s1, s2, s3, s4, s5, s6, s7};
  All all;
  for (int n = 0; n < SUMS; ++n) all.sum[n] = n < named ? sums[n % named] : other[n - named];
  if constexpr (LARGEST > 0) all.largest[0] = m0;
  if constexpr (LARGEST > 1) all.largest[1] = m1;
  return all;
}

}  // namespace
}  // namespace fusegen
