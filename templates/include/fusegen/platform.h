// What nvcc and the host compilers call the same thing by different names.
#pragma once

#include <cstring>

#if defined(__CUDACC__)
#define FUSEGEN_FN __host__ __device__ __forceinline__
#define FUSEGEN_UNROLL _Pragma("unroll")
#else
#define FUSEGEN_FN inline __attribute__((always_inline))
#define FUSEGEN_UNROLL _Pragma("GCC unroll 16")
#endif

namespace fusegen {

template <class To, class From>
FUSEGEN_FN To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace fusegen
