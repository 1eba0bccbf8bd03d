// Rows too long to stay on the chip, or read only once, on the GPU.
//
// Each stage streams the row again, later ones from the L2 cache, and recomputes what earlier
// stages computed. A maximum and the sums relative to it take a single stage. Bound: memory; with
// several stages, the L2 cache.
#pragma once

#include "fusegen/forms/gpu_row_ahead.cuh"
#include "fusegen/forms/gpu_row_parts.cuh"
#include "fusegen/forms/gpu_stages.cuh"

namespace fusegen {
namespace {

// Pointers to tensors, with what the gaps before row r add.
template <class P, class Items>
struct RowPointers {
  typename P::Stored* to[Items::size + 1];
  __device__ __forceinline__ RowPointers(const typename P::Args& args, int64_t r) {
    const typename P::template Gaps<Items> gaps(args, r);
    each(Items{}, [&](auto item, auto n) {
      to[n] = pointer<typename P::Stored, decltype(item)::arg>(args) + gaps.before[n];
    });
  }
};

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
  // Columns are counted in accesses. A row has fewer than 2^32 of them, unless they are single
  // elements.
  using Index = std::conditional_t<V == 1, int64_t, uint32_t>;
  const Index first = Index(team.rank()) * blockDim.x + threadIdx.x;
  const Index apart = Index(team.blocks()) * blockDim.x, end = Index(cols / V);
  // Access n after access c. Past the end of the row, reread the thread's first one: it cannot
  // change the maximum.
  const auto access = [&](Index c, int n) {
    return n == 0 || c + n * apart < end ? c + n * apart : first;
  };
  Elements<P, V> leaves;
  int fold = 1;
  if constexpr (P::RunSums::size > 0) fold = RunSums<T, V>::shared_by(run_length<P>(args));
  auto channels = row_channels<P>(args, group, groups);
  RowAhead<D, S> values(args, group);
  const auto read_row = [&](int64_t r) {
    if (r < rows) values.read(args, r);
  };
  read_row(group);
  values.begin(args, group + groups);

  Packed<S, V> raw[accesses][Fulls::size + 1];
  const S *row_start[Fulls::size + 1] = {}, *following[Fulls::size + 1] = {};
  const auto follow = [&](int64_t r) {
    const typename P::template Gaps<Fulls> gaps(args, r);
    each(Fulls{}, [&](auto item, auto n) {
      row_start[n] = following[n];
      following[n] = pointer<S, decltype(item)::arg>(args) + (gaps.before[n] + r * cols);
    });
  };
  const auto load_next = [&](bool row_goes_on, Index c) {
    each(Fulls{}, [&](auto, auto input) {
      const S* const from = row_goes_on ? row_start[input] : following[input];
#pragma unroll
      for (int n = 0; n < accesses; ++n)
        raw[n][input] = read<L, V>(from + int64_t(access(c, n)) * V, policy);
    });
  };
  if (Fulls::size > 0 && group < rows && first < end) {
    follow(group);
    if (ahead) load_next(false, first);
  }
  for (int64_t r = group; r < rows; r += groups) {
    const int64_t row_at = r * cols;
    if constexpr (Fulls::size > 0) follow(min(r + groups, rows - 1));
    typename K::Row row{};
    RowReductions<P> reductions;
    values.take_up(args, row, r + 2 * groups);
    read_row(r + groups);
    each(Stages{}, [&](auto stage, auto index) {
      using Stage = decltype(stage);
      using Before = StageAt<D, index.value - 1>;
      constexpr bool joint = Only<Stage, Role::shifted>::size > 0;
      P::template begin_stage<Stage>(scalar, row);
      const RowPointers<P, Only<Stage, Role::store>> to(args, r);
      Reductions<T, Stage> reduced;
      Reductions<T, Before> largest;  // the maximum that this thread has seen so far, if joint
      if constexpr (reads_row<Stage>) {
        for (Index start = first; start < end; start += accesses * apart) {
          if constexpr (Fulls::size > 0) {
            if (!ahead) load_next(true, start);
          }
          typename K::Full full[accesses][V];
          typename K::Col col[accesses][V] = {};
#pragma unroll
          for (int n = 0; n < accesses; ++n) {
            const int64_t c = int64_t(access(start, n)) * V;
            P::template unpack_full<typename P::AllStages>(args, full[n], raw[n], row_at + c,
                                                           channels.at(c), c);
            P::load_cols(args, scalar, col[n], c);
          }
          if constexpr (Fulls::size > 0) {
            if (ahead) {  // at the end of a row's stage, load the start of the next
              const Index next = start + accesses * apart;
              load_next(index.value == LastReading<D>::place ? next < end : true,
                        next < end ? next : first);
            }
          }
          typename K::Live live[accesses][V];
          if constexpr (joint) {
            const T known = largest.largest[0];
#pragma unroll
            for (int n = 0; n < accesses; ++n) {
#pragma unroll
              for (int v = 0; v < V; ++v) {
                typename K::Out out;
                stages_to<D, index.value - 1>(full[n][v], col[n][v], row, scalar, live[n][v], out);
                largest.take(out);
              }
            }
            const T now = largest.largest[0];
            if (!(now == known)) reduced.scale(shift_factor<Functions>(known, now));
            each(Only<Stage, Role::shifted>{},
                 [&](auto item, auto) { row.*item.row = anchor(now); });
          }
#pragma unroll
          for (int n = 0; n < accesses; ++n) {
            if (n > 0 && start + n * apart >= end) break;
            const int64_t c = int64_t(start + n * apart) * V, at = row_at + c;
#pragma unroll
            for (int v = 0; v < V; ++v) {
              typename K::Out out;
              if constexpr (joint)
                Stage::element(full[n][v], col[n][v], row, scalar, live[n][v], out);
              else
                stages_to<D, index.value>(full[n][v], col[n][v], row, scalar, live[n][v], out);
              reduced.take(out);
              leaves.template take<Stage>(v, out);
            }
            if constexpr (ColumnSumsIn<Stage>::size > 0) {
              each(ColumnSumsIn<Stage>{}, [&](auto sum, auto) {
                constexpr int place = place_of<decltype(sum), typename P::ColumnSums>;
                const auto& summed = leaves.summed[place];
                T* const to = partial[place];
                if (place >= P::ColSums::size && fold > 1)
                  to[(group * cols + c) / V] += folded(summed);
                else
                  add_vector(to + group * cols + c, summed);
              });
            }
            leaves.template store<Stage, true>(to.to, at);
          }
        }
      }
      if constexpr (joint) {
        const T thread = largest.largest[0];
        reductions.template reduce<Before>(team, row, largest);
        reduced.scale(shift_factor<Functions>(thread, reductions.near));
      }
      if constexpr (Only<Stage, Role::provisional>::size == 0)
        reductions.template reduce<Stage>(team, row, reduced);
    });
    if (threadIdx.x == 0 && team.rank() == 0)
      leave_row<P, V>(args, partial, r, scalar, row, leaves);
    channels.advance();
    values.advance();
  }
  leave_totals<P>(partial, leaves.totals);
}

}  // namespace
}  // namespace fusegen
