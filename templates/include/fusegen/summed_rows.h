// Sums over the rows of a matrix, as of the gradient of a product's bias.
#pragma once

#include <cstdint>

#include "fusegen/platform.h"

namespace fusegen {

// A matrix [rows, cols] without gaps; `to` receives the sum of each column. The rows are added up
// in `parts` stretches, whose sums go to `partial` [parts, cols], of the type that S is computed
// in.
struct SummedRows {
  const void* from;
  void *to, *partial;
  int64_t rows, cols, parts;
};

// The stretches that suit a matrix of elements S on the current device.
template <class S>
FUSEGEN_OPTIONAL int64_t summed_rows_parts(int64_t rows, int64_t cols);

// Runs it on the GPU. Returns an error message, or null.
template <class S>
FUSEGEN_OPTIONAL const char* summed_rows_cuda(const SummedRows& sum, void* stream);

}  // namespace fusegen
