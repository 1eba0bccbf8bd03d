// How a tensor's elements are arranged in memory: the order of its dims, and its gaps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "fusegen/strided.h"
#include "fusegen/tensor.h"

namespace fusegen {

// Where a tensor's gaps are: after each `after[n]` elements, counted without gaps, `extra[n]`
// elements follow that are not the next ones. The innermost gap comes first.
struct Spacing {
  int count = 0;
  int64_t after[Gap::most], extra[Gap::most];

  // How many elements are contiguous, of a tensor with `numel`.
  int64_t together(int64_t numel) const { return count ? after[0] : numel; }
};

// The dims of an activation from the outermost in memory to the innermost: in their own order, or
// in the order of a tensor's strides.
class Arrangement {
 public:
  // `halved`: the dim along which tensors may have several parts; -1 if there is none.
  Arrangement(std::vector<int64_t> sizes, int64_t halved)
      : sizes_(std::move(sizes)), halved_(halved) {}

  // The activation's sizes.
  const int64_t* sizes() const { return sizes_.data(); }
  // Whether the order differs from the dims' own.
  bool sorted() const { return !order_.empty(); }
  int64_t dim(int64_t place) const { return sorted() ? order_[place] : place; }

  // Orders the dims by x's strides, the largest first, and those of one stride as they are.
  void sort_by(const Tensor& x) {
    const int64_t* const strides = x.strides();
    order_.resize(sizes_.size());
    for (size_t dim = 0; dim < order_.size(); ++dim) {
      size_t place = dim;
      for (; place > 0 && strides[order_[place - 1]] < strides[dim]; --place) {
        order_[place] = order_[place - 1];
      }
      order_[place] = int64_t(dim);
    }
  }
  void unsort() { order_.clear(); }
  // Orders the dims as given; none: in their own order.
  void order(std::vector<int64_t> dims) { order_ = std::move(dims); }

  // Whether a tensor's elements, in this order, have gaps at no more dims than a kernel can count;
  // `found` describes them. Of a part of it whose columns are `step` apart, what lies between these
  // is no gap.
  bool find(const Tensor& t, Spacing& found, int64_t step) const {
    const int64_t* const strides = t.strides();
    int64_t count = 1, apart = step, last = 0;
    found.count = 0;
    for (size_t place = sizes_.size(); place-- > 0;) {
      const int64_t size = sizes_[dim(place)];
      if (size == 1) continue;
      const int64_t stride = strides[dim(place)] * (dim(place) == halved_ ? step : 1);
      if (stride != apart) {
        if (found.count == Gap::most) return false;
        found.after[found.count] = count;
        found.extra[found.count++] = stride - apart;
      }
      count *= size;
      apart = stride * size;
      last += stride * (size - 1);
    }
    return found.count == 0 || last >> 31 == 0;  // Gap counts no further
  }

  // Whether the dims are in this order in a tensor's memory. A dim that is broadcast has no place.
  bool orders(const Tensor& t) const {
    const int64_t* const strides = t.strides();
    int64_t before = 0;
    for (size_t place = sizes_.size(); place-- > 0;) {
      const int64_t stride = strides[dim(place)];
      if (sizes_[dim(place)] == 1 || stride == 0) continue;
      if (stride < before) return false;
      before = stride;
    }
    return true;
  }

  // The strides of a tensor of these sizes in this order, without gaps.
  std::vector<int64_t> strides(const int64_t* sizes) const {
    std::vector<int64_t> found(sizes_.size());
    int64_t apart = 1;
    for (size_t place = found.size(); place-- > 0;) {
      found[dim(place)] = apart;
      apart *= std::max<int64_t>(sizes[dim(place)], 1);
    }
    return found;
  }

 private:
  std::vector<int64_t> sizes_, order_;
  int64_t halved_;
};

}  // namespace fusegen
