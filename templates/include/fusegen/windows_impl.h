// The operator of windows.h. Only binding.cpp includes it, for the GPU.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/util/shim_utils.h>

#include <cstdint>
#include <vector>

#include "fusegen/activation_impl.h"
#include "fusegen/check.h"
#include "fusegen/dtype.h"
#include "fusegen/on_stream.h"
#include "fusegen/results.h"
#include "fusegen/tensor.h"
#include "fusegen/windows.h"

#if defined(FUSEGEN_CUDA)

namespace fusegen {
namespace {

// A new tensor of a call's samples and channels with some places, of the last dims, in the memory
// format of `like`.
Tensor new_places(Call& call, const Tensor& like, const int (&places)[3], bool channels_last,
                  int32_t dtype) {
  const int64_t dims = like.dim();
  std::vector<int64_t> sizes(like.sizes(), like.sizes() + dims);
  for (int64_t dim = 2; dim < dims; ++dim) sizes[size_t(dim)] = places[dim - dims + 3];
  const std::vector<int64_t> strides = packed_strides(dims, sizes.data(), channels_last);
  return call.keep(new_tensor(
      {dims, sizes.data(), strides.data(), dtype, like.device_type(), like.device_index()}));
}

// The operator `windows` (windows.py). Its tensors are x, without gaps and channels-last or not; a
// bias, of no elements if there is none; and what an earlier call found, likewise.
void windows(uint64_t* stack, uint64_t, uint64_t) {
  Call call(stack);
  const Tensor x = call.tensor(), bias = call.tensor(), found = call.tensor();
  const auto reading = Reading(call.integer());
  const bool channels_last = call.integer(), finds = call.integer();
  Windows w{};
  w.counts_padding = call.integer();
  for (int* const sizes : {w.in, w.out, w.size, w.stride, w.padding, w.dilation}) {
    for (int k = 0; k < 3; ++k) sizes[k] = int(call.integer());
  }
  const int64_t images = x.sizes()[0], channels = x.sizes()[1];
  w.samples = channels_last ? images : images * channels;
  w.channels = channels_last ? channels : 1;
  w.bias_channels = bias.numel();
  const bool up = reading == Reading::put || reading == Reading::spread;
  const Tensor to = new_places(call, x, up ? w.in : w.out, channels_last, x.dtype());
  const int none[3] = {0, 0, 0};
  const Tensor which =
      new_places(call, x, finds ? w.out : none, channels_last, aoti_torch_dtype_uint8());
  w.from = x.const_data_ptr();
  w.to = to.mutable_data_ptr();
  if (bias.numel()) w.bias = bias.const_data_ptr();
  if (found.numel()) w.found = static_cast<const uint8_t*>(found.const_data_ptr());
  if (finds) w.finds = static_cast<uint8_t*>(which.mutable_data_ptr());
  const int32_t dtype = x.dtype();
  decltype(&windows_cuda<float>) kernel = nullptr;
  if (dtype == aoti_torch_dtype_float64()) kernel = windows_cuda<double>;
  if (dtype == aoti_torch_dtype_float32()) kernel = windows_cuda<float>;
  if (dtype == aoti_torch_dtype_bfloat16()) kernel = windows_cuda<bfloat16>;
  if (dtype == aoti_torch_dtype_float16()) kernel = windows_cuda<float16>;
  FUSEGEN_CHECK(kernel != nullptr, "x: the package has no kernels of windows for its dtype");
  const OnStream on(x.device_index());
  on.check(kernel(w, reading, on.stream()));
  call.returns({to, which});
}

}  // namespace
}  // namespace fusegen

#endif
