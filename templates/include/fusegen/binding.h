// From torch's tensors to a kernel's arguments, through torch's stable ABI: one binary serves
// several versions of torch and Python.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>
#include <vector>

#include "fusegen/dtype.h"
#include "fusegen/levels.h"
#include "fusegen/pages.h"

namespace fusegen {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// How x's dims become rows and columns.
struct Layout {
  int64_t rank;         // the number of dims x must have, or 0 for any
  int64_t first, last;  // the dims of the columns, counted from the end: -1 is the last
  int64_t groups;       // into how many rows they are cut
};

// The activation as the kernels see it: [rows, cols], whatever its dims.
class Activation {
 public:
  // `flat`: rows do not matter to the kernel.
  Activation(const Tensor& x, bool flat, const Layout& layout)
      : x_(x), numel_(x.numel()), first_(layout.first), last_(layout.last) {
    const int64_t rank = layout.rank, dims = x.dim();
    STD_TORCH_CHECK(rank == 0 || dims == rank, "x: expected ", rank, " dims, got ", dims);
    switch (x.scalar_type()) {
      case ScalarType::Double:
        dtype_ = DType::float64;
        break;
      case ScalarType::Float:
        dtype_ = DType::float32;
        break;
      case ScalarType::BFloat16:
        dtype_ = DType::bfloat16;
        break;
      case ScalarType::Half:
        dtype_ = DType::float16;
        break;
      default:
        STD_TORCH_CHECK(false, "x: expected float64, float32, bfloat16 or float16");
    }
    const auto column = [&](int64_t dim) {
      return dim >= dims + layout.first && dim <= dims + layout.last;
    };
    for (int64_t dim = 0; dim < dims; ++dim) {
      (column(dim) ? width_ : height_) *= x.size(dim);
      // Places of a channel that follow one another: elements where the channel is among the
      // columns, else rows.
      if (dim > 1 && (column(1) || !column(dim))) channel_run_ *= x.size(dim);
      if (dim > dims + layout.last) inner_ *= x.size(dim);
    }
    STD_TORCH_CHECK(layout.groups > 0 && width_ % layout.groups == 0, "x: its channels are not ",
                    layout.groups, " groups");
    height_ *= layout.groups;
    width_ /= layout.groups;
    rows_ = flat ? (numel_ ? 1 : 0) : height_;
    cols_ = flat ? numel_ : width_;
  }

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t inner() const { return inner_; }
  int64_t channels() const { return x_.size(1); }
  int64_t channel_run() const { return channel_run_; }
  DType dtype() const { return dtype_; }
  const Tensor& x() const { return x_; }

  // Each returns the tensor as the kernel reads it: contiguous, of x's dtype and device.
  Tensor full(const Tensor& t, const char* name) const {
    bool same = t.dim() == x_.dim();
    for (int64_t dim = 0; same && dim < t.dim(); ++dim) same = t.size(dim) == x_.size(dim);
    return checked(t, name, same);
  }
  Tensor col(const Tensor& t, const char* name) const {
    return checked(t, name, t.numel() == width_);
  }
  Tensor row(const Tensor& t, const char* name) const {
    return checked(t, name, t.numel() == height_);
  }
  Tensor channel(const Tensor& t, const char* name) const {
    return checked(t, name, t.numel() == channels());
  }
  Tensor scalar(const Tensor& t, const char* name) const {
    return checked(t, name, t.numel() == 1);
  }

  // One int64 a row: the number of a column.
  Tensor labels(const Tensor& t, const char* name) const {
    STD_TORCH_CHECK(t.numel() == height_ && t.scalar_type() == ScalarType::Long, name,
                    ": expected one int64 a row");
    STD_TORCH_CHECK(t.is_cuda() == x_.is_cuda() && t.get_device_index() == x_.get_device_index(),
                    name, ": its device is not that of x");
    return t.is_contiguous() ? t : torch::stable::contiguous(t);
  }

  // Row statistics, and sums over all rows, that the forward pass saved.
  Tensor saved(const Tensor& t, const char* name) const {
    STD_TORCH_CHECK(t.numel() == height_ && t.scalar_type() == computed() && t.is_contiguous(),
                    name, ": not what the forward pass of this x saved");
    return t;
  }
  Tensor saved_total(const Tensor& t, const char* name) const {
    STD_TORCH_CHECK(t.numel() == 1 && t.scalar_type() == computed(), name,
                    ": not what the forward pass of this x saved");
    return t;
  }

  // New tensors for results.
  Tensor like(const Tensor& t) const {
    Tensor result = fresh(t.sizes(), x_.scalar_type());
    if (!x_.is_cuda()) {
      prefer_huge_pages(result.mutable_data_ptr(), result.numel() * int64_t(size_of(dtype_)));
    }
    return result;
  }
  Tensor row_result(bool keepdim) const {
    std::vector<int64_t> sizes;
    for (int64_t dim = 0; dim < x_.dim(); ++dim) {
      const bool column = dim >= x_.dim() + first_ && dim <= x_.dim() + last_;
      if (!column) sizes.push_back(x_.size(dim));
      if (column && keepdim) sizes.push_back(1);
    }
    return fresh(sizes, x_.scalar_type());
  }
  Tensor one_result() const { return torch::stable::new_empty(x_, std::vector<int64_t>{}); }
  Tensor total() const { return torch::stable::new_empty(x_, std::vector<int64_t>{1}, computed()); }
  Tensor statistics() const {
    return torch::stable::new_empty(x_, std::vector<int64_t>{height_}, computed());
  }

 private:
  // A new contiguous tensor on x's device. torch::stable::new_empty would look its operator up by name in each call.
  template <class Sizes>
  Tensor fresh(const Sizes& sizes, ScalarType dtype) const {
    std::vector<int64_t> strides(sizes.size());
    int64_t apart = 1;
    for (size_t dim = sizes.size(); dim-- > 0;) {
      strides[dim] = apart;
      apart *= std::max<int64_t>(sizes[dim], 1);
    }
    int32_t type, index;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x_.get(), &type));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(x_.get(), &index));
    const auto code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
    AtenTensorHandle made;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(), code, type, index, &made));
    return Tensor(made);
  }
  ScalarType computed() const {
    return dtype_ == DType::float64 ? ScalarType::Double : ScalarType::Float;
  }
  Tensor checked(const Tensor& t, const char* name, bool fits) const {
    STD_TORCH_CHECK(fits, name, ": its shape does not fit x");
    STD_TORCH_CHECK(t.scalar_type() == x_.scalar_type(), name, ": its dtype is not that of x");
    STD_TORCH_CHECK(t.is_cuda() == x_.is_cuda() && t.get_device_index() == x_.get_device_index(),
                    name, ": its device is not that of x");
    return t.is_contiguous() ? t : torch::stable::contiguous(t);
  }

  const Tensor& x_;
  int64_t numel_, first_, last_, width_ = 1, height_ = 1, inner_ = 1, channel_run_ = 1, rows_,
                                 cols_;
  DType dtype_;
};

// The seed of a draw: one int64 on x's device.
inline const uint64_t* seed_of(const Tensor& seed, const Activation& activation) {
  STD_TORCH_CHECK(seed.numel() == 1 && seed.scalar_type() == ScalarType::Long,
                  "seed: expected one int64");
  STD_TORCH_CHECK(seed.is_cuda() == activation.x().is_cuda(), "seed: its device is not that of x");
  return static_cast<const uint64_t*>(seed.const_data_ptr());
}

#if defined(FUSEGEN_CUDA)

#define FUSEGEN_KERNEL(name) name##_cuda_workspace, name##_cuda
#define FUSEGEN_DEVICE CUDA

template <class Args>
void run(int64_t (*workspace)(DType, const Args&),
         const char* (*launch)(DType, const Args&, void*, void*), const Activation& activation,
         const Args& args) {
  const auto device = activation.x().get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = nullptr;
  aoti_torch_get_current_cuda_stream(device, &stream);
  const int64_t bytes = workspace(activation.dtype(), args);
  Tensor scratch = bytes ? torch::stable::new_empty(activation.x(), std::vector<int64_t>{bytes},
                                                    ScalarType::Byte)
                         : activation.x();
  const char* error =
      launch(activation.dtype(), args, bytes ? scratch.mutable_data_ptr() : nullptr, stream);
  STD_TORCH_CHECK(error == nullptr, "CUDA: ", error ? error : "");
}

#else

#define FUSEGEN_KERNEL(name) FUSEGEN_LEVELS(name##_cpu)
#define FUSEGEN_DEVICE CPU

template <class Args, size_t N>
void run(void (*const (&kernels)[N])(DType, const Args&), const Activation& activation,
         const Args& args) {
  kernels[level()](activation.dtype(), args);
}

#endif

}  // namespace fusegen
