// Allocates new tensors for results.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>

#include "fusegen/pool.h"

namespace fusegen {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A result's properties, for both ways to allocate its memory.
struct Made {
  int64_t rank;
  const int64_t *sizes, *strides;
  int32_t dtype, device, index;
};

#if defined(FUSEGEN_CPU)

// A tensor with memory from the pool. The memory returns there when the tensor's storage is freed.
inline Tensor pooled(const Made& made, int64_t bytes) {
  void* const memory = Pool::here().take(bytes);
  const auto give = [](void* data, void* size) {
    Pool::here().give(data, reinterpret_cast<intptr_t>(size));
  };
  void* const size = reinterpret_cast<void*>(intptr_t(bytes));
  AtenTensorHandle handle;
  const auto error =
      torch_from_blob(memory, made.rank, made.sizes, made.strides, 0, made.dtype, made.device,
                      made.index, &handle, aoti_torch_layout_strided(), nullptr, 0, give, size);
  if (error != AOTI_TORCH_SUCCESS) give(memory, size);
  TORCH_ERROR_CODE_CHECK(error);
  return Tensor(handle);
}

#endif

// A new tensor without gaps on x's device. torch::stable::new_empty would look up its operator by
// name in each call.
template <class Sizes, class Strides>
Tensor new_tensor(const Tensor& x, const Sizes& sizes, const Strides& strides, ScalarType dtype) {
  Made made{int64_t(sizes.size()), sizes.data(), strides.data(), 0, 0, 0};
  made.dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &made.device));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(x.get(), &made.index));
#if defined(FUSEGEN_CPU)
  int64_t bytes = dtype == ScalarType::Double ? 8 : dtype == ScalarType::Float ? 4 : 2;
  for (const int64_t size : sizes) bytes *= size;
  if (Pool::here().serves(bytes)) return pooled(made, bytes);
#endif
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(made.rank, made.sizes, made.strides, made.dtype,
                                                  made.device, made.index, &handle));
  Tensor result(handle);
#if defined(FUSEGEN_CPU)
  prefer_huge_pages(result.mutable_data_ptr(), bytes);
#endif
  return result;
}

}  // namespace fusegen
