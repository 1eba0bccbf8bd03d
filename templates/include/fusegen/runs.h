// Copies between tensors with other strides, in runs of elements that are neighbours in both.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

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

// Whether a copy between tensors of the same sizes has runs: if their innermost dim in the order of
// `writes` has neighbouring elements in both. It then fills `found`, with as few dims as there can
// be.
inline bool find_runs(int64_t rank, const int64_t* sizes, const int64_t* reads,
                      const int64_t* writes, Runs& found) {
  std::vector<int64_t> dims;
  for (int64_t dim = 0; dim < rank; ++dim) {
    if (sizes[dim] != 1) dims.push_back(dim);
  }
  std::stable_sort(dims.begin(), dims.end(),
                   [&](int64_t a, int64_t b) { return writes[a] > writes[b]; });
  std::vector<int64_t> size, read, write;
  for (const int64_t dim : dims) {
    const bool joined = !size.empty() && read.back() == sizes[dim] * reads[dim] &&
                        write.back() == sizes[dim] * writes[dim];
    if (joined) {
      size.back() *= sizes[dim];
      read.back() = reads[dim];
      write.back() = writes[dim];
    } else {
      size.push_back(sizes[dim]);
      read.push_back(reads[dim]);
      write.push_back(writes[dim]);
    }
  }
  if (size.empty() || read.back() != 1 || write.back() != 1) return false;
  const size_t outer = size.size() - 1;
  if (outer > size_t(Runs::most)) return false;
  found.run = size.back();
  found.dims = int(outer);
  std::copy_n(size.begin(), outer, found.sizes);
  std::copy_n(read.begin(), outer, found.reads);
  std::copy_n(write.begin(), outer, found.writes);
  return true;
}

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
