// Elements by themselves, on the GPU, where all samples are one matrix [places, …] whose columns
// belong to channels. The channels of a place are adjacent in memory: channels-last, or one place
// for each sample. Or a place is a sample of few or odd runs, as in a batch norm of 7 x 7 images:
// each channel has a run of neighbours.
//
// A thread keeps V neighbouring columns and their operands, and walks down the places with R of
// them in flight. Sums by channel stay with the thread until the end; then its block adds them up.
// If accesses do not divide one place, or would leave threads without columns, a step of the walk
// is several places. Bound: memory.
#pragma once

#include "fusegen/forms/gpu_by_channel_parts.cuh"
#include "fusegen/forms/gpu_strand_sums.cuh"

namespace fusegen {
namespace {

// How a call's elements are taken: `together` of them, whole places, are a step of the walk.
struct PlaceWalk {
  int64_t steps, together;
};

// C: whose channels they are, ChannelsOfRows or ChannelsOfColumns.
template <class D, class L, class S, class C, int V, int R>
__global__ void __launch_bounds__(256)
    by_channel(typename D::Args args, [[maybe_unused]] uint64_t policy, PlaceWalk walk,
               typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;
  using All = typename P::AllStages;
  using Sums = typename C::Sums;
  await_kernels_before();
  const auto scalar = P::scalars(args);
  const int64_t c = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * V;
  const int64_t stride = int64_t(gridDim.y) * blockDim.y, count = args.rows * args.cols;
  Pointers<S, P::Fulls::size> from;
  each(typename P::Fulls{}, [&](auto item, auto n) {
    from.to[n] = const_cast<S*>(pointer<S, decltype(item)::arg>(args));
  });
  const auto to = P::results(args);
  Elements<P, V> leaves;
  T sums[Sums::size + 1][V] = {};
  constexpr uint32_t every = (uint64_t(1) << V) - 1;
  // Computes the elements from `at` on whose bits are set.
  const auto take = [&](const Packed<S, V>* raw, const auto& numbers, int64_t at, uint32_t wanted) {
    typename K::Full full[V];
    P::template unpack_inputs<All>(args, full, raw, at);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (wanted != every && !(wanted >> v & 1)) continue;
      typename K::Out out;
      C::run(full[v], numbers[v], scalar, out);
      leaves.template take<All>(v, out);
      each(Sums{}, [&](auto item, auto n) { sums[n][v] += out.*item.out; });
    }
    if (wanted == every)
      leaves.template store<All, true>(to.to, at);
    else
      leaves.template store_some<All>(to.to, at, wanted);
  };
  if (c < walk.together) {
    typename C::Numbers numbers[V] = {};
    C::load(args, scalar, numbers, uint32_t(c));
    // Not unrolled: a batch has enough accesses in flight.
#pragma unroll 1
    for (int64_t first = int64_t(blockIdx.y) * blockDim.y + threadIdx.y; first < walk.steps;
         first += stride * R) {
      Packed<S, V> raw[R][P::Fulls::size + 1];
#pragma unroll
      for (int i = 0; i < R; ++i) {
        const int64_t step = first + i * stride;
        if (step < walk.steps)
          P::template read_all<L>(raw[i], from.to, step * walk.together + c, policy);
      }
#pragma unroll
      for (int i = 0; i < R; ++i) {
        const int64_t step = first + i * stride;
        if (step < walk.steps) take(raw[i], numbers, step * walk.together + c, every);
      }
    }
    // The places that are left: fewer than a step has.
    const int64_t at = walk.steps * walk.together + c, left = min(count - at, int64_t(V));
    if (blockIdx.y == 0 && threadIdx.y == 0 && left > 0) {
      Packed<S, V> raw[P::Fulls::size + 1] = {};
#pragma unroll
      for (int n = 0; n < P::Fulls::size; ++n) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          if (v < left) raw[n].value[v] = from.to[n][at + v];
        }
      }
      take(raw, numbers, at, uint32_t((uint64_t(1) << left) - 1));
    }
  }
  if constexpr (C::leaves_sums) {
    __shared__ T strands[256 * strand_chunk<V>];
    C::each_sum([&](auto item, auto n) {
      join_strands<256, Addition>(strands, sums[n], [&](int column, T total) {
        const int64_t at = int64_t(blockIdx.x) * blockDim.x * V + column;
        if (at < walk.together)
          P::template part<decltype(item)>(
              partial)[blockIdx.y * walk.together + C::place_of_part(args, at, walk.together)] =
              total;
      });
    });
  }
  leave_totals<P>(partial, leaves.totals);
}

// The plan for a call: the width of an access, the walk, and the grid.
template <class D, class L, class S, class C>
struct ByChannelPlan : PartialCounts {
  using P = GpuParts<D, S>;
  static constexpr int in_flight = std::clamp(8 / std::max(1, P::Fulls::size), 1, 4), batches = 8;

  int width;
  PlaceWalk walk;
  dim3 threads, grid;
  int64_t run = 1;  // parts of a column that a block leaves side by side

  explicit ByChannelPlan(const typename D::Args& args) {
    width = widest<S>(16, [&](int width) {
      return C::always_wide || P::template vectorisable<true>(args, width);
    });
    const int64_t count = args.rows * args.cols;
    walk.together = step_of_walk(C::elements(args), width, count);
    walk.steps = count / walk.together;
    const int64_t columns = walk.together / width;
    unsigned across = 1;
    while (across < 32 && across < columns) across *= 2;
    threads = dim3(across, 256 / across);
    const int64_t tiles = (columns + across - 1) / across;
    // Blocks that take one batch of each thread.
    const int64_t most = (walk.steps + threads.y * in_flight - 1) / (threads.y * in_flight);
    int64_t down;
    if constexpr (P::Partials::size > 0) {  // each block leaves partial sums: no more than fit
      const int64_t resident =
          visit([&](auto* kernel) { return resident_blocks(kernel, threads, 0); });
      down = std::min(resident * C::waves / tiles, C::most_down(walk.steps));
    } else {
      // Several batches a thread, as long as there are four times as many blocks as fit, at most
      // eight of 256 threads: what a thread loads once for its channels then costs little.
      down = std::max(most / batches, 4 * 8 * int64_t(chip().multiprocessors) / tiles);
    }
    down = std::min(down, most);
    grid = dim3(unsigned(tiles), unsigned(std::clamp<int64_t>(down, 1, 65535)));
    blocks = int64_t(grid.x) * grid.y;
    if constexpr (P::ColSums::size > 0) {
      run = walk.together / args.cols;
      groups = grid.y * run;
    }
  }

  // The call as its sums see it.
  typename D::Args as_summed(const typename D::Args& args) const {
    return C::summed(args, grid.y * walk.together);
  }

  // Calls f with the kernel of the plan's width.
  template <class F>
  auto visit(F&& f) const {
    constexpr int most = 16 / int(sizeof(S));
    if constexpr (C::always_wide) {
      return f(by_channel<D, L, S, C, most, in_flight>);
    } else {
      return with_width<S>(width, [&](auto chosen) {
        constexpr int V = std::min(decltype(chosen)::value, most);
        return f(by_channel<D, L, S, C, V, in_flight>);
      });
    }
  }
};

template <class D, class L, class S, class C>
struct ByChannelOf {
  using Args = typename D::Args;
  using P = GpuParts<D, S>;
  using Plan = ByChannelPlan<D, L, S, C>;
  static constexpr bool serves = C::serves;

  static bool fits(const Args& args) { return C::fits(args); }
  static int64_t workspace(const Args& args) {
    if constexpr (P::Partials::size == 0) return 0;
    const Plan plan(args);
    return scratch_bytes<D, S>(plan.as_summed(args), plan);
  }
  static void run(const Args& args, void* workspace, cudaStream_t stream) {
    const Plan plan(args);
    const Args summed = plan.as_summed(args);
    const auto partial = place_partials<D, S>(summed, plan, workspace);
    const uint64_t policy = read_policy(args.rows * args.cols * int64_t(sizeof(S)));
    plan.visit([&](auto* kernel) {
      return launch(kernel, stream, plan.grid, plan.threads, 0, 1, args, policy, plan.walk,
                    partial);
    });
    add_parts<D, S>(summed, plan, partial, stream, plan.run);
    finish_call<D, S>(args, stream);  // a mean is over the call's own rows
  }
};
template <class D, class L, class S>
using ByChannel = ByChannelOf<D, L, S, ChannelsOfRows<D, S>>;
template <class D, class L, class S>
using ByColumn = ByChannelOf<D, L, S, ChannelsOfColumns<D, S>>;

}  // namespace
}  // namespace fusegen
