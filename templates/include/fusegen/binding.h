// From torch's tensors to a kernel's arguments, through torch's stable ABI: one binary serves
// several versions of torch and Python.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "fusegen/dtype.h"
#include "fusegen/levels.h"
#include "fusegen/results.h"

namespace fusegen {

// The axes that a statistic varies along: one value a row, one a column, or one in all.
enum class Kind { row, col, scalar };

// How the elements may lie for the kernels of an operator. `contiguous`: one dim behind the other.
// Else in any order without gaps; but for `packed` and `strided`, columns lie together and in their
// own order, and so do rows. For `packed` nothing lies behind the columns.
enum class Order { contiguous, any, packed, strided };

// How x's dims become rows and columns.
struct Layout {
  int64_t rank;         // the number of dims x must have, or 0 for any
  int64_t first, last;  // the dims of the columns, counted from the end: -1 is the last
  int64_t groups;       // into how many rows they are cut
  Order order;          // how the elements may lie
  int64_t halved = 0;   // the dim of the tensor's two halves, counted from the end; 0: it has none
};

// The activation as the kernels see it: [rows, cols], whatever its dims. Of a tensor of two halves
// it is one of them.
class Activation {
 public:
  Activation(const Tensor& x, const Layout& layout)
      : x_(x), numel_(x.numel()), first_(layout.first), last_(layout.last) {
    const int64_t rank = layout.rank, dims = x.dim();
    if (layout.halved) {
      halved_ = dims + layout.halved;
      STD_TORCH_CHECK(halved_ >= 0 && x.size(halved_) % 2 == 0, "x: it has no two halves");
      numel_ /= 2;
      for (int64_t dim = halved_; dim < dims; ++dim) half_ *= size(dim);
    }
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
      (column(dim) ? width_ : height_) *= size(dim);
      // Places of a channel that follow one another: elements where the channel is among the
      // columns, else rows.
      if (dim > 1 && (column(1) || !column(dim))) channel_run_ *= size(dim);
      if (dim > dims + layout.last) matrix_ *= size(dim);
    }
    inner_ = matrix_;
    STD_TORCH_CHECK(layout.groups > 0 && width_ % layout.groups == 0, "x: its channels are not ",
                    layout.groups, " groups");
    height_ *= layout.groups;
    width_ /= layout.groups;
    as_it_lies_ = numel_ > 0 && !x.is_contiguous() && layout.order != Order::contiguous &&
                  lies_in(layout.order);
  }

  int64_t rows() const { return height_; }
  int64_t cols() const { return width_; }
  int64_t numel() const { return numel_; }
  // The rows of a sample: a sixteenth of the matrices [cols, …] that follow one another.
  int64_t sample() const { return matrix_ ? (height_ / matrix_ + 15) / 16 * matrix_ : 0; }
  int64_t inner() const { return std::max<int64_t>(inner_, 1); }  // of nothing too: it divides
  int64_t channels() const { return size(1); }
  int64_t channel_run() const { return std::max<int64_t>(channel_run_, 1); }
  // How many rows of a half follow one another, with the `inner` of a matrix counted once.
  int64_t half_rows() const {
    return std::max<int64_t>(half_ / std::max<int64_t>(width_ * inner_, 1), 1);
  }
  DType dtype() const { return dtype_; }
  const Tensor& x() const { return x_; }

  // Each returns the tensor as the kernel reads it, of x's dtype and device: contiguous, or as x
  // lies.
  Tensor full(const Tensor& t, const char* name) const {
    bool same = t.dim() == x_.dim(), alike = true;
    for (int64_t dim = 0; same && dim < t.dim(); ++dim) {
      same = t.size(dim) == size(dim);
      alike &= t.size(dim) == 1 || t.stride(dim) == x_.stride(dim);
    }
    check(t, name, same);
    if (!as_it_lies_) return t.is_contiguous() ? t : torch::stable::contiguous(t);
    if (alike) return t;
    Tensor copy = torch::stable::empty_like(x_);
    return torch::stable::copy_(copy, t);
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

  // A tensor of two halves: like x, or with one half behind the other.
  Tensor whole(const Tensor& t, const char* name) const {
    bool same = t.dim() == x_.dim();
    for (int64_t dim = 0; same && dim < t.dim(); ++dim) same = t.size(dim) == x_.size(dim);
    return checked(t, name, same);
  }
  Tensor col_halves(const Tensor& t, const char* name) const {
    return checked(t, name, t.numel() == 2 * width_);
  }
  Tensor channel_halves(const Tensor& t, const char* name) const {
    return checked(t, name, t.numel() == 2 * channels());
  }

  // Where a half begins in such a tensor, in elements, and as a place in memory.
  int64_t full_half() const { return half_; }
  int64_t col_half() const { return width_; }
  int64_t channel_half() const { return channels(); }
  const void* read(const Tensor& t, int64_t behind = 0) const {
    return static_cast<const char*>(t.const_data_ptr()) + behind * element_size();
  }
  void* written(const Tensor& t, int64_t behind = 0) const {
    return static_cast<char*>(t.mutable_data_ptr()) + behind * element_size();
  }

  // One int64 a row: the number of a column.
  Tensor labels(const Tensor& t, const char* name) const {
    STD_TORCH_CHECK(t.numel() == height_ && t.scalar_type() == ScalarType::Long, name,
                    ": expected one int64 a row");
    STD_TORCH_CHECK(t.is_cuda() == x_.is_cuda() && t.get_device_index() == x_.get_device_index(),
                    name, ": its device is not that of x");
    return t.is_contiguous() ? t : torch::stable::contiguous(t);
  }

  // Statistics that the forward pass saved.
  Tensor saved(const Tensor& t, const char* name, Kind kind) const {
    STD_TORCH_CHECK(t.numel() == count(kind) && t.scalar_type() == computed() && t.is_contiguous(),
                    name, ": not what the forward pass of this x saved");
    return t;
  }

  // New tensors for results.
  Tensor like(const Tensor& t) const { return fresh(t.sizes(), x_.scalar_type()); }
  Tensor full_result() const {
    if (!as_it_lies_) return fresh(sizes(), x_.scalar_type());
    return new_tensor(x_, x_.sizes(), x_.strides(), x_.scalar_type());
  }
  Tensor whole_result() const { return like(x_); }
  Tensor row_result(bool keepdim) const {
    std::vector<int64_t> sizes;
    for (int64_t dim = 0; dim < x_.dim(); ++dim) {
      const bool column = dim >= x_.dim() + first_ && dim <= x_.dim() + last_;
      if (!column) sizes.push_back(size(dim));
      if (column && keepdim) sizes.push_back(1);
    }
    return fresh(sizes, x_.scalar_type());
  }
  Tensor one_result() const { return fresh(std::vector<int64_t>{}, x_.scalar_type()); }
  Tensor statistics(Kind kind) const {
    return fresh(std::vector<int64_t>{count(kind)}, computed());
  }

 private:
  int64_t size(int64_t dim) const { return dim == halved_ ? x_.size(dim) / 2 : x_.size(dim); }
  std::vector<int64_t> sizes() const {
    std::vector<int64_t> found;
    for (int64_t dim = 0; dim < x_.dim(); ++dim) found.push_back(size(dim));
    return found;
  }
  int64_t element_size() const {
    return dtype_ == DType::float64 ? 8 : dtype_ == DType::float32 ? 4 : 2;
  }
  int64_t count(Kind kind) const {
    return kind == Kind::row ? height_ : kind == Kind::col ? width_ : 1;
  }
  // A new contiguous tensor.
  template <class Sizes>
  Tensor fresh(const Sizes& sizes, ScalarType dtype) const {
    std::vector<int64_t> strides(sizes.size());
    int64_t apart = 1;
    for (size_t dim = sizes.size(); dim-- > 0;) {
      strides[dim] = apart;
      apart *= std::max<int64_t>(sizes[dim], 1);
    }
    return new_tensor(x_, sizes, strides, dtype);
  }
  ScalarType computed() const {
    return dtype_ == DType::float64 ? ScalarType::Double : ScalarType::Float;
  }
  // Whether x lies in an order; if it does, what is behind the columns is found anew.
  bool lies_in(Order order) {
    std::vector<int64_t> lying;  // the dims of more than one place, from the outermost
    for (int64_t dim = 0; dim < x_.dim(); ++dim) {
      if (x_.size(dim) > 1) lying.push_back(dim);
    }
    std::stable_sort(lying.begin(), lying.end(),
                     [&](int64_t a, int64_t b) { return x_.stride(a) > x_.stride(b); });
    int64_t apart = 1;
    for (size_t n = lying.size(); n-- > 0; apart *= x_.size(lying[n])) {
      if (x_.stride(lying[n]) != apart) return false;
    }
    if (order == Order::any) return true;
    int64_t inner = 1, last_column = -1, last_row = -1;
    bool left = false;  // the columns
    for (const int64_t dim : lying) {
      const bool column = dim >= x_.dim() + first_ && dim <= x_.dim() + last_;
      int64_t& before = column ? last_column : last_row;
      if (dim < before || (column && left)) return false;
      before = dim;
      if (!column && last_column >= 0) {
        left = true;
        inner *= x_.size(dim);
      }
    }
    if (order == Order::packed && inner > 1) return false;
    inner_ = inner;
    return true;
  }
  void check(const Tensor& t, const char* name, bool fits) const {
    STD_TORCH_CHECK(fits, name, ": its shape does not fit x");
    STD_TORCH_CHECK(t.scalar_type() == x_.scalar_type(), name, ": its dtype is not that of x");
    STD_TORCH_CHECK(t.is_cuda() == x_.is_cuda() && t.get_device_index() == x_.get_device_index(),
                    name, ": its device is not that of x");
  }
  Tensor checked(const Tensor& t, const char* name, bool fits) const {
    check(t, name, fits);
    return t.is_contiguous() ? t : torch::stable::contiguous(t);
  }

  const Tensor& x_;
  bool as_it_lies_ = false;
  int64_t halved_ = -1,
          half_ = 1;  // the dim of the halves, and the elements of one that lie together
  int64_t numel_, first_, last_, width_ = 1, height_ = 1, inner_ = 1, matrix_ = 1, channel_run_ = 1;
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
