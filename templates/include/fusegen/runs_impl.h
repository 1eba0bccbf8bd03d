// Finds the runs of copies, and copies them on the GPU. Only binding.cpp includes it.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/util/shim_utils.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "fusegen/check.h"
#include "fusegen/runs.h"
#include "fusegen/tensor.h"

namespace fusegen {
namespace {

// The kernel for a tensor's dtype, and the bytes of an element; null if there is none.
[[maybe_unused]] auto run_copier_of([[maybe_unused]] const Tensor& t, [[maybe_unused]] int& size) {
  using Kernel = const char* (*)(const Runs&, void*);
  Kernel found = nullptr;
#if defined(FUSEGEN_CUDA)
  size = int(aoti_torch_dtype_element_size(t.dtype()));
  if (size == 8) found = runs_copied_cuda<8>;
  if (size == 4) found = runs_copied_cuda<4>;
  if (size == 2) found = runs_copied_cuda<2>;
#endif
  return found;
}

// Whether a copy between two tensors of the same sizes has runs; it then fills `found`.
[[maybe_unused]] bool has_runs(const Tensor& from, const Tensor& to, Runs& found) {
  const int64_t* const sizes = from.sizes();
  const int64_t *const reads = from.strides(), *const writes = to.strides();
  std::vector<int64_t> dims;
  for (int64_t dim = 0; dim < from.dim(); ++dim) {
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
  const size_t outer = size.empty() ? 0 : size.size() - 1;
  if (size.empty() || read.back() != 1 || write.back() != 1 || outer > size_t(Runs::most))
    return false;
  found.run = size.back();
  found.dims = int(outer);
  std::copy_n(size.begin(), outer, found.sizes);
  std::copy_n(read.begin(), outer, found.reads);
  std::copy_n(write.begin(), outer, found.writes);
  return true;
}

// Copies a tensor into one of the same sizes by that kernel, if it can; returns whether it did.
[[maybe_unused]] bool copied_in_runs([[maybe_unused]] const Tensor& from,
                                     [[maybe_unused]] const Tensor& to) {
#if defined(FUSEGEN_CUDA)
  Runs copy{};
  int size = 0;
  const auto kernel = run_copier_of(from, size);
  if (from.numel() < few_elements || from.numel() >> 31 || !kernel || !has_runs(from, to, copy))
    return false;
  copy.from = from.const_data_ptr();
  copy.to = to.mutable_data_ptr();
  if (access_of(copy, size) == 0) return false;
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(from.device_index(), &stream));
  DeviceGuardHandle guard;
  TORCH_ERROR_CODE_CHECK(aoti_torch_create_device_guard(from.device_index(), &guard));
  const char* const error = kernel(copy, stream);
  aoti_torch_delete_device_guard(guard);
  FUSEGEN_CHECK(error == nullptr, "CUDA: ", error ? error : "");
  return true;
#else
  return false;
#endif
}

}  // namespace
}  // namespace fusegen
