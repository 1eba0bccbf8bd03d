// How a tensor's elements are arranged in memory: the order of its dims, and its gaps.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "fusegen/strided.h"

namespace fusegen {

using torch::stable::Tensor;

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
  Arrangement() = default;
  explicit Arrangement(std::vector<int64_t> sizes) : sizes_(std::move(sizes)) {}

  // Whether the order differs from the dims' own.
  bool sorted() const { return !order_.empty(); }
  int64_t dim(int64_t place) const { return sorted() ? order_[place] : place; }

  // Orders the dims by x's strides, the largest first.
  void sort_by(const Tensor& x) {
    order_.resize(sizes_.size());
    for (size_t dim = 0; dim < order_.size(); ++dim) order_[dim] = int64_t(dim);
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int64_t a, int64_t b) { return x.stride(a) > x.stride(b); });
  }
  void unsort() { order_.clear(); }

  // Whether a tensor's elements, in this order, have gaps at no more dims than a kernel can count;
  // `found` describes them.
  bool find(const Tensor& t, Spacing& found) const {
    int64_t count = 1, apart = 1, last = 0;
    found.count = 0;
    for (size_t place = sizes_.size(); place-- > 0;) {
      const int64_t size = sizes_[dim(place)];
      if (size == 1) continue;
      const int64_t stride = t.stride(dim(place));
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
    int64_t before = 0;
    for (size_t place = sizes_.size(); place-- > 0;) {
      const int64_t stride = t.stride(dim(place));
      if (sizes_[dim(place)] == 1 || stride == 0) continue;
      if (stride < before) return false;
      before = stride;
    }
    return true;
  }

  // The strides of a tensor of these sizes in this order, without gaps.
  template <class Sizes>
  std::vector<int64_t> strides(const Sizes& sizes) const {
    std::vector<int64_t> found(sizes.size());
    int64_t apart = 1;
    for (size_t place = sizes.size(); place-- > 0;) {
      found[dim(place)] = apart;
      apart *= std::max<int64_t>(sizes[dim(place)], 1);
    }
    return found;
  }

 private:
  std::vector<int64_t> sizes_, order_;
};

}  // namespace fusegen
