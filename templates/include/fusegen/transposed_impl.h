// Finds copies that are transpositions, and runs them on the GPU. Only binding.cpp includes it.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/util/shim_utils.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "fusegen/on_stream.h"
#include "fusegen/tensor.h"
#include "fusegen/transposed.h"

namespace fusegen {
namespace {

// The fewest elements for which it is worth it: torch's own copy is as fast for tensors in a cache.
constexpr int64_t few_elements = 1 << 18;

// Whether a copy of a tensor with other strides, both without gaps, transposes matrices; it then
// fills the sizes of `found`.
[[maybe_unused]] bool transposes(const Tensor& from, const int64_t* after, Transposition& found) {
  const int64_t *const sizes = from.sizes(), *const before = from.strides();
  std::vector<int64_t> dims;  // of the copy, from the outermost to the innermost
  for (int64_t dim = 0; dim < from.dim(); ++dim) {
    if (sizes[dim] != 1) dims.push_back(dim);
  }
  std::stable_sort(dims.begin(), dims.end(),
                   [&](int64_t a, int64_t b) { return after[a] > after[b]; });
  // Whether the dims, in this order, lie in a tensor without gaps.
  const auto lie = [&](const std::vector<int64_t>& order, const int64_t* strides) {
    int64_t apart = 1;
    for (size_t place = order.size(); place-- > 0;) {
      if (strides[order[place]] != apart) return false;
      apart *= sizes[order[place]];
    }
    return true;
  };
  if (!lie(dims, after)) return false;
  // In `from` the dims from `first` to `middle` come after those from `middle` on.
  for (size_t first = 0; first + 1 < dims.size(); ++first) {
    for (size_t middle = first + 1; middle < dims.size(); ++middle) {
      std::vector<int64_t> order = dims;
      std::rotate(order.begin() + long(first), order.begin() + long(middle), order.end());
      if (!lie(order, before)) continue;
      found.count = found.rows = found.cols = 1;
      for (size_t place = 0; place < dims.size(); ++place) {
        int64_t& product = place < first ? found.count : (place < middle ? found.cols : found.rows);
        product *= sizes[dims[place]];
      }
      return true;
    }
  }
  return false;
}

// The kernel for a tensor's dtype, or null.
[[maybe_unused]] auto transposition_of([[maybe_unused]] const Tensor& t) {
  using Kernel = const char* (*)(const Transposition&, void*);
  Kernel found = nullptr;
#if defined(FUSEGEN_CUDA)
  const int32_t dtype = t.dtype();
  if (dtype == aoti_torch_dtype_float64()) found = transposed_cuda<8>;
  if (dtype == aoti_torch_dtype_float32()) found = transposed_cuda<4>;
  if (dtype == aoti_torch_dtype_bfloat16() || dtype == aoti_torch_dtype_float16())
    found = transposed_cuda<2>;
#endif
  return found;
}

// Whether there is a kernel that gives a tensor other strides; it then fills the sizes of `found`.
bool transposable(const Tensor& t, const int64_t* strides, Transposition& found) {
  return t.numel() >= few_elements && transposition_of(t) && transposes(t, strides, found);
}

// Runs that kernel.
void transpose([[maybe_unused]] const Tensor& from, [[maybe_unused]] const Tensor& to,
               [[maybe_unused]] Transposition copy) {
#if defined(FUSEGEN_CUDA)
  copy.from = from.const_data_ptr();
  copy.to = to.mutable_data_ptr();
  const OnStream on(from.device_index());
  on.check(transposition_of(from)(copy, on.stream()));
#endif
}

}  // namespace
}  // namespace fusegen
