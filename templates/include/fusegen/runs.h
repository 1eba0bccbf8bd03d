// Copies between tensors with other strides, in runs of elements that are neighbours in both.
#pragma once

#include <cstdint>

#include "fusegen/platform.h"

namespace fusegen {

// A copy of `run` neighbouring elements at each place of some dims, the outermost first. Strides
// count elements.
struct Runs {
  static constexpr int most = 5;
  const void* from;
  void* to;
  int64_t run = 1;
  int dims = 0;
  int64_t sizes[most]{}, reads[most]{}, writes[most]{};
};

// The bytes of an access that divides all runs and strides, for elements of `size` bytes: 16, 8, or
// 0 if neither does.
inline int access_of(const Runs& copy, int size) {
  uint64_t all = uint64_t(copy.run);
  for (int dim = 0; dim < copy.dims; ++dim) all |= uint64_t(copy.reads[dim] | copy.writes[dim]);
  all = all * uint64_t(size) | reinterpret_cast<uintptr_t>(copy.from) |
        reinterpret_cast<uintptr_t>(copy.to);
  return all % 16 == 0 ? 16 : all % 8 == 0 ? 8 : 0;
}

// Runs it on the GPU for elements of SIZE bytes. There must be such an access, and fewer than 2^31
// of them. Returns an error message, or null.
template <int SIZE>
FUSEGEN_OPTIONAL const char* runs_copied_cuda(const Runs& copy, void* stream);

}  // namespace fusegen
