// Copies tensors in runs on the GPU, where they have such. Only binding.cpp includes it.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/util/shim_utils.h>

#include <cstdint>

#include "fusegen/on_stream.h"
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

// Copies a tensor into one of the same sizes by that kernel, if it can; returns whether it did.
[[maybe_unused]] bool copied_in_runs([[maybe_unused]] const Tensor& from,
                                     [[maybe_unused]] const Tensor& to) {
#if defined(FUSEGEN_CUDA)
  Runs copy{};
  int size = 0;
  const auto kernel = run_copier_of(from, size);
  if (from.numel() < few_elements || from.numel() >> 31 || !kernel ||
      !find_runs(from.dim(), from.sizes(), from.strides(), to.strides(), copy))
    return false;
  copy.from = from.const_data_ptr();
  copy.to = to.mutable_data_ptr();
  if (access_of(copy, size) == 0) return false;
  const OnStream on(from.device_index());
  on.check(kernel(copy, on.stream()));
  return true;
#else
  return false;
#endif
}

}  // namespace
}  // namespace fusegen
