// Which mathematics a storage type gets: what is exact enough for its result, and no more.
#pragma once

#include <type_traits>

#include "fusegen/dtype.h"
#include "fusegen/elementary.h"

namespace fusegen {

// For results that are rounded to 16 bits. On the GPU exp and division are the hardware's own, with
// relative errors under 2^-16 where a result is not negligible (CUDA C++ Programming Guide,
// "Intrinsic Functions"); half an ulp of float16 is 2^-11. On the CPU it is Math<float>.
struct BriefMath : Math<float> {
#if defined(__CUDACC__)
  static FUSEGEN_FN float exp(float x) {
#if defined(__CUDA_ARCH__)
    return __expf(x);
#else
    return std::exp(x);
#endif
  }

  static FUSEGEN_FN float divide(float a, float b) {
#if defined(__CUDA_ARCH__)
    return __fdividef(a, b);
#else
    return a / b;
#endif
  }

  static FUSEGEN_FN float sigmoid(float x) { return divide(1.0f, 1.0f + exp(-x)); }

  static FUSEGEN_FN float normpdf(float x) { return 0.39894228f * exp(-0.5f * x * x); }

  // (1 - e) / (1 + e) with e = exp(-2|x|); below 0.01, where 1 - e cancels, x - x^3 / 3.
  static FUSEGEN_FN float tanh(float x) {
    const float e = exp(-2.0f * absolute(x));
    const float far = std::copysign(divide(1.0f - e, 1.0f + e), x);
    return absolute(x) < 0.01f ? x - x * x * x * (1.0f / 3.0f) : far;
  }
#endif
};

template <class S>
using math_t = std::conditional_t<sizeof(S) == 2, BriefMath, Math<compute_t<S>>>;

}  // namespace fusegen
