// The operators that all packages have for a GPU: copies, and sums over rows. Only binding.cpp
// includes it.
#pragma once

#include <cstdint>
#include <vector>

#include "fusegen/activation_impl.h"
#include "fusegen/check.h"
#include "fusegen/on_stream.h"
#include "fusegen/summed_rows.h"
#include "fusegen/tensor.h"

#if defined(FUSEGEN_CUDA)

namespace fusegen {
namespace {

// The operators `channels_last` and `channels_first`: a copy of images or volumes in that format.
void in_format(uint64_t* stack, bool last) {
  Call call(stack);
  const Tensor x = call.tensor();
  FUSEGEN_CHECK(x.dim() > 2, "x: expected channels and space");
  const std::vector<int64_t> strides = packed_strides(x.dim(), x.sizes(), last);
  const Tensor copy = call.keep(new_tensor(
      {x.dim(), x.sizes(), strides.data(), x.dtype(), x.device_type(), x.device_index()}));
  call.returns({copied_into(call, copy, x)});
}
void channels_last(uint64_t* stack, uint64_t, uint64_t) {
  in_format(stack, true);
}
void channels_first(uint64_t* stack, uint64_t, uint64_t) {
  in_format(stack, false);
}

// The operator `copy_into`: copies a tensor's elements into another one of its sizes and dtype.
void copy_into(uint64_t* stack, uint64_t, uint64_t) {
  Call call(stack);
  const Tensor to = call.tensor(), from = call.tensor();
  bool fits = to.dim() == from.dim() && to.dtype() == from.dtype() &&
              to.device_type() == from.device_type() && to.device_index() == from.device_index();
  for (int64_t dim = 0; fits && dim < to.dim(); ++dim) fits = to.sizes()[dim] == from.sizes()[dim];
  FUSEGEN_CHECK(fits, "to: its shape, dtype or device is not that of what is copied");
  copied_into(call, to, from);
  call.returns({});
}

// The operator `sum_rows`: the sums of the columns of a matrix without gaps.
void sum_rows(uint64_t* stack, uint64_t, uint64_t) {
  Call call(stack);
  const Tensor x = call.tensor();
  FUSEGEN_CHECK(x.dim() == 2 && x.is_contiguous(), "x: expected a contiguous matrix");
  const int32_t dtype = x.dtype(), device = x.device_type(), index = x.device_index();
  int64_t (*parts)(int64_t, int64_t) = nullptr;
  const char* (*kernel)(const SummedRows&, void*) = nullptr;
  const auto choose = [&](auto* count, auto* run) { parts = count, kernel = run; };
  if (dtype == aoti_torch_dtype_float64())
    choose(summed_rows_parts<double>, summed_rows_cuda<double>);
  if (dtype == aoti_torch_dtype_float32())
    choose(summed_rows_parts<float>, summed_rows_cuda<float>);
  if (dtype == aoti_torch_dtype_bfloat16())
    choose(summed_rows_parts<bfloat16>, summed_rows_cuda<bfloat16>);
  if (dtype == aoti_torch_dtype_float16())
    choose(summed_rows_parts<float16>, summed_rows_cuda<float16>);
  FUSEGEN_CHECK(kernel != nullptr, "x: the package has no kernel of sums for its dtype");
  const OnStream on(index);
  SummedRows sum{x.const_data_ptr(), nullptr, nullptr, x.sizes()[0], x.sizes()[1], 1};
  sum.parts = parts(sum.rows, sum.cols);
  const int64_t next = 1, partials[] = {sum.parts, sum.cols}, apart[] = {sum.cols, 1};
  const int32_t computed = dtype == aoti_torch_dtype_float64() ? dtype : aoti_torch_dtype_float32();
  const Tensor total = call.keep(new_tensor({1, &sum.cols, &next, dtype, device, index}));
  const Tensor partial = call.keep(new_tensor({2, partials, apart, computed, device, index}));
  sum.to = total.mutable_data_ptr();
  sum.partial = partial.mutable_data_ptr();
  on.check(kernel(sum, on.stream()));
  call.returns({total});
}

}  // namespace
}  // namespace fusegen

#endif
