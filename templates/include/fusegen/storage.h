// How numbers are stored in tensors, and the type each is computed in.
#pragma once

#include <cstdint>

#include "fusegen/dtype.h"
#include "fusegen/arithmetic.h"

namespace fusegen {

// Storage<S> converts a stored S to the type it is computed in, and back (to nearest, ties to
// even).
template <class S>
struct Storage {
  using Compute = S;
  static FUSEGEN_FN S load(S stored) { return stored; }
  static FUSEGEN_FN S store(S value) { return value; }
};

template <>
struct Storage<bfloat16> {
  using Compute = float;

  static FUSEGEN_FN float load(bfloat16 stored) {
    return bit_cast<float>(uint32_t(stored.bits) << 16);
  }

  static FUSEGEN_FN bfloat16 store(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return {bits};
#else
    const uint32_t bits = bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t quiet_nan = (bits >> 16) | 0x40u;
    return {uint16_t(value != value ? quiet_nan : rounded)};
#endif
  }
};

template <>
struct Storage<float16> {
  using Compute = float;

  static FUSEGEN_FN float load(float16 stored) {
#if defined(__CUDA_ARCH__)
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(stored.bits));
    return value;
#else
    // Shift the exponent and mantissa to a float's position. Then multiply by 2^112, the difference
    // of the two biases: this is exact, also for subnormals. Infinity and NaN get the top exponent.
    const uint32_t sign = uint32_t(stored.bits & 0x8000u) << 16;
    const uint32_t rest = uint32_t(stored.bits & 0x7fffu) << 13;
    const float scaled = bit_cast<float>(rest) * 0x1p112f;
    const uint32_t special = 0x7f800000u | rest;
    const uint32_t magnitude = rest >= 0x0f800000u ? special : bit_cast<uint32_t>(scaled);
    return bit_cast<float>(sign | magnitude);
#endif
  }

  static FUSEGEN_FN float16 store(float value) {
#if defined(__CUDA_ARCH__)
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return {bits};
#else
    const uint32_t bits = bit_cast<uint32_t>(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t rest = bits & 0x7fffffffu;
    // Normal results: rebias the exponent (15 - 127 = -112) and round away the 13 dropped bits.
    const uint32_t normal = (rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1u)) >> 13;
    // Subnormal results: adding 0.5 aligns the half's last bit with the float's last bit.
    const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(rest) + 0.5f) - 0x3f000000u;
    // 65520 and above round to infinity. (gcc vectorizes this, but not a test of `rest`.)
    const uint32_t finite = rest < 0x38800000u ? subnormal : normal;
    const uint32_t overflow = finite < 0x7c00u ? finite : 0x7c00u;
    const uint32_t magnitude = value != value ? 0x7e00u : overflow;
    return {uint16_t(sign | magnitude)};
#endif
  }
};

// The type that a stored S is computed in.
template <class S>
using compute_t = typename Storage<S>::Compute;

// Loads a stored number into its compute type.
template <class S>
FUSEGEN_FN compute_t<S> load(const S* stored) {
  return Storage<S>::load(*stored);
}

// Rounds a number to its stored type and stores it.
template <class S>
FUSEGEN_FN void store(S* stored, compute_t<S> value) {
  *stored = Storage<S>::store(value);
}

// The channel of position `at`, if each channel has runs of `run` positions.
FUSEGEN_FN int64_t channel_of(int64_t at, int64_t run, int64_t channels) {
  if ((at | run | channels) >> 31) return at / run % channels;
  return uint32_t(at) / uint32_t(run) % uint32_t(channels);  // several times faster
}

// The offset of row r's element in column `index`. An index outside the row reads the first column.
// In a matrix [cols, inner], each column holds the elements of `inner` neighbouring rows side by
// side.
FUSEGEN_FN int64_t place_in_row(int64_t r, int64_t index, int64_t cols, int64_t inner) {
  const int64_t column = index >= 0 && index < cols ? index : 0;
  if (inner == 1) return r * cols + column;
  return (r / inner * cols + column) * inner + r % inner;
}

#if !defined(__CUDACC__)  // kernel.cu is compiled for one dtype at a time

// Whether kernels are compiled for a dtype. The default is all; -DFUSEGEN_DTYPES=float32+bfloat16
// compiles for these two alone, in half of the time. (nvcc takes a comma for the end of the macro.)
constexpr bool is_compiled([[maybe_unused]] DType dtype) {
#if defined(FUSEGEN_DTYPES)
  [[maybe_unused]] constexpr int float64 = 1, float32 = 2, bfloat16 = 4, float16 = 8;
  return ((FUSEGEN_DTYPES) >> int(dtype)) & 1;
#else
  return true;
#endif
}

// Calls f with a value of the storage type that `dtype` names.
template <class F>
auto with_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float64:
      if constexpr (is_compiled(DType::float64)) return f(double{});
      break;
    case DType::float32:
      if constexpr (is_compiled(DType::float32)) return f(float{});
      break;
    case DType::bfloat16:
      if constexpr (is_compiled(DType::bfloat16)) return f(bfloat16{});
      break;
    default:
      if constexpr (is_compiled(DType::float16)) return f(float16{});
  }
#if defined(FUSEGEN_DTYPES)
  refuse_left_out(dtype);
#endif
}

#endif

}  // namespace fusegen
