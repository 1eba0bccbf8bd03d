// The activation as kernels see it: rows and columns. Also checks a call's other tensors against
// it, and allocates the results.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "fusegen/dtype.h"
#include "fusegen/strided.h"
#include "fusegen/tensor.h"

namespace fusegen {

// The shape of saved statistics: one value per row, one per column, or a single value.
enum class Kind { row, col, scalar };

// The memory formats that an operator's kernels accept.
//   contiguous  dims in their own order
//   grouped     the same, or with the channels last, so that groups of channels lie between one
//               another
//   any         dims in any order; the kernel treats any contiguous stretch as a row
//   packed      column dims adjacent and in their own order, row dims in theirs, columns innermost
//   strided     the same, but row dims may come after the columns (see `inner`)
// All of them allow gaps between rows.
enum class MemoryFormat { contiguous, grouped, any, packed, strided };

// How x's dims become rows and columns.
struct Layout {
  int64_t rank;                // the number of dims x must have, or 0 for any number
  int64_t first, last;         // the dims of the columns, counted from the end: -1 is the last
  int64_t groups;              // how many rows each sample's columns are split into
  MemoryFormat memory_format;  // which memory formats the kernels accept
  // The dim that holds a tensor's two halves or more parts, counted from the end; 0 if there is
  // none. How many parts there are, and whether the columns of the first two alternate.
  int64_t halved = 0, parts = 2;
  bool alternating = false;
  // The dims along which operands of kind `channel` vary, bit n for dim -1 - n; 0: dim 1 alone. If
  // they are the dims of the columns and some of the rows, rows are counted so that those which
  // differ along these dims are neighbours.
  uint64_t axis = 0;
};

class Arrangement;

// The activation as the kernels see it: [rows, cols], whatever its dims. If the tensor has several
// parts, the activation has the shape of one part.
class Activation {
 public:
  Activation(Call& call, Tensor x, const Layout& layout);
  ~Activation();
  Activation(const Activation&) = delete;
  Activation& operator=(const Activation&) = delete;

  int64_t rows() const { return height_; }
  int64_t cols() const { return width_; }
  // The same for kernels that treat any contiguous stretch as a row. Valid once all tensors are
  // known.
  int64_t flat_rows() const { return numel_ ? numel_ / together_ : 0; }
  int64_t flat_cols() const { return together_; }
  // The rows of a sample: the first sixteenth of the matrices [cols, …].
  int64_t sample() const { return matrix_ ? (height_ / matrix_ + 15) / 16 * matrix_ : 0; }
  // How many elements of a place are adjacent; of them, `run` belong to one row. Neither is ever 0,
  // because kernels divide by them.
  int64_t inner() const {
    const int64_t found = interleaved_ ? size(1) : inner_;
    return found > 1 ? found : 1;
  }
  int64_t run() const { return interleaved_ ? size(1) / layout_.groups : 1; }
  // The elements of a matrix [places, inner]: rows without gaps between them.
  int64_t matrix_elements() const { return width_ * (inner() / run()); }
  int64_t channels() const { return channels_; }
  int64_t channel_run() const { return channel_run_ > 1 && !interleaved_ ? channel_run_ : 1; }
  // How many rows together have all channels, if these are along the columns.
  int64_t cycle() const {
    if (!layout_.axis) return layout_.groups;
    return std::max<int64_t>(1, channels_ * channel_run_ / std::max<int64_t>(1, width_));
  }
  DType dtype() const { return dtype_; }
  const Tensor& x() const { return x_; }

  // The next functions return a tensor as the kernel reads it, after checking its dtype and device
  // against x. They copy a tensor whose memory format differs from x's, or which has gaps within
  // rows. `whole` reads a tensor of so many parts. Numbers are stored in x's dtype, or, if
  // `float32`, in the type that they are computed in.
  Tensor full(Tensor t, const char* name) { return read_by_element(t, name, 1); }
  Tensor whole(Tensor t, const char* name, int64_t parts) {
    return read_by_element(t, name, parts);
  }
  Tensor col(Tensor t, const char* name, bool float32 = false) const {
    return checked(t, name, width_, float32);
  }
  Tensor row(Tensor t, const char* name, bool float32 = false) const {
    return checked(t, name, height_, float32);
  }
  Tensor channel(Tensor t, const char* name, bool float32 = false) const {
    return checked(t, name, channels(), float32);
  }
  Tensor scalar(Tensor t, const char* name, bool float32 = false) const {
    return checked(t, name, 1, float32);
  }
  // These hold several parts.
  Tensor col_parts(Tensor t, const char* name, int64_t parts, bool float32 = false) const {
    return checked(t, name, parts * width_, float32);
  }
  Tensor channel_parts(Tensor t, const char* name, int64_t parts, bool float32 = false) const {
    return checked(t, name, parts * channels(), float32);
  }

  // Class labels: one int64 per row, the number of a column.
  Tensor labels(Tensor t, const char* name) const;
  // Statistics that the forward pass saved.
  Tensor saved(Tensor t, const char* name, Kind kind) const;
  // The seed of the rng: one int64 on x's device.
  const uint64_t* seed(Tensor t) const;

  // The offset of one of a tensor's parts, in elements, if parts are adjacent columns.
  int64_t full_part(Tensor t, int64_t place) const {
    return place * size(halved_) * t.strides()[halved_];
  }
  int64_t col_part(Tensor, int64_t place) const { return place * width_; }
  int64_t channel_part(Tensor, int64_t place) const { return place * channels(); }
  const void* read(Tensor t, int64_t offset = 0) const {
    return static_cast<const char*>(t.const_data_ptr()) + offset * element(t);
  }
  void* written(Tensor t, int64_t offset = 0) const {
    return static_cast<char*>(t.mutable_data_ptr()) + offset * element(t);
  }

  // The gaps of a tensor, or of one part of it whose columns are `step` apart, if a row has `row`
  // elements.
  Gap gap(Tensor t, int64_t row, int64_t step = 1) const;

  // New tensors for results.
  Tensor like(Tensor t) const;
  Tensor full_result();
  Tensor whole_result();
  Tensor reduced_result(Kind kept, bool keepdim, bool float32 = false) const;
  Tensor one_result(bool float32 = false) const;
  Tensor statistics(Kind kind) const;

 private:
  // The shortest row that pays off in kernels that treat any contiguous stretch as a row. Each row
  // has its own cost, so tensors with shorter rows are copied, unless the parts of every tensor of
  // several parts are that short. runtime/memory.py has the same number.
  int64_t shortest_ = 32;

  int64_t size(int64_t dim) const {
    return dim == halved_ ? sizes_[dim] / layout_.parts : sizes_[dim];
  }
  bool column(int64_t dim) const {
    return dim >= dims_ + layout_.first && dim <= dims_ + layout_.last;
  }
  int64_t count(Kind kind) const {
    return kind == Kind::row ? height_ : kind == Kind::col ? width_ : 1;
  }
  // The bytes of an element: beside an x of 16 bits some tensors are of float32.
  int64_t element(Tensor t) const {
    return size_of(t.dtype() == stored_ ? dtype_ : DType::float32);
  }
  int32_t stored(bool float32) const { return float32 ? computed_ : stored_; }

  // Calls f with each step of the accesses to a tensor with so many parts, while f returns true.
  template <class F>
  bool each_step(int64_t parts, const F& f) const {
    const bool alternating = parts > 1 && layout_.alternating;
    return (!alternating || f(2)) && ((alternating && parts == 2) || f(1));
  }
  bool takes(Tensor t, int64_t parts) const;
  bool takes_by(Tensor t, int64_t step) const;
  void note(Tensor t, int64_t parts);
  bool sorts();
  // Whether a dim is one of those along which operands of kind `channel` vary.
  bool on_axis(int64_t dim) const {
    return layout_.axis ? layout_.axis >> (dims_ - 1 - dim) & 1 : dim == 1;
  }
  std::vector<int64_t> order_by_axis() const;
  bool has_channels_last() const;
  Tensor read_by_element(Tensor t, const char* name, int64_t parts);
  Tensor copied(Tensor t) const;
  Tensor contiguous(Tensor t) const;
  Tensor beside(const int64_t* sizes) const;
  Tensor fresh(int64_t dims, const int64_t* sizes, int32_t dtype) const;
  Tensor checked(Tensor t, const char* name, int64_t count, bool float32) const;
  void check(Tensor t, const char* name, bool fits, bool float32 = false) const;
  bool at_home(Tensor t) const;

  Call& call_;
  const Tensor x_;
  const Layout layout_;
  const int64_t dims_;
  const int64_t* const sizes_;  // x's
  const int32_t device_type_, device_index_;
  const int32_t stored_;  // x's dtype
  int32_t computed_;      // the dtype that it is computed in
  DType dtype_;
  Arrangement* arrangement_ = nullptr;
  bool plain_ = false;        // x is contiguous, and no tensor of several parts
  bool interleaved_ = false;  // its channels come last, and rows are groups of them
  int64_t halved_ = -1;
  int64_t numel_, together_ = 0, width_ = 1, height_ = 1, inner_ = 1, matrix_ = 1;
  int64_t channels_ = 0, channel_run_ = 1;
};

}  // namespace fusegen
