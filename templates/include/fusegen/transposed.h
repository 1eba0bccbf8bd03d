// Copies of tensors with two groups of dims exchanged, as between channels-last and contiguous
// ones.
#pragma once

#include <cstdint>

#include "fusegen/platform.h"

namespace fusegen {

// A copy of `count` matrices [rows, cols], each transposed.
struct Transposition {
  const void* from;
  void* to;
  int64_t count, rows, cols;
};

// Runs it on the GPU for elements of SIZE bytes. Returns an error message, or null.
template <int SIZE>
FUSEGEN_OPTIONAL const char* transposed_cuda(const Transposition& copy, void* stream);

}  // namespace fusegen
