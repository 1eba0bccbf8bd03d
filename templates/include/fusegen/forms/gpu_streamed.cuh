// Rows too long to stay on the chip, or read only once, on the GPU.
//
// Each stage streams the row again, later ones from the L2 cache, and recomputes what earlier
// stages computed. A maximum and the sums relative to it take a single stage. Rows may begin
// between two wide accesses; a few threads then read the elements at their edges. Bound: memory;
// with several stages, the L2 cache.
#pragma once

#include "fusegen/forms/gpu_streamed_parts.cuh"

namespace fusegen {
namespace {

template <class D, class L, class S, int V, int BLOCKS, Holders HOLDERS>
__global__ void __launch_bounds__(512, BLOCKS)
    streamed(typename D::Args args, [[maybe_unused]] uint64_t policy,
             typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;
  using Fulls = typename P::Fulls;
  using Functions = typename K::Functions;
  using Stages = StagesOf<D>;
  await_kernels_before();
  const int64_t rows = args.rows, cols = args.cols;
  const auto scalar = P::scalars(args);
  // Whether the next vectors are loaded ahead, if registers allow it. These loads are
  // unconditional: the thread would wait for conditional ones.
  constexpr bool ahead = BLOCKS > 1;
  constexpr int accesses = ahead && L::reads_once && Fulls::size < 2 ? 2 : 1;  // in flight
  using RowTeam = Team<T, HOLDERS, joint_values<D>, 512>;
  __shared__ typename RowTeam::Exchange exchange;
  RowTeam team(*settled(&exchange));
  const int64_t group = blockIdx.x / team.blocks(), groups = gridDim.x / team.blocks();
  // A row's accesses are counted. It has fewer than 2^32 of them, unless they are single elements.
  using Index = std::conditional_t<V == 1, int64_t, uint32_t>;
  const RowAccesses<V> walk(cols);
  const Index first = Index(team.rank()) * blockDim.x + threadIdx.x;
  const Index apart = Index(team.blocks()) * blockDim.x, end = Index(walk.vectors);
  // Access n after access k. Past the end of the row, reread the thread's first one: it cannot
  // change the maximum.
  const auto access = [&](Index k, int n) {
    return n == 0 || k + n * apart < end ? k + n * apart : first;
  };
  Elements<P, V> leaves;
  RowAhead<D, S> values(args, group);
  const auto read_row = [&](int64_t r) {
    if (r < rows) values.read(args, r);
  };
  read_row(group);
  values.begin(args, group + groups);

  Accesses<P, V, accesses> now;
  // Where the accesses to this row begin, and those to the next.
  const S *row_start[Fulls::size + 1] = {}, *following[Fulls::size + 1] = {};
  const auto follow = [&](int64_t r) {
    const typename P::template Gaps<Fulls> gaps(args, r);
    each(Fulls{}, [&](auto item, auto n) {
      row_start[n] = following[n];
      using Item = decltype(item);
      following[n] =
          pointer<S, Item::arg>(args) + (gaps.before[n] + Item::step * (r * cols + walk.before(r)));
    });
  };
  const auto load_next = [&](bool row_goes_on, Index k) {
    each(Fulls{}, [&](auto item, auto input) {
      const S* const from = row_goes_on ? row_start[input] : following[input];
#pragma unroll
      for (int n = 0; n < accesses; ++n) {
        const int64_t at = vector_of<decltype(item), V>(int64_t(access(k, n)) * V);
        now.raw[n][input] = read<L, V>(from + at, policy);
      }
    });
  };
  if (Fulls::size > 0 && group < rows && first < end) {
    follow(group);
    if (ahead) load_next(false, first);
  }
  for (int64_t r = group; r < rows; r += groups) {
    const int64_t row_at = r * cols;
    const int before = walk.before(r);
    if constexpr (Fulls::size > 0) follow(min(r + groups, rows - 1));
    typename K::Row row{};
    RowReductions<P> reductions;
    values.take_up(args, row, r + 2 * groups);
    read_row(r + groups);
    each(Stages{}, [&](auto stage, auto index) {
      using Stage = decltype(stage);
      P::template begin_stage<Stage>(scalar, row);
      const RowPointers<P, Only<Stage, Role::store>> to(args, r);
      StreamedStage<P, D, index.value> stream;
      if constexpr (reads_row<Stage>) {
        if constexpr (P::template has_edges<V>) {
          if (int(threadIdx.x) < walk.edges && team.rank() == 0) {
            const int64_t c = walk.edge(int(threadIdx.x), before);
            Accesses<P, 1, 1> edge;
            Elements<P, 1> left;
            const typename P::template Starts<Fulls> from(args, r, row_at + c);
            P::template read_all<L>(edge.raw[0], from.to, 0, policy);
            P::template unpack_inputs<typename P::AllStages>(args, edge.full[0], edge.raw[0],
                                                             row_at + c);
            P::load_cols(args, scalar, edge.col[0], c);
            stream.prepare(edge, row, scalar);
            stream.take(edge, 0, row, scalar, left);
            left.template store<Stage>(to.to, row_at + c);
            leaves.add_totals(left);
          }
        }
        for (Index start = first; start < end; start += accesses * apart) {
          if constexpr (Fulls::size > 0) {
            if (!ahead) load_next(true, start);
          }
#pragma unroll
          for (int n = 0; n < accesses; ++n) {
            const int64_t c = int64_t(access(start, n)) * V + before;
            P::template unpack_inputs<typename P::AllStages>(args, now.full[n], now.raw[n],
                                                             row_at + c);
            P::load_cols(args, scalar, now.col[n], c);
          }
          if constexpr (Fulls::size > 0) {
            if (ahead) {  // at the end of a row's stage, load the start of the next
              const Index next = start + accesses * apart;
              load_next(index.value == LastReading<D>::place ? next < end : true,
                        next < end ? next : first);
            }
          }
          stream.prepare(now, row, scalar);
#pragma unroll
          for (int n = 0; n < accesses; ++n) {
            if (n > 0 && start + n * apart >= end) break;
            const int64_t c = int64_t(start + n * apart) * V + before;
            stream.take(now, n, row, scalar, leaves);
            each(ColumnSumsIn<Stage>{}, [&](auto sum, auto) {
              constexpr int place = place_of<decltype(sum), typename P::ColumnSums>;
              add_vector(partial[place] + group * cols + c, leaves.summed[place]);
            });
            leaves.template store<Stage, true>(to.to, row_at + c);
          }
        }
      }
      stream.finish(team, scalar, row, reductions, cols);
    });
    if (threadIdx.x == 0 && team.rank() == 0) {
      leave_row<P, V>(args, partial, r, scalar, row, leaves);
      if constexpr (D::keeps_rows) args.known_rows[r] = row;
    }
    values.advance();
  }
  leave_totals<P>(partial, leaves.totals);
}

}  // namespace
}  // namespace fusegen
