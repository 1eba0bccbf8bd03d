// Allocates new tensors for results.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/util/shim_utils.h>

#include <cstdint>

#include "fusegen/pool.h"

namespace fusegen {

// A new tensor's properties.
struct Made {
  int64_t rank;
  const int64_t *sizes, *strides;
  int32_t dtype, device, index;
};

#if defined(FUSEGEN_CPU)

// A tensor with memory from the pool. The memory returns there when the tensor's storage is freed.
inline AtenTensorHandle pooled(const Made& made, int64_t bytes) {
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
  return handle;
}

#endif

// A new tensor without gaps. torch::stable::new_empty would look up its operator by name in each
// call.
inline AtenTensorHandle new_tensor(const Made& made) {
#if defined(FUSEGEN_CPU)
  int64_t bytes = int64_t(aoti_torch_dtype_element_size(made.dtype));
  for (int64_t dim = 0; dim < made.rank; ++dim) bytes *= made.sizes[dim];
  if (Pool::here().serves(bytes)) return pooled(made, bytes);
#endif
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(made.rank, made.sizes, made.strides, made.dtype,
                                                  made.device, made.index, &handle));
#if defined(FUSEGEN_CPU)
  void* memory = nullptr;
  if (bytes >= Pool::least && torch_get_mutable_data_ptr(handle, &memory) == AOTI_TORCH_SUCCESS) {
    prefer_huge_pages(memory, bytes);
  }
#endif
  return handle;
}

}  // namespace fusegen
