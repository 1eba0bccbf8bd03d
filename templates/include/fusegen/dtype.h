// The dtypes of tensors.
#pragma once

#include <cstdint>

namespace fusegen {

// The dtypes that kernels support.
enum class DType { float64, float32, bfloat16, float16 };

// A bfloat16 as it is stored: the upper half of a float.
struct bfloat16 {
  uint16_t bits;
};

// An IEEE half-precision number as it is stored.
struct float16 {
  uint16_t bits;
};

// The size in bytes of a stored number.
constexpr int size_of(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

// Throws what a call with a dtype is told that kernels were not compiled for. binding.cpp has it.
[[noreturn]] void refuse_left_out(DType dtype);

}  // namespace fusegen
