// Elements by themselves, on the GPU, where the columns of a row lie apart in memory and
// neighbouring rows are adjacent: channels-last.
//
// A thread keeps V neighbouring rows and their numbers, and walks over their columns with R of them
// in flight. What sums over rows or columns, or has operands of columns, is left to the form of
// outer reductions; rows that differ by their channels alone, and columns with few or odd
// neighbouring rows, to gpu_by_channel.cuh. Bound: memory.
#pragma once

#include "fusegen/forms/gpu_outer.cuh"

namespace fusegen {
namespace {

// How blocks are assigned: to a matrix [cols, inner], to some of its columns, and to a tile of its
// rows, of which `blockDim.x * V` are side by side.
struct ApartWalk {
  uint32_t tiles, chunks;  // of a matrix
  int64_t columns;         // of a chunk
};

template <class D, class L, class S, int V, int R>
__global__ void __launch_bounds__(256)
    apart(typename D::Args args, [[maybe_unused]] uint64_t policy, ApartWalk walk) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using All = typename P::AllStages;
  using Fulls = typename P::Fulls;
  using Stores = typename P::Stores;
  await_kernels_before();
  const int64_t cols = args.cols, inner = args.inner;
  const uint32_t tile = blockIdx.x % walk.tiles, place = blockIdx.x / walk.tiles;
  const uint32_t chunk = place % walk.chunks, matrix = place / walk.chunks;
  const int64_t begin = (int64_t(tile) * blockDim.x + threadIdx.x) * V;
  if (begin >= inner) return;
  const auto scalar = P::scalars(args);
  typename K::Row row[V] = {};
#pragma unroll
  for (int v = 0; v < V; ++v) {
    P::load_row(args, matrix * inner + begin + v, row[v]);
    P::template begin_stage<All>(scalar, row[v]);
  }
  const int64_t base = matrix * cols * inner + begin;
  const typename P::template Starts<decltype(Fulls{} + Stores{})> start(args, matrix, base);
  const int64_t end = min(cols, (chunk + 1) * walk.columns);
  const int strands = blockDim.y;
  Elements<P, V> leaves;
#pragma unroll 1
  for (int64_t first = chunk * walk.columns + threadIdx.y; first < end; first += strands * R) {
    Packed<S, V> raw[R][Fulls::size + 1];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int64_t c = first + i * strands;
      if (c < end) P::template read_all<L>(raw[i], start.to, c * inner, policy);
    }
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int64_t c = first + i * strands;
      if (c < end) {
        typename K::Full full[V];
        P::template unpack_inputs<All>(args, full, raw[i], base + c * inner);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          typename K::Out out;
          P::run_stages(full[v], typename K::Col{}, row[v], scalar, out);
          leaves.template take<All>(v, out);
        }
        leaves.template store<All, true>(start.to + Fulls::size, c * inner);
      }
    }
  }
}

template <class D, class L, class S>
struct Apart {
  using Args = typename D::Args;
  using P = GpuParts<D, S>;
  using By = ByChannel<D, L, S>;
  using Runs = ByColumn<D, L, S>;
  // A thread's batches of columns: what it computes once for its rows then costs little.
  static constexpr int batches = 4;
  static constexpr bool serves = P::Partials::size == 0 && P::Cols::size == 0 &&
                                 P::Indices::size == 0 && P::Spreads::size == 0 && !P::derives &&
                                 Only<ResultsOf<D>, Role::row_store>::size == 0;

  static int64_t workspace(const Args& args) {
    if constexpr (By::serves) {
      if (By::fits(args)) return By::workspace(args);
    }
    if constexpr (Runs::serves) {
      if (Runs::fits(args)) return Runs::workspace(args);
    }
    if constexpr (serves)
      return 0;
    else
      return Outer<D, L, S>::workspace(args);
  }
  static void run(const Args& args, void* workspace, cudaStream_t stream) {
    if constexpr (By::serves) {
      if (By::fits(args)) return By::run(args, workspace, stream);
    }
    if constexpr (Runs::serves) {
      if (Runs::fits(args)) return Runs::run(args, workspace, stream);
    }
    if constexpr (serves) {
      const int width = widest<S>(L::access, [&](int width) {
        return args.inner % width == 0 && P::template vectorisable<true>(args, width);
      });
      with_width<S>(width, [&](auto chosen) {
        constexpr int V = decltype(chosen)::value, R = in_flight<S>(L::rows_in_flight, V);
        launch_as<V, R>(args, stream);
      });
    } else {
      Outer<D, L, S>::run(args, workspace, stream);
    }
  }

 private:
  template <int V, int R>
  static void launch_as(const Args& args, cudaStream_t stream) {
    const int64_t accesses = (args.inner + V - 1) / V, matrices = args.rows / args.inner;
    unsigned across = 1;
    while (across < 32 && across < accesses) across *= 2;
    const dim3 threads(across, 256 / across);
    ApartWalk walk;
    walk.tiles = uint32_t((accesses + across - 1) / across);
    walk.columns = int64_t(threads.y) * R * batches;
    walk.chunks = uint32_t((args.cols + walk.columns - 1) / walk.columns);
    const int64_t blocks = matrices * walk.tiles * walk.chunks;
    const uint64_t policy = read_policy(args.rows * args.cols * int64_t(sizeof(S)));
    if (blocks > 0)
      launch(apart<D, L, S, V, R>, stream, unsigned(blocks), threads, 0, 1, args, policy, walk);
  }
};

}  // namespace
}  // namespace fusegen
