// The activation as kernels see it: rows and columns. Also checks a call's other tensors against
// it, and allocates the results.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

#include "fusegen/dtype.h"
#include "fusegen/strided.h"
#include "fusegen/arrangement.h"
#include "fusegen/results.h"

namespace fusegen {

// The shape of saved statistics: one value per row, one per column, or a single value.
enum class Kind { row, col, scalar };

// The memory formats that an operator's kernels accept.
//   contiguous  dims in their own order
//   any         dims in any order; the kernel treats any contiguous stretch as a row
//   packed      column dims adjacent and in their own order, row dims in theirs, columns innermost
//   strided     the same, but row dims may come after the columns (see `inner`)
// All of them allow gaps between rows.
enum class MemoryFormat { contiguous, any, packed, strided };

// How x's dims become rows and columns.
struct Layout {
  int64_t rank;                // the number of dims x must have, or 0 for any number
  int64_t first, last;         // the dims of the columns, counted from the end: -1 is the last
  int64_t groups;              // how many rows each sample's columns are split into
  MemoryFormat memory_format;  // which memory formats the kernels accept
  // The dim that holds a tensor's two halves, counted from the end; 0 if there is none.
  int64_t halved = 0;
};

// The activation as the kernels see it: [rows, cols], whatever its dims. If the tensor has two
// halves, the activation has the shape of one half.
class Activation {
 public:
  Activation(const Tensor& x, const Layout& layout) : x_(x), layout_(layout), numel_(x.numel()) {
    const int64_t rank = layout.rank, dims = x.dim();
    if (layout.halved) {
      halved_ = dims + layout.halved;
      STD_TORCH_CHECK(halved_ >= 0 && x.size(halved_) % 2 == 0, "x: it has no two halves");
      numel_ /= 2;
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
    for (int64_t dim = 0; dim < dims; ++dim) {
      (column(dim) ? width_ : height_) *= size(dim);
      // The run of a channel: how many adjacent elements share a channel if the channel dim is
      // among the columns; otherwise how many adjacent rows do.
      if (dim > 1 && (column(1) || !column(dim))) channel_run_ *= size(dim);
      if (dim > dims + layout.last) matrix_ *= size(dim);
    }
    inner_ = matrix_;
    STD_TORCH_CHECK(layout.groups > 0 && width_ % layout.groups == 0, "x: its channels are not ",
                    layout.groups, " groups");
    height_ *= layout.groups;
    width_ /= layout.groups;
    together_ = numel_;
    plain_ = numel_ == 0 || (halved_ < 0 && x.is_contiguous());
    arrangement_ = Arrangement(sizes());
    if (plain_ || (arrangement_.orders(x) && takes(x))) return;
    if (layout.memory_format != MemoryFormat::contiguous && sorts() && takes(x)) return;
    arrangement_.unsort();
    inner_ = matrix_;
  }

  int64_t rows() const { return height_; }
  int64_t cols() const { return width_; }
  // The same for kernels that treat any contiguous stretch as a row. Valid once all tensors are
  // known.
  int64_t flat_rows() const { return numel_ ? numel_ / together_ : 0; }
  int64_t flat_cols() const { return together_; }
  // The rows of a sample: the first sixteenth of the matrices [cols, …].
  int64_t sample() const { return matrix_ ? (height_ / matrix_ + 15) / 16 * matrix_ : 0; }
  // Never 0, because kernels divide by it.
  int64_t inner() const { return std::max<int64_t>(inner_, 1); }
  int64_t channels() const { return size(1); }
  int64_t channel_run() const { return std::max<int64_t>(channel_run_, 1); }
  DType dtype() const { return dtype_; }
  const Tensor& x() const { return x_; }

  // The next functions return a tensor as the kernel reads it, after checking its dtype and device
  // against x. They copy a tensor whose memory format differs from x's, or which has gaps within
  // rows. `whole` reads both halves of a tensor. Numbers are stored in x's dtype, or, if `float32`,
  // in the type that they are computed in.
  Tensor full(const Tensor& t, const char* name) { return read_by_element(t, name, false); }
  Tensor whole(const Tensor& t, const char* name) { return read_by_element(t, name, true); }
  Tensor col(const Tensor& t, const char* name, bool float32 = false) const {
    return checked(t, name, t.numel() == width_, float32);
  }
  Tensor row(const Tensor& t, const char* name, bool float32 = false) const {
    return checked(t, name, t.numel() == height_, float32);
  }
  Tensor channel(const Tensor& t, const char* name, bool float32 = false) const {
    return checked(t, name, t.numel() == channels(), float32);
  }
  Tensor scalar(const Tensor& t, const char* name, bool float32 = false) const {
    return checked(t, name, t.numel() == 1, float32);
  }
  // These hold both halves, one after the other.
  Tensor col_halves(const Tensor& t, const char* name, bool float32 = false) const {
    return checked(t, name, t.numel() == 2 * width_, float32);
  }
  Tensor channel_halves(const Tensor& t, const char* name, bool float32 = false) const {
    return checked(t, name, t.numel() == 2 * channels(), float32);
  }

  // The offset of a tensor's second half, in elements.
  int64_t full_half(const Tensor& t) const { return size(halved_) * t.stride(halved_); }
  int64_t col_half(const Tensor&) const { return width_; }
  int64_t channel_half(const Tensor&) const { return channels(); }
  const void* read(const Tensor& t, int64_t offset = 0) const {
    return static_cast<const char*>(t.const_data_ptr()) + offset * element(t);
  }
  void* written(const Tensor& t, int64_t offset = 0) const {
    return static_cast<char*>(t.mutable_data_ptr()) + offset * element(t);
  }

  // The gaps of a tensor, or of one half of it, if a row has `row` elements.
  Gap gap(const Tensor& t, int64_t row) const {
    Gap counted;
    Spacing lies;
    if ((plain_ && t.is_contiguous()) || !arrangement_.find(t, lies)) return counted;
    for (int n = 0; n < lies.count; ++n) counted.add(n, lies.after[n] / row, lies.extra[n]);
    return counted;
  }

  // Class labels: one int64 per row, the number of a column.
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
  Tensor like(const Tensor& t) const { return fresh(t.sizes(), t.scalar_type()); }
  Tensor full_result() const { return halved_ < 0 ? beside(x_.sizes()) : beside(sizes()); }
  Tensor whole_result() {
    const Tensor made = beside(x_.sizes());
    note(made);
    return made;
  }
  Tensor row_result(bool keepdim, bool float32 = false) const {
    std::vector<int64_t> sizes;
    for (int64_t dim = 0; dim < x_.dim(); ++dim) {
      if (!column(dim)) sizes.push_back(size(dim));
      if (column(dim) && keepdim) sizes.push_back(1);
    }
    return fresh(sizes, stored(float32));
  }
  Tensor one_result(bool float32 = false) const {
    return fresh(std::vector<int64_t>{}, stored(float32));
  }
  Tensor statistics(Kind kind) const {
    return fresh(std::vector<int64_t>{count(kind)}, computed());
  }

 private:
  // The shortest row that pays off in kernels that treat any contiguous stretch as a row. Each row
  // has its own cost, so tensors with shorter rows are copied. runtime/memory.py has the same
  // number.
  static constexpr int64_t shortest = 32;

  int64_t size(int64_t dim) const { return dim == halved_ ? x_.size(dim) / 2 : x_.size(dim); }
  bool column(int64_t dim) const {
    return dim >= x_.dim() + layout_.first && dim <= x_.dim() + layout_.last;
  }
  std::vector<int64_t> sizes() const {
    std::vector<int64_t> found;
    for (int64_t dim = 0; dim < x_.dim(); ++dim) found.push_back(size(dim));
    return found;
  }
  int64_t count(Kind kind) const {
    return kind == Kind::row ? height_ : kind == Kind::col ? width_ : 1;
  }
  ScalarType computed() const {
    return dtype_ == DType::float64 ? ScalarType::Double : ScalarType::Float;
  }
  // The bytes of an element: beside an x of 16 bits some tensors are of float32.
  int64_t element(const Tensor& t) const {
    return size_of(t.scalar_type() == x_.scalar_type() ? dtype_ : DType::float32);
  }
  ScalarType stored(bool float32) const { return float32 ? computed() : x_.scalar_type(); }

  // Whether the kernels can read a tensor without a copy: its only gaps are between rows.
  bool takes(const Tensor& t) const {
    Spacing lies;
    if (!arrangement_.find(t, lies)) return false;
    if (lies.count == 0 || (!arrangement_.sorted() && t.is_contiguous())) return true;
    if (numel_ >> 31) return false;  // Gap counts no further
    if (layout_.memory_format != MemoryFormat::any) return lies.after[0] % (width_ * inner_) == 0;
    return std::gcd(together_, lies.after[0]) >= shortest;
  }
  // Shrinks the length of a contiguous stretch to what this tensor allows too.
  void note(const Tensor& t) {
    Spacing lies;
    if (numel_ && arrangement_.find(t, lies)) {
      together_ = std::gcd(together_, lies.together(numel_));
    }
  }

  // Whether x, with its dims in the order of its strides, has a memory format that the layout
  // accepts. If so, this adopts that order and recomputes what comes after the columns.
  bool sorts() {
    arrangement_.sort_by(x_);
    if (layout_.memory_format == MemoryFormat::any) return true;
    int64_t inner = 1, last_column = -1, last_row = -1;
    bool left = false;  // the columns
    for (int64_t place = 0; place < x_.dim(); ++place) {
      const int64_t dim = arrangement_.dim(place);
      if (size(dim) == 1) continue;
      int64_t& before = column(dim) ? last_column : last_row;
      if (dim < before || (column(dim) && left)) return false;
      before = dim;
      if (!column(dim) && last_column >= 0) {
        left = true;
        inner *= size(dim);
      }
    }
    if (layout_.memory_format == MemoryFormat::packed && inner > 1) return false;
    inner_ = inner;
    return true;
  }

  // Checks a tensor of x's shape, and copies it if the kernels cannot read it as it is.
  Tensor read_by_element(const Tensor& t, const char* name, bool whole) {
    bool same = t.dim() == x_.dim();
    for (int64_t dim = 0; same && dim < t.dim(); ++dim) {
      same = t.size(dim) == (whole ? x_.size(dim) : size(dim));
    }
    check(t, name, same);
    if (plain_ && t.is_contiguous()) return t;
    if (numel_ == 0) return torch::stable::contiguous(t);
    const Tensor taken = takes(t) ? t : copied(t);
    note(taken);
    return taken;
  }
  Tensor copied(const Tensor& t) const {
    if (!arrangement_.sorted()) return torch::stable::contiguous(t);
    Tensor copy = new_tensor(x_, t.sizes(), arrangement_.strides(t.sizes()), x_.scalar_type());
    return torch::stable::copy_(copy, t);
  }

  // A new tensor in x's memory format, but without gaps.
  template <class Sizes>
  Tensor beside(const Sizes& sizes) const {
    return new_tensor(x_, sizes, arrangement_.strides(sizes), x_.scalar_type());
  }
  // A new contiguous tensor.
  template <class Sizes>
  Tensor fresh(const Sizes& sizes, ScalarType dtype) const {
    return new_tensor(x_, sizes, Arrangement().strides(sizes), dtype);
  }

  void check(const Tensor& t, const char* name, bool fits, bool float32 = false) const {
    STD_TORCH_CHECK(fits, name, ": its shape does not fit x");
    STD_TORCH_CHECK(t.scalar_type() == stored(float32), name, ": its dtype does not fit that of x");
    STD_TORCH_CHECK(t.is_cuda() == x_.is_cuda() && t.get_device_index() == x_.get_device_index(),
                    name, ": its device is not that of x");
  }
  Tensor checked(const Tensor& t, const char* name, bool fits, bool float32 = false) const {
    check(t, name, fits, float32);
    return t.is_contiguous() ? t : torch::stable::contiguous(t);
  }

  const Tensor& x_;
  const Layout layout_;
  Arrangement arrangement_;
  bool plain_ = false;  // x is contiguous, and no tensor of two halves
  int64_t halved_ = -1;
  int64_t numel_, together_ = 0, width_ = 1, height_ = 1, inner_ = 1, matrix_ = 1, channel_run_ = 1;
  DType dtype_;
};

}  // namespace fusegen
