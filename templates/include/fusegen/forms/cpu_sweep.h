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
// the largest ones. Compilers make vectors of sums that are variables, but not of those in arrays.
// So the first few have names, and more than that are right but slow.
template <class T, int SUMS, int LARGEST, class F>
FUSEGEN_FN Reduced<T, SUMS, LARGEST> sweep(int64_t begin, int64_t end, const F& f) {
  using All = Reduced<T, SUMS, LARGEST>;
  constexpr int named_sums = 8, named_largest = 4;
  All all = All::none();
  T s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
  auto m0 = ordinal(T(-INFINITY)), m1 = m0, m2 = m0, m3 = m0;
  if constexpr (SUMS <= named_sums && LARGEST <= named_largest) {
#pragma omp simd reduction(+ : s0, s1, s2, s3, s4, s5, s6, s7) reduction(max : m0, m1, m2, m3)
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
      if constexpr (LARGEST > 2) m2 = larger(m2, one.largest[2]);
      if constexpr (LARGEST > 3) m3 = larger(m3, one.largest[3]);
    }
    const T sums[] = {s0, s1, s2, s3, s4, s5, s6, s7};
    const decltype(m0) largest[] = {m0, m1, m2, m3};
    for (int n = 0; n < SUMS; ++n) all.sum[n] = sums[n];
    for (int n = 0; n < LARGEST; ++n) all.largest[n] = largest[n];
  } else {
    for (int64_t j = begin; j < end; ++j) {
      const All one = f(j);
      for (int n = 0; n < SUMS; ++n) all.sum[n] += one.sum[n];
      for (int n = 0; n < LARGEST; ++n) all.largest[n] = larger(all.largest[n], one.largest[n]);
    }
  }
  return all;
}

}  // namespace
}  // namespace fusegen
