// Elements by themselves, on the GPU, where each row has numbers of its own and rows may begin
// between two accesses: all elements as one long row, as in the flat form.
//
// A thread has R accesses of V elements in flight. An access may belong to two rows; each of its
// elements takes the numbers of its own. Bound: memory.
#pragma once

#include "fusegen/divisor.h"
#include "fusegen/forms/gpu_elements.cuh"
#include "fusegen/forms/gpu_grid_sums.cuh"

namespace fusegen {
namespace {

template <class D, class L, class S, int V, int R>
__global__ void __launch_bounds__(256)
    across(typename D::Args args, [[maybe_unused]] uint64_t policy, Divisor cols,
           typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using All = typename P::AllStages;
  await_kernels_before();
  const auto scalar = P::scalars(args);
  const int64_t count = args.rows * args.cols, body = count / V * V;
  Elements<P, V> leaves;
  // Computes W elements from element `at` on. The first of them is in row r.
  const auto compute = [&](const auto& raw, auto& left, int64_t at, int64_t r) {
    constexpr int W = int(sizeof(raw[0]) / sizeof(S));
    typename K::Full full[W];
    P::template unpack_inputs<All>(args, full, raw, at);
    typename K::Row row[2] = {};
    const int64_t until = (r + 1) * args.cols - at;  // elements before the next row
    P::load_row(args, r, row[0]);
    P::template begin_stage<All>(scalar, row[0]);
    row[1] = row[0];
    if (W > 1 && until < W) {
      P::load_row(args, r + 1, row[1]);
      P::template begin_stage<All>(scalar, row[1]);
    }
#pragma unroll
    for (int v = 0; v < W; ++v) {
      typename K::Out out;
      P::run_stages(full[v], typename K::Col{}, v < until ? row[0] : row[1], scalar, out);
      left.template take<All>(v, out);
    }
    left.template store<All, true>(P::results(args).to, at);
  };
  constexpr int64_t block = 256 * V;  // elements of one access of the whole block
  for (int64_t first = blockIdx.x * (block * R) + threadIdx.x * V; first < body;
       first += gridDim.x * (block * R)) {
    Packed<S, V> raw[R][P::Fulls::size + 1];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int64_t at = first + i * block;
      if (at < body) {
        each(typename P::Fulls{}, [&](auto item, auto n) {
          const S* const from = pointer<S, decltype(item)::arg>(args);
          raw[i][n] = read<L, V>(from + at, policy);
        });
      }
    }
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int64_t at = first + i * block;
      if (at < body) compute(raw[i], leaves, at, cols.quotient(at));
    }
  }
  if constexpr (V > 1) {
    const int64_t at = body + threadIdx.x;
    if (blockIdx.x == 0 && at < count) {
      Packed<S, 1> raw[P::Fulls::size + 1];
      each(typename P::Fulls{}, [&](auto item, auto n) {
        const S* const from = pointer<S, decltype(item)::arg>(args);
        raw[n] = read<L, 1>(from + at, policy);
      });
      Elements<P, 1> left;
      compute(raw, left, at, cols.quotient(at));
      leaves.add_totals(left);
    }
  }
  leave_totals<P>(partial, leaves.totals);
}

// The plan for a call, if this form can serve it.
template <class D, class L, class S>
struct AcrossPlan : PartialCounts {
  using P = GpuParts<D, S>;
  static constexpr int width = 16 / sizeof(S), flight = in_flight<S>(L::rows_in_flight, width);
  static constexpr auto kernel = across<D, L, S, width, flight>;

  unsigned grid;

  // Whether accesses may lie across two rows: nothing belongs to columns, no tensor has gaps, and
  // rows are so long that no access lies across three.
  static bool serves(const typename D::Args& args) {
    bool can = args.rows > 1 && args.cols >= std::max(2, width - 1) &&
               P::template vectorisable<true>(args, width);
    const auto check = [&](auto item, auto) {
      if constexpr (has_gap<decltype(item)>) can = can && (args.*item.gap).none();
    };
    each(typename P::Fulls{}, check);
    each(typename P::Stores{}, check);
    return can;
  }

  explicit AcrossPlan(const typename D::Args& args) {
    constexpr int64_t batch = 256 * width * flight;
    int64_t wanted = std::min<int64_t>((args.rows * args.cols + batch - 1) / batch, 1 << 30);
    if constexpr (P::Totals::size > 0)  // keeps the partial sums few
      wanted = std::min(wanted, resident_blocks(kernel, dim3(256), 0) * L::waves);
    grid = unsigned(wanted);
    blocks = grid;
  }
};

template <class D, class L, class S>
struct Across {
  using Plan = AcrossPlan<D, L, S>;
  static int64_t workspace(const typename D::Args& args) {
    return scratch_bytes<D, S>(args, Plan(args));
  }
  static void run(const typename D::Args& args, void* workspace, cudaStream_t stream) {
    const Plan plan(args);
    const auto partial = place_partials<D, S>(args, plan, workspace);
    const uint64_t policy = read_policy(args.rows * args.cols * int64_t(sizeof(S)));
    launch(Plan::kernel, stream, plan.grid, 256, 0, 1, args, policy, Divisor(args.cols), partial);
    add_up<D, S>(args, plan, partial, stream);
  }
};

}  // namespace
}  // namespace fusegen
