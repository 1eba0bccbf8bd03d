// Sums over the grid, on the GPU: where blocks leave their parts, how these are added up, and how a
// kernel is run.
#pragma once

#include "fusegen/forms/gpu_parts.cuh"

namespace fusegen {
namespace {

// How many partial sums a plan has that knows no channels: one per column from a group of rows, one
// in all from a block.
struct PartialCounts {
  int64_t groups = 0, blocks = 0;

  int64_t runs(int64_t, int64_t) const { return 0; }
  int64_t parts(int64_t) const { return 0; }
  int64_t side_by_side(int64_t channels) const { return channels; }
};

// The number of columns per channel.
template <class D, class Item, class Args>
int64_t run_of(const Args& args) {
  return run_length<Item>(args) / inner_of<D>(args);
}

// Bytes of scratch for the partial sums of a plan.
template <class D, class S, class Plan>
int64_t scratch_bytes(const typename D::Args& args, const Plan& plan) {
  using P = GpuParts<D, S>;
  int64_t count = plan.groups * args.cols * P::ColSums::size;
  each(typename P::RunSums{},
       [&](auto item, auto) { count += plan.runs(args.cols, run_of<D, decltype(item)>(args)); });
  count += args.rows * P::RowSums::size + plan.blocks * P::Totals::size;
  return count * int64_t(sizeof(typename P::T));
}

// Places the partial sums of a plan in the workspace.
template <class D, class S, class Plan>
auto place_partials(const typename D::Args& args, const Plan& plan, void* workspace) {
  using P = GpuParts<D, S>;
  typename P::Partial partial;
  auto* next = static_cast<typename P::T*>(workspace);
  each(typename P::Partials{}, [&](auto item, auto n) {
    using Item = decltype(item);
    partial.to[n] = next;
    if constexpr (Item::role == Role::run_sum)
      next += plan.runs(args.cols, run_of<D, Item>(args));
    else if constexpr (Item::role == Role::col_sum)
      next += plan.groups * args.cols;
    else if constexpr (Item::role == Role::row_sum)
      next += args.rows;
    else
      next += plan.blocks;
  });
  return partial;
}

// A kernel of one thread, for results that follow from the sums over all rows.
template <class D, class S>
__global__ void finish(typename D::Args args) {
  using P = Parts<D, S>;
  await_kernels_before();
  P::finish(args, P::scalars(args));
}

// How many additions a sum over the grid takes: one writes a result of each type.
template <class... Results>
constexpr int additions_of(List<Results...>) {
  const int computed = (0 + ... + int(Results::computed));
  return std::max(computed, int(sizeof...(Results)) - computed);
}
template <class... Items>
constexpr int all_additions(List<Items...>) {
  return (0 + ... + additions_of(typename Items::results{}));
}

// Adds up the partial sums. `run` parts of a column lie side by side.
template <class D, class S, class Plan>
void add_parts(const typename D::Args& args, const Plan& plan,
               const typename GpuParts<D, S>::Partial& partial, cudaStream_t stream,
               int64_t run = 1) {
  using P = GpuParts<D, S>;
  using T = typename P::T;
  constexpr int count = all_additions(typename P::Partials{});
  if constexpr (count > 0) {
    PartialSums<S, T, count> sums{};
    int next = 0;
    each(typename P::Partials{}, [&](auto item, auto n) {
      using Item = decltype(item);
      PartialSum<S, T> sum{nullptr, nullptr, partial[n], plan.blocks, 1, 1, 1};
      if constexpr (Item::role == Role::col_sum) {
        sum.groups = plan.groups;
        sum.cols = sum.side_by_side = args.cols;
        sum.run = run;
      } else if constexpr (Item::role == Role::row_sum) {
        sum.cols = sum.side_by_side = channels_of<Item>(args);
        sum.groups = sum.cols ? args.rows / sum.cols : 0;
        sum.run = run_length<Item>(args);
      } else if constexpr (Item::role == Role::run_sum) {
        const int64_t run = run_of<D, Item>(args);
        sum.cols = channels_of<Item>(args);
        sum.groups = sum.cols ? plan.runs(args.cols, run) / sum.cols : 0;
        sum.run = plan.parts(run);
        sum.side_by_side = plan.side_by_side(sum.cols);
      }
      constexpr int additions = additions_of(typename Item::results{});
      for (int k = 0; k < additions; ++k) sums.sum[next + k] = sum;
      int stored = next, computed = next;
      each(typename Item::results{}, [&](auto result, auto) {
        if constexpr (result.computed) {
          sums.sum[computed].computed_step = result.step;
          sums.sum[computed++].computed = static_cast<T*>(args.*result.arg) + result.place;
        } else {
          sums.sum[stored].stored_step = result.step;
          sums.sum[stored++].stored = static_cast<S*>(args.*result.arg) + result.place;
        }
      });
      next += additions;
    });
    launch_partial_sums<S, T, count>(sums, stream);
  }
}

// Computes what depends on the sums of a call.
template <class D, class S>
void finish_call(const typename D::Args& args, cudaStream_t stream) {
  if constexpr (Only<ResultsOf<D>, Role::final_lines>::size > 0) {
    launch(finish<D, S>, stream, 1, 1, 0, 1, args);
  }
}

// Adds up the partial sums, then computes what depends on them.
template <class D, class S, class Plan>
void add_up(const typename D::Args& args, const Plan& plan,
            const typename GpuParts<D, S>::Partial& partial, cudaStream_t stream) {
  add_parts<D, S>(args, plan, partial, stream);
  finish_call<D, S>(args, stream);
}

// Stores the block's part of every total.
template <class P>
__device__ __forceinline__ void leave_totals(const typename P::Partial& partial,
                                             const typename P::T (&totals)[P::Totals::size + 1]) {
  if constexpr (P::Totals::size > 0) {
    each(typename P::Totals{}, [&](auto item, auto n) {
      const auto total = sum_block(totals[n]);
      if (threadIdx.x == 0 && threadIdx.y == 0)
        P::template part<decltype(item)>(partial)[int64_t(blockIdx.y) * gridDim.x + blockIdx.x] =
            total;
    });
  }
}

#if !defined(FUSEGEN_STORED)
#error "compile kernel.cu once for each dtype, for example with -DFUSEGEN_STORED=float"
#endif

// Runs a kernel in a form, for numbers stored as S. It returns an error message, or null.
template <template <class, class, class> class Gpu, template <class> class Form, class L,
          class S = FUSEGEN_STORED, class Args>
const char* run_form(const Args& args, void* workspace, void* stream) {
  Gpu<Form<S>, L, S>::run(args, workspace, static_cast<cudaStream_t>(stream));
  return last_error();
}
// Bytes of scratch that it needs on the device.
template <template <class, class, class> class Gpu, template <class> class Form, class L,
          class S = FUSEGEN_STORED, class Args>
int64_t scratch_of(const Args& args) {
  return Gpu<Form<S>, L, S>::workspace(args);
}

}  // namespace
}  // namespace fusegen
