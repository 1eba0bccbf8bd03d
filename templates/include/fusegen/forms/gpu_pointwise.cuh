// Elements by themselves, on the GPU, where operands differ from column to column: a thread keeps W
// times V columns and their operands, and walks down the rows with R of them in flight.
//
// V columns are adjacent; the next V are a block's width further. W is above 1 where V is 1, so
// that what is done once a row serves several elements. Sums of columns stay with the thread until
// the end; then its block adds them up. Bound: memory.
#pragma once

#include "fusegen/forms/gpu_across.cuh"
#include "fusegen/forms/gpu_strand_sums.cuh"

namespace fusegen {
namespace {

template <class D, class L, class S, int V, int W, int R>
__global__ void __launch_bounds__(L::block)
    pointwise(typename D::Args args, [[maybe_unused]] uint64_t policy,
              typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;
  using AllStages = typename P::AllStages;
  await_kernels_before();
  const int64_t rows = args.rows, cols = args.cols;
  const auto scalar = P::scalars(args);
  const int64_t block = int64_t(blockIdx.x) * blockDim.x * (W * V);  // the block's first column
  const int apart = int(blockDim.x) * V;
  const int64_t c = block + threadIdx.x * V;
  const int64_t stride = int64_t(gridDim.y) * blockDim.y;
  Elements<P, V> leaves;
  T sums[P::ColSums::size + 1][W][V] = {};
  if (c < cols) {
    typename K::Col col[W][V] = {};
#pragma unroll
    for (int w = 0; w < W; ++w) {
      if (W == 1 || c + w * apart < cols) P::load_cols(args, scalar, col[w], c + w * apart);
    }
    // Not unrolled, because most threads take only one batch.
#pragma unroll 1
    for (int64_t first = int64_t(blockIdx.y) * blockDim.y + threadIdx.y; first < rows;
         first += stride * R) {
      Packed<S, V> raw[R][W][P::Fulls::size + 1];
#pragma unroll
      for (int i = 0; i < R; ++i) {
        const int64_t r = first + i * stride;
        if (r < rows) {
          each(typename P::Fulls{}, [&](auto item, auto n) {
            using Item = decltype(item);
            const S* const from = pointer<S, Item::arg>(args);
            const int64_t at = gap_of<Item>(args, r) + vector_of<Item, V>(r * cols + c);
#pragma unroll
            for (int w = 0; w < W; ++w) {
              if (W == 1 || c + w * apart < cols)
                raw[i][w][n] = read<L, V>(from + at + Item::step * (w * apart), policy);
            }
          });
        }
      }
#pragma unroll
      for (int i = 0; i < R; ++i) {
        const int64_t r = first + i * stride;
        if (r < rows) {
          typename K::Row row{};
          if constexpr (D::knows_rows)
            row = args.known_rows[r];
          else
            P::load_row(args, r, row);
          P::template begin_stage<AllStages>(scalar, row);
          auto to = P::results(args);
          each(typename P::Stores{},
               [&](auto item, auto n) { to.to[n] += gap_of<decltype(item)>(args, r); });
#pragma unroll
          for (int w = 0; w < W; ++w) {
            if (W > 1 && c + w * apart >= cols) break;
            const int64_t at = r * cols + c + w * apart;
            typename K::Full full[V];
            P::template unpack_full<AllStages>(args, full, raw[i][w], at, 0, 0);
#pragma unroll
            for (int v = 0; v < V; ++v) {
              typename K::Out out;
              P::run_stages(full[v], col[w][v], row, scalar, out);
              leaves.template take<AllStages>(v, out);
              each(typename P::ColSums{},
                   [&](auto item, auto n) { sums[n][w][v] += out.*item.out; });
            }
            leaves.template store<AllStages, true>(to.to, at);
          }
        }
      }
    }
  }
  if constexpr (P::ColSums::size > 0) {
    __shared__ T strands[L::block * strand_chunk<V>];
    each(typename P::ColSums{}, [&](auto item, auto n) {
#pragma unroll
      for (int w = 0; w < W; ++w) {
        join_strands<L::block, Addition>(strands, sums[n][w], [&](int place, T sum) {
          const int64_t column = block + w * apart + place;
          if (column < cols)
            P::template part<decltype(item)>(partial)[blockIdx.y * cols + column] = sum;
        });
      }
    });
  }
  leave_totals<P>(partial, leaves.totals);
}

// The plan for a call: the width of an access, and the grid.
template <class D, class L, class S>
struct PointwisePlan : PartialCounts {
  using P = GpuParts<D, S>;

  // Rows of a length that 16 bytes do not divide are read in 8 if they can.
  static constexpr int least = 8;

  int width;           // elements of one access
  dim3 threads, grid;  // of the launch

  // The batches of rows that a thread takes at least, if that leaves enough blocks: what it loads
  // and derives once for a column should cost a quarter of what its rows do.
  static constexpr int of_column = P::Cols::size + P::DerivedCols::size;
  static constexpr int least_batches =
      std::clamp(4 * of_column / std::max(1, P::Fulls::size + P::Stores::size), 1, 16);

  // Accesses of a thread in a row.
  static constexpr int accesses(int width) { return width == 1 ? 4 : 1; }

  explicit PointwisePlan(const typename D::Args& args) {
    width = widest<S, least>(L::access, [&](int width) { return P::vectorisable(args, width); });
    const int flight = in_flight<S>(L::rows_in_flight, width);
    const int each = width * accesses(width);
    const int64_t columns = std::max<int64_t>(1, (args.cols + each - 1) / each);
    // Threads side by side: at least a warp, and more while the columns still fill the chip with
    // blocks.
    unsigned across = 1;
    while (across < 32 && across < columns) across *= 2;
    while (across < L::threads_across && columns / (2 * across) >= L::tiles) across *= 2;
    threads = dim3(across, L::block / across);
    const int64_t tiles = (columns + across - 1) / across;
    // Each thread takes few batches of rows, so that late blocks go where there is room; and more
    // if that keeps the partial sums few.
    int64_t down = (args.rows + threads.y * flight - 1) / (threads.y * flight);
    if constexpr (P::ColSums::size + P::Totals::size > 0) {
      const int64_t resident =
          visit([&](auto* kernel) { return resident_blocks(kernel, threads, 0); });
      // Round down: a few blocks more than the chip holds would take as long again as all the
      // others.
      down = std::min(down / L::batches + 1, std::max<int64_t>(1, resident * L::waves / tiles));
    } else {
      const int64_t enough = (8 * chip().multiprocessors + tiles - 1) / tiles;
      down = std::max((down + least_batches - 1) / least_batches, std::min(down, enough));
    }
    grid = dim3(unsigned(tiles), unsigned(std::clamp<int64_t>(down, 1, 65535)));
    groups = grid.y;
    blocks = int64_t(grid.x) * grid.y;
  }

  // Calls f with the kernel of the plan's width.
  template <class F>
  auto visit(F&& f) const {
    return with_width<S, least, L::access == 16 ? 16 : 32>(width, [&](auto width) {
      constexpr int V = decltype(width)::value;
      return f(pointwise<D, L, S, V, accesses(V), in_flight<S>(L::rows_in_flight, V)>);
    });
  }
};

template <class D, class L, class S>
struct Pointwise {
  using P = GpuParts<D, S>;
  using Plan = PointwisePlan<D, L, S>;
  // Whether accesses may lie across two rows, if rows begin between two of them.
  static constexpr bool may_cross =
      P::template has_edges<16 / int(sizeof(S))> && P::Indices::size == 0;
  static bool across_rows(const typename D::Args& args, const Plan& plan) {
    return plan.width * int(sizeof(S)) < 16 && AcrossPlan<D, L, S>::serves(args);
  }
  static int64_t workspace(const typename D::Args& args) {
    const Plan plan(args);
    if constexpr (may_cross) {
      if (across_rows(args, plan)) return Across<D, L, S>::workspace(args);
    }
    return scratch_bytes<D, S>(args, plan);
  }
  static void run(const typename D::Args& args, void* workspace, cudaStream_t stream) {
    const Plan plan(args);
    if constexpr (may_cross) {
      if (across_rows(args, plan)) return Across<D, L, S>::run(args, workspace, stream);
    }
    const auto partial = place_partials<D, S>(args, plan, workspace);
    const uint64_t policy = read_policy(args.rows * args.cols * int64_t(sizeof(S)));
    plan.visit([&](auto* kernel) {
      return launch(kernel, stream, plan.grid, plan.threads, 0, 1, args, policy, partial);
    });
    add_up<D, S>(args, plan, partial, stream);
  }
};

}  // namespace
}  // namespace fusegen
