// Columns by themselves, on the GPU: results that depend on a column's operands alone, without the
// activation. A thread computes one column.
//
// Bound: the launch, since there are few columns.
#pragma once

#include "fusegen/forms/gpu_grid_sums.cuh"

namespace fusegen {
namespace {

template <class D, class S>
__global__ void __launch_bounds__(128) columns(typename D::Args args) {
  using P = Parts<D, S>;
  await_kernels_before();
  const auto scalar = P::scalars(args);
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c < args.cols) {
    auto col = P::loaded_column(args, c);
    P::derive(scalar, col);
    each(typename ResultsOf<D>::items{}, [&](auto item, auto) {
      put<decltype(item)>(args, element_of<decltype(item)>(c), member(col, scalar, item.value));
    });
  }
}

template <class D, class L, class S>
struct Columns {
  static int64_t workspace(const typename D::Args&) { return 0; }
  static void run(const typename D::Args& args, void*, cudaStream_t stream) {
    const auto blocks = unsigned((args.cols + 127) / 128);
    if (blocks > 0) launch(columns<D, S>, stream, blocks, 128, 0, 1, args);
  }
};

}  // namespace
}  // namespace fusegen
