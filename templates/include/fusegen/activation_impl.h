// The code of Activation. Only binding.cpp includes it.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/util/shim_utils.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "fusegen/activation.h"
#include "fusegen/arrangement.h"
#include "fusegen/check.h"
#include "fusegen/results.h"
#include "fusegen/transposed_impl.h"
#include "fusegen/runs_impl.h"

namespace fusegen {
namespace {

// Calls a function of torch's dispatcher that returns one tensor; it takes over those on the stack.
AtenTensorHandle dispatched(const char* name, StableIValue* stack) {
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, "", stack, TORCH_ABI_VERSION));
  return reinterpret_cast<AtenTensorHandle>(stack[0]);
}

// Another reference to a tensor, as the dispatcher takes it.
StableIValue shared(const Tensor& t) {
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(t.get(), &handle));
  return reinterpret_cast<StableIValue>(handle);
}

// The strides of a tensor without gaps, with its dims in their own order or with the channels last.
std::vector<int64_t> packed_strides(int64_t dims, const int64_t* sizes,
                                    bool channels_last = false) {
  std::vector<int64_t> strides(static_cast<size_t>(dims), 1);
  int64_t apart = channels_last ? std::max<int64_t>(sizes[1], 1) : 1;
  for (int64_t dim = dims; dim-- > 0;) {
    if (channels_last && dim == 1) continue;  // its stride is 1
    strides[dim] = apart;
    apart *= std::max<int64_t>(sizes[dim], 1);
  }
  return strides;
}

// Copies a tensor's elements into a new one of its sizes, with strides of its own; returns that.
Tensor copied_into(Call& call, const Tensor& copy, const Tensor& from) {
  Transposition found;
  if (transposable(from, copy.strides(), found)) {
    transpose(from, copy, found);
    return copy;
  }
  if (copied_in_runs(from, copy)) return copy;
  StableIValue stack[] = {shared(copy), shared(from), 0};  // not non_blocking
  return call.keep(dispatched("aten::copy_", stack));
}

}  // namespace

Activation::Activation(Call& call, Tensor x, const Layout& layout)
    : call_(call),
      x_(x),
      layout_(layout),
      dims_(x.dim()),
      sizes_(x.sizes()),
      device_type_(x.device_type()),
      device_index_(x.device_index()),
      stored_(x.dtype()),
      numel_(x.numel()) {
  if (layout.halved) {
    halved_ = dims_ + layout.halved;
    FUSEGEN_CHECK(halved_ >= 0 && sizes_[halved_] % layout.parts == 0, "x: it has no such parts");
    numel_ /= layout.parts;
  }
  FUSEGEN_CHECK(layout.rank == 0 || dims_ == layout.rank, "x: expected ",
                std::to_string(layout.rank).c_str(), " dims, got ", std::to_string(dims_).c_str());
  const int32_t stored_as[] = {aoti_torch_dtype_float64(), aoti_torch_dtype_float32(),
                               aoti_torch_dtype_bfloat16(), aoti_torch_dtype_float16()};
  int dtype = 0;
  while (dtype < 4 && stored_as[dtype] != stored_) ++dtype;
  FUSEGEN_CHECK(dtype < 4, "x: expected float64, float32, bfloat16 or float16");
  dtype_ = DType(dtype);
  computed_ = stored_as[dtype_ == DType::float64 ? 0 : 1];
  std::vector<int64_t> sizes(sizes_, sizes_ + dims_);
  if (halved_ >= 0) sizes[halved_] /= layout.parts;
  const bool apart = halved_ >= 0 && (layout.parts > 2 || !layout.alternating);
  if (apart) {
    int64_t together = 1;
    for (int64_t dim = halved_; dim < dims_; ++dim) together *= sizes[dim];
    shortest_ = std::min(shortest_, together);
  }
  int64_t last = -1;  // of the axis of channels
  for (int64_t dim = 0; dim < dims_; ++dim) {
    if (!on_axis(dim)) continue;
    channels_ = (last < 0 ? 1 : channels_) * sizes[dim];
    last = dim;
  }
  for (int64_t dim = 0; dim < dims_; ++dim) {
    (column(dim) ? width_ : height_) *= sizes[dim];
    // The run of a channel: how many adjacent elements share a channel if its last dim is among the
    // columns; otherwise how many adjacent rows do.
    if (dim > last && (column(last) || !column(dim))) channel_run_ *= sizes[dim];
    if (dim > dims_ + layout.last) matrix_ *= sizes[dim];
  }
  // Rows of one column are neighbours: those of a sample lie side by side, but for parts of one
  // column.
  if (layout.memory_format == MemoryFormat::strided && width_ == 1 && numel_ && !column(0) &&
      !(apart && halved_ > 0)) {
    matrix_ = height_ / sizes[0];
  }
  inner_ = matrix_;
  FUSEGEN_CHECK(layout.groups > 0 && width_ % layout.groups == 0, "x: its channels are not ",
                std::to_string(layout.groups).c_str(), " groups");
  height_ *= layout.groups;
  width_ /= layout.groups;
  together_ = numel_;
  std::vector<int64_t> order = order_by_axis();
  plain_ = numel_ == 0 || (halved_ < 0 && x.is_contiguous() && order.empty());
  const int64_t parts = halved_ < 0 ? 1 : layout.parts;
  auto arrangement = std::make_unique<Arrangement>(std::move(sizes), halved_);
  arrangement_ = arrangement.get();
  const bool reordered = !order.empty();
  arrangement_->order(std::move(order));
  const bool ready =
      plain_ || reordered || (arrangement_->orders(x) && takes(x, parts)) ||
      (layout.memory_format != MemoryFormat::contiguous && sorts() && takes(x, parts));
  if (!ready) {
    arrangement_->unsort();
    inner_ = matrix_;
    interleaved_ = false;
  }
  arrangement.release();
}

Activation::~Activation() {
  delete arrangement_;
}

Tensor Activation::labels(Tensor t, const char* name) const {
  FUSEGEN_CHECK(t.numel() == height_ && t.dtype() == aoti_torch_dtype_int64(), name,
                ": expected one int64 a row");
  FUSEGEN_CHECK(at_home(t), name, ": its device is not that of x");
  return contiguous(t);
}

Tensor Activation::saved(Tensor t, const char* name, Kind kind) const {
  FUSEGEN_CHECK(t.numel() == count(kind) && t.dtype() == computed_ && t.is_contiguous(), name,
                ": not what the forward pass of this x saved");
  return t;
}

const uint64_t* Activation::seed(Tensor t) const {
  FUSEGEN_CHECK(t.numel() == 1 && t.dtype() == aoti_torch_dtype_int64(),
                "seed: expected one int64");
  FUSEGEN_CHECK(t.device_type() == device_type_, "seed: its device is not that of x");
  return static_cast<const uint64_t*>(t.const_data_ptr());
}

Gap Activation::gap(Tensor t, int64_t row, int64_t step) const {
  Gap counted;
  Spacing lies;
  if ((plain_ && t.is_contiguous()) || !arrangement_->find(t, lies, step)) return counted;
  for (int n = 0; n < lies.count; ++n) counted.add(n, lies.after[n] / row, lies.extra[n]);
  return counted;
}

Tensor Activation::like(Tensor t) const {
  return fresh(t.dim(), t.sizes(), t.dtype());
}

Tensor Activation::full_result() {
  const int64_t* const sizes = arrangement_->sizes();
  if (!layout_.axis || !arrangement_->sorted()) return beside(sizes);
  // As torch has it, and the kernels skip from row to row.
  const Tensor made = fresh(dims_, sizes, stored_);
  if (!takes(made, 1)) return beside(sizes);
  note(made, 1);
  return made;
}

Tensor Activation::whole_result() {
  const Tensor made = beside(sizes_);
  note(made, layout_.parts);
  return made;
}

Tensor Activation::reduced_result(Kind kept, bool keepdim, bool float32) const {
  std::vector<int64_t> sizes;
  for (int64_t dim = 0; dim < dims_; ++dim) {
    const bool own = column(dim) == (kept == Kind::col);
    if (own || keepdim) sizes.push_back(own ? size(dim) : 1);
  }
  return fresh(int64_t(sizes.size()), sizes.data(), stored(float32));
}

Tensor Activation::one_result(bool float32) const {
  return fresh(0, nullptr, stored(float32));
}

Tensor Activation::statistics(Kind kind) const {
  const int64_t size = count(kind);
  return fresh(1, &size, computed_);
}

// Whether the kernels can read a tensor without a copy: its only gaps are between rows.
bool Activation::takes(Tensor t, int64_t parts) const {
  return each_step(parts, [&](int64_t step) { return takes_by(t, step); });
}

// The same of accesses to columns that are `step` apart.
bool Activation::takes_by(Tensor t, int64_t step) const {
  Spacing lies;
  if (step > 1 && t.strides()[halved_] != 1) return false;
  if (!arrangement_->find(t, lies, step)) return false;
  if (lies.count == 0 || (!arrangement_->sorted() && t.is_contiguous())) return true;
  if (numel_ >> 31) return false;  // Gap counts no further
  if (layout_.memory_format != MemoryFormat::any) return lies.after[0] % matrix_elements() == 0;
  return std::gcd(together_, lies.after[0]) >= shortest_;
}

// Shrinks the length of a contiguous stretch to what this tensor allows too.
void Activation::note(Tensor t, int64_t parts) {
  each_step(parts, [&](int64_t step) {
    Spacing lies;
    if (numel_ && arrangement_->find(t, lies, step)) {
      together_ = std::gcd(together_, lies.together(numel_));
    }
    return true;
  });
}

// The order in which the axis of operands of kind `channel` counts the dims; empty if that is their
// own.
std::vector<int64_t> Activation::order_by_axis() const {
  std::vector<int64_t> order;
  if (!layout_.axis || !on_axis(dims_ - 1)) return order;
  for (const bool chosen : {false, true}) {
    for (int64_t dim = 0; dim < dims_; ++dim) {
      if (on_axis(dim) == chosen) order.push_back(dim);
    }
  }
  if (std::is_sorted(order.begin(), order.end())) order.clear();
  return order;
}

// Whether x, with its dims in the order of its strides, has a memory format that the layout
// accepts. If so, this adopts that order and recomputes what comes after the columns.
bool Activation::sorts() {
  arrangement_->sort_by(x_);
  if (layout_.alternating && arrangement_->dim(dims_ - 1) != halved_) return false;
  if (layout_.memory_format == MemoryFormat::any) return true;
  if (layout_.memory_format == MemoryFormat::grouped) return interleaved_ = has_channels_last();
  int64_t inner = 1, last_column = -1, last_row = -1;
  bool left = false;  // the columns
  for (int64_t place = 0; place < dims_; ++place) {
    const int64_t dim = arrangement_->dim(place);
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
  inner_ = width_ == 1 ? matrix_ : inner;
  return true;
}

// Whether the channels come last in this order, and the other dims in their own.
bool Activation::has_channels_last() const {
  int64_t before = -1;
  for (int64_t place = 0; place < dims_; ++place) {
    const int64_t dim = arrangement_->dim(place);
    if (size(dim) == 1) continue;
    if (before == 1 || (dim != 1 && dim < before)) return false;
    before = dim;
  }
  return before == 1;
}

// Checks a tensor of x's shape, and copies it if the kernels cannot read it as it is.
Tensor Activation::read_by_element(Tensor t, const char* name, int64_t parts) {
  bool same = t.dim() == dims_;
  const int64_t* const sizes = t.sizes();
  for (int64_t dim = 0; same && dim < dims_; ++dim) {
    same = sizes[dim] == (dim == halved_ ? parts : 1) * size(dim);
  }
  check(t, name, same);
  if (plain_ && t.is_contiguous()) return t;
  if (numel_ == 0) return contiguous(t);
  const Tensor taken = takes(t, parts) ? t : copied(t);
  note(taken, parts);
  return taken;
}

Tensor Activation::copied(Tensor t) const {
  if (!arrangement_->sorted()) return contiguous(t);
  return copied_into(call_, beside(t.sizes()), t);
}

// The tensor, or a contiguous copy.
Tensor Activation::contiguous(Tensor t) const {
  if (t.is_contiguous()) return t;
  return copied_into(call_, fresh(t.dim(), t.sizes(), t.dtype()), t);
}

// A new tensor in x's memory format, but without gaps.
Tensor Activation::beside(const int64_t* sizes) const {
  const std::vector<int64_t> strides = arrangement_->strides(sizes);
  return call_.keep(
      new_tensor({dims_, sizes, strides.data(), stored_, device_type_, device_index_}));
}

// A new contiguous tensor.
Tensor Activation::fresh(int64_t dims, const int64_t* sizes, int32_t dtype) const {
  const std::vector<int64_t> strides = packed_strides(dims, sizes);
  return call_.keep(new_tensor({dims, sizes, strides.data(), dtype, device_type_, device_index_}));
}

Tensor Activation::checked(Tensor t, const char* name, int64_t count, bool float32) const {
  check(t, name, t.numel() == count, float32);
  return contiguous(t);
}

void Activation::check(Tensor t, const char* name, bool fits, bool float32) const {
  FUSEGEN_CHECK(fits, name, ": its shape does not fit x");
  FUSEGEN_CHECK(t.dtype() == stored(float32), name, ": its dtype does not fit that of x");
  FUSEGEN_CHECK(at_home(t), name, ": its device is not that of x");
}

// Whether a tensor is on x's device.
bool Activation::at_home(Tensor t) const {
  return t.device_type() == device_type_ && t.device_index() == device_index_;
}

}  // namespace fusegen
