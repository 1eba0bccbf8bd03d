// All elements as one long row, on the GPU: for kernels in which no value depends on where a row
// ends.
//
// A thread has R accesses of V elements in flight. Wide accesses take what the tensors' alignment
// allows. The rest, and tensors with gaps that wide accesses do not fit, are read by single
// elements, of which a thread takes W neighbours. Bound: memory.
#pragma once

#include "fusegen/forms/gpu_elements.cuh"
#include "fusegen/forms/gpu_grid_sums.cuh"

namespace fusegen {
namespace {

// Walks over elements begin … end - 1, V neighbours at a time and R times V in flight: `load` reads
// those from an element on, and `compute` takes them.
template <int V, int R, class Raw, class Load, class Compute>
__device__ __forceinline__ void walk_flat(int64_t begin, int64_t end, const Load& load,
                                          const Compute& compute) {
  constexpr int64_t block = 256 * V;  // elements of one access of the whole block
  for (int64_t first = begin + blockIdx.x * (block * R) + threadIdx.x * V; first < end;
       first += gridDim.x * (block * R)) {
    Raw raw[R];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int64_t at = first + i * block;
      if (at < end) load(raw[i], at);
    }
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int64_t at = first + i * block;
      if (at < end) compute(raw[i], at);
    }
  }
}

// Elements begin … end - 1.
template <class D, class L, class S, int V, int R>
__global__ void __launch_bounds__(256)
    flat(typename D::Args args, [[maybe_unused]] uint64_t policy, int64_t begin, int64_t end,
         typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using AllStages = typename P::AllStages;
  using Raw = Packed<S, V>[P::Fulls::size + 1];
  await_kernels_before();
  const auto scalar = P::scalars(args);
  Elements<P, V> leaves;
  const auto load = [&](Raw& raw, int64_t at) {
    each(typename P::Fulls{}, [&](auto item, auto n) {
      const S* const from = pointer<S, decltype(item)::arg>(args);
      raw[n] = read<L, V>(from + gap_of<decltype(item)>(args, at) + at, policy);
    });
  };
  const auto compute = [&](const Raw& raw, int64_t at) {
    typename K::Full full[V];
    P::template unpack_full<AllStages>(args, full, raw, at, 0, 0);
    const typename K::Row row{};
#pragma unroll
    for (int v = 0; v < V; ++v) {
      typename K::Out out;
      P::run_stages(full[v], typename K::Col{}, row, scalar, out);
      leaves.template take<AllStages>(v, out);
    }
    leaves.template store<AllStages, true>(P::results(args).to, at);
  };
  walk_flat<V, R, Raw>(begin, end, load, compute);
  leave_totals<P>(partial, leaves.totals);
}

// The same by single elements: W neighbours at a time, mostly between the same gaps.
template <class D, class L, class S, int W, int R>
__global__ void __launch_bounds__(256)
    flat_singles(typename D::Args args, [[maybe_unused]] uint64_t policy, int64_t begin,
                 int64_t end, typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using AllStages = typename P::AllStages;
  using Raw = Packed<S, W>[P::Fulls::size + 1];
  await_kernels_before();
  const auto scalar = P::scalars(args);
  const auto to = P::results(args);
  bool together = true;  // whether results are aligned
  each(typename P::Stores{}, [&](auto, auto n) {
    together = together && reinterpret_cast<uintptr_t>(to[n]) % (W * sizeof(S)) == 0;
  });
  Elements<P, W> leaves;
  const auto load = [&](Raw& raw, int64_t at) {
    const int count = int(min(end - at, int64_t(W)));
    each(typename P::Fulls{}, [&](auto item, auto n) {
      using Item = decltype(item);
      const S* const from = pointer<S, Item::arg>(args) + at;
      const int64_t gap = gap_of<Item>(args, at);
      const bool apart = has_gap<Item> && gap != gap_of<Item>(args, at + count - 1);
#pragma unroll
      for (int v = 0; v < W; ++v) {
        if (v < count) {
          const S* const element = from + (apart ? gap_of<Item>(args, at + v) : gap) + v;
          raw[n].value[v] = read<L, 1>(element, policy).value[0];
        }
      }
    });
  };
  const auto compute = [&](const Raw& raw, int64_t at) {
    const int count = int(min(end - at, int64_t(W)));
    typename K::Full full[W];
    P::template unpack_inputs<AllStages, true>(args, full, raw, at);
    const typename K::Row row{};
    uint32_t wanted = 0;
#pragma unroll
    for (int v = 0; v < W; ++v) {
      typename K::Out out;
      P::run_stages(full[v], typename K::Col{}, row, scalar, out);
      leaves.template take<AllStages>(v, out, v < count);
      wanted |= uint32_t(v < count) << v;
    }
    if (together && count == W)
      leaves.template store<AllStages, true>(to.to, at);
    else
      leaves.template store_some<AllStages>(to.to, at, wanted);
  };
  walk_flat<W, R, Raw>(begin, end, load, compute);
  leave_totals<P>(partial, leaves.totals);
}

// The plan for a call: wide accesses if the tensors allow them, and single elements for the rest.
template <class D, class L, class S>
struct FlatPlan : PartialCounts {
  using P = GpuParts<D, S>;

  int width;            // elements of one wide access
  int64_t body;         // elements in wide accesses
  unsigned grid, rest;  // blocks for these, and for the rest
  // Single elements that a thread takes together.
  static constexpr int singles = 16 / int(sizeof(typename P::T));

  explicit FlatPlan(const typename D::Args& args) {
    width = widest<S>(L::access, [&](int width) {
      bool can = (args.rows <= 1 || args.cols % width == 0) && P::even(args, width);
      const auto check = [&](auto item, auto) {
        can = can && aligned(args.*decltype(item)::arg, width * sizeof(S));
      };
      each(typename P::Fulls{}, check);
      each(typename P::Stores{}, check);
      return can;
    });
    const int64_t count = args.rows * args.cols;
    body = width > 1 ? count / width * width : 0;
    const auto batches = [&](int64_t count, int width) {
      const int taken = width == 1 ? singles : width;
      const int each = 256 * taken * in_flight<S>(L::rows_in_flight, taken);
      return (count + each - 1) / each;
    };
    int64_t most = 1 << 30;  // one batch per thread
    if constexpr (P::Totals::size > 0) {
      const int64_t resident =
          visit(width, [](auto* kernel) { return resident_blocks(kernel, dim3(256), 0); });
      most = resident * L::waves;  // keeps the partial sums few
    }
    grid = unsigned(std::min(batches(body, width), most));
    rest = unsigned(std::min(batches(count - body, 1), most));
    groups = 0;
    blocks = int64_t(grid) + rest;
  }

  // Calls f with the kernel of a width.
  template <class F>
  static auto visit(int width, F&& f) {
    return with_width<S>(width, [&](auto width) {
      constexpr int V = decltype(width)::value;
      if constexpr (V == 1)
        return f(flat_singles<D, L, S, singles, in_flight<S>(L::rows_in_flight, singles)>);
      else
        return f(flat<D, L, S, V, in_flight<S>(L::rows_in_flight, V)>);
    });
  }
};

template <class D, class L, class S>
struct Flat {
  using Plan = FlatPlan<D, L, S>;
  static int64_t workspace(const typename D::Args& args) {
    return scratch_bytes<D, S>(args, Plan(args));
  }
  static void run(const typename D::Args& args, void* workspace, cudaStream_t stream) {
    const Plan plan(args);
    auto partial = place_partials<D, S>(args, plan, workspace);
    const uint64_t policy = read_policy(args.rows * args.cols * int64_t(sizeof(S)));
    if (plan.grid) {
      Plan::visit(plan.width, [&](auto* kernel) {
        return launch(kernel, stream, plan.grid, 256, 0, 1, args, policy, 0, plan.body, partial);
      });
    }
    auto further = partial;
    for (auto& to : further.to) to += plan.grid;
    if (plan.rest) {
      Plan::visit(1, [&](auto* kernel) {
        return launch(kernel, stream, plan.rest, 256, 0, 1, args, policy, plan.body,
                      args.rows * args.cols, further);
      });
    }
    add_up<D, S>(args, plan, partial, stream);
  }
};

}  // namespace
}  // namespace fusegen
