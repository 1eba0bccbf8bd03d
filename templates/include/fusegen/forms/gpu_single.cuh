// A row in the registers of a team of threads that takes no other row, on the GPU.
//
// All of its loads are in flight before anything waits. While the team reduces, other teams load.
// Chosen where rows share no state and a thread keeps little of an element. Bound: memory.
#pragma once

#include "fusegen/forms/gpu_in_registers.cuh"

namespace fusegen {
namespace {

template <class D, class L, class S, int V, int ITEMS, int THREADS, int BLOCKS, Holders HOLDERS,
          bool ANYWHERE = false>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    single(typename D::Args args, [[maybe_unused]] uint64_t policy,
           typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  await_kernels_before();
  const int r = int(blockIdx.x) * int(blockDim.y) + int(threadIdx.y);
  const bool exists = r < int(args.rows);  // a team without a row only takes part in the barriers
  const int first_column = int(threadIdx.x) * V, apart = int(blockDim.x) * V;
  const int64_t row_at = opaque(int64_t(r) * args.cols + first_column);
  typename K::Scalar scalar;
  RowInRegisters<D, S, V, ITEMS, ANYWHERE> work(args, scalar, r, exists ? int(args.cols) : 0,
                                                first_column, apart, row_at);
  const typename P::template Starts<typename P::Fulls> from(args, r, row_at);
#pragma unroll
  for (int item = 0; item < ITEMS; ++item) {
    if (work.column(item) < work.end) {
      if constexpr (ANYWHERE)
        P::template read_anywhere<L>(work.raw[item], from.to, item * apart,
                                     work.end - work.column(item), policy);
      else
        P::template read_all<L>(work.raw[item], from.to, item * apart, policy);
    }
  }
  scalar = P::scalars(args);
  if (exists) P::load_row(args, r, work.row);
  const auto channels = row_channels<P>(args, r, 0);
  using RowTeam = Team<typename P::T, HOLDERS, joint_values<D>, THREADS>;
  __shared__ typename RowTeam::Exchange exchange;
  RowTeam team(*settled(&exchange));
  Elements<P, V> leaves;
  const auto read = [](int) {};
  const auto channel = [&](int, int c) { return channels.at(c); };
  const auto fill_columns = [&](typename K::Col(&col)[V], int, int64_t c) {
    if constexpr (ANYWHERE)
      P::load_some_cols(args, scalar, col, int(c), work.end - int(c));
    else
      P::load_cols(args, scalar, col, c);
  };
  const auto add = [](auto, int) {};
  const auto fetch_next = [] {};
  each(StagesOf<D>{}, [&](auto stage, auto n) {
    work.template run<decltype(stage), n.value == 0>(team, leaves, read, channel, fill_columns, add,
                                                     fetch_next);
  });
  if (exists && threadIdx.x == 0) leave_row<P, V>(args, partial, r, scalar, work.row, leaves);
}

}  // namespace
}  // namespace fusegen
