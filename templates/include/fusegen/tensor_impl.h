// The code of Tensor and Call. Only binding.cpp includes it.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/util/shim_utils.h>

#include <cstring>

#include "fusegen/tensor.h"

namespace fusegen {

// Defines a method of Tensor that asks torch.
#define FUSEGEN_ASKS(type, name, function)             \
  type Tensor::name() const {                          \
    type answer{};                                     \
    TORCH_ERROR_CODE_CHECK(function(handle_, &answer)) \
    return answer;                                     \
  }
FUSEGEN_ASKS(int64_t, dim, aoti_torch_get_dim)
FUSEGEN_ASKS(int64_t, numel, aoti_torch_get_numel)
FUSEGEN_ASKS(bool, is_contiguous, aoti_torch_is_contiguous)
FUSEGEN_ASKS(int32_t, dtype, aoti_torch_get_dtype)
FUSEGEN_ASKS(int32_t, device_type, aoti_torch_get_device_type)
FUSEGEN_ASKS(int32_t, device_index, aoti_torch_get_device_index)
FUSEGEN_ASKS(const void*, const_data_ptr, torch_get_const_data_ptr)
FUSEGEN_ASKS(void*, mutable_data_ptr, torch_get_mutable_data_ptr)
#undef FUSEGEN_ASKS

const int64_t* Tensor::sizes() const {
  int64_t* sizes = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(handle_, &sizes));
  return sizes;
}

const int64_t* Tensor::strides() const {
  int64_t* strides = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(handle_, &strides));
  return strides;
}

Call::~Call() {
  for (int place = 0; place < count_; ++place) {
    if (kept_[place]) aoti_torch_delete_tensor_object(kept_[place]);
  }
  if (kept_ != few_) delete[] kept_;
}

double Call::number() {
  double number;
  std::memcpy(&number, next_++, sizeof number);
  return number;
}

Tensor Call::keep(AtenTensorHandle handle) {
  if (count_ == room_) {
    auto* const more = new AtenTensorHandle[2 * room_];
    std::memcpy(more, kept_, sizeof(AtenTensorHandle) * room_);
    if (kept_ != few_) delete[] kept_;
    kept_ = more;
    room_ *= 2;
  }
  kept_[count_] = handle;
  return Tensor(handle, count_++);
}

void Call::returns(std::initializer_list<Tensor> results) {
  uint64_t* place = stack_;
  for (const Tensor& result : results) {
    *place++ = reinterpret_cast<uint64_t>(result.handle_);
    kept_[result.place_] = nullptr;
  }
}

}  // namespace fusegen
