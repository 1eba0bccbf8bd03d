// Rows too long to stay on the chip whose elements belong to channels, on the GPU.
//
// A row is cut into stretches, one for each warp of a cluster. A warp walks over its stretch
// channel by channel: it loads a channel's operands once, and keeps the channel's sums in registers
// until the channel ends. Each stage streams the row again, later ones from the L2 cache. Channels
// may begin between two wide accesses; a few lanes then read the elements at their edges. Bound:
// memory; with several stages, the L2 cache.
#pragma once

#include "fusegen/forms/gpu_streamed_parts.cuh"

namespace fusegen {
namespace {

template <class D, class L, class S, int V, int BLOCKS>
__global__ void __launch_bounds__(512, BLOCKS)
    by_channel(typename D::Args args, [[maybe_unused]] uint64_t policy,
               typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;
  using Fulls = typename P::Fulls;
  using All = typename P::AllStages;
  await_kernels_before();
  const int64_t rows = args.rows, cols = args.cols, run = run_length<P>(args);
  const auto scalar = P::scalars(args);
  // Accesses of each tensor in flight, as many as registers allow.
  constexpr int room = (BLOCKS > 1 ? 64 : 128) / int(sizeof(T)) / (V * (Fulls::size + !Fulls::size));
  constexpr int accesses = room < 1 ? 1 : room < 4 ? room : 4;
  using RowTeam = Team<T, Holders::cluster, joint_values<D>, 512>;
  __shared__ typename RowTeam::Exchange exchange;
  RowTeam team(*settled(&exchange));
  const int64_t group = blockIdx.x / team.blocks(), groups = gridDim.x / team.blocks();
  const int lane = threadIdx.x % 32, warps = team.blocks() * int(blockDim.x) / 32;
  const int warp = (team.rank() * int(blockDim.x) + int(threadIdx.x)) / 32;
  // Columns are counted from the last place before the row where an access may begin. A warp's
  // stretch begins there too, and has fewer than 2^31 columns.
  const int64_t stretch = stretch_of_warp<V>(cols, warps), stretch_at = warp * stretch;
  const int64_t each_row = cols / run, parts = parts_of_channel(run, stretch);
  Elements<P, V> leaves;
  RowAhead<D, S> values(args, group);
  const auto read_row = [&](int64_t r) {
    if (r < rows) values.read(args, r);
  };
  read_row(group);
  values.begin(args, group + groups);
  RowChannels<int64_t> channels(group, groups, cols, run, channels_of<P>(args));

  for (int64_t r = group; r < rows; r += groups) {
    const int shift = V == 1 ? 0 : int(uint32_t(r) * uint32_t(cols) % V);
    const int64_t at = r * cols - shift + stretch_at;  // the stretch's first element
    const int64_t first_column = max(stretch_at - shift, int64_t(0));
    const int begin = int(first_column + shift - stretch_at);
    const int end = int(min(cols + shift - stretch_at, stretch));
    const int64_t first_channel = quotient(first_column, run);
    typename K::Row row{};
    RowReductions<P> reductions;
    values.take_up(args, row, r + 2 * groups);
    read_row(r + groups);
    each(StagesOf<D>{}, [&](auto stage, auto index) {
      using Stage = decltype(stage);
      using Sums = Only<Stage, Role::run_sum>;
      P::template begin_stage<Stage>(scalar, row);
      const typename P::template Starts<Fulls> from(args, r, at);
      const typename P::template Starts<Only<Stage, Role::store>> to(args, r, at);
      StreamedStage<P, D, index.value> stream;
      if constexpr (reads_row<Stage>) {
        int64_t channel = first_channel;
        for (int here = begin; here < end; ++channel) {
          // Until this channel ends, or the stretch.
          const int until = int(min((channel + 1) * run + shift - stretch_at, int64_t(end)));
          T spread[P::Spreads::size + 1];
          each(typename P::Spreads{}, [&](auto item, auto n) {
            spread[n] = load(pointer<S, decltype(item)::arg>(args) + channels.first() + channel);
          });
          T sums[Sums::size + 1] = {};
          const auto unpack_all = [&](auto& access, int n, int offset) {
            constexpr int W = std::remove_reference_t<decltype(access)>::width;
            P::template unpack_inputs<All>(args, access.full[n], access.raw[n], at + offset);
            each(typename P::Spreads{}, [&](auto item, auto k) {
#pragma unroll
              for (int v = 0; v < W; ++v) access.full[n][v].*item.field = spread[k];
            });
            P::load_cols(args, scalar, access.col[n], stretch_at - shift + offset);
          };
          const auto add_all = [&](const auto& taken, int offset) {
            each(Sums{}, [&](auto sum, auto n) {
              sums[n] += folded(taken.summed[place_of<decltype(sum), typename P::ColumnSums>]);
            });
            each(Only<Stage, Role::col_sum>{}, [&](auto sum, auto) {
              constexpr int place = place_of<decltype(sum), typename P::ColumnSums>;
              add_vector(partial[place] + group * cols + (stretch_at - shift + offset),
                         taken.summed[place]);
            });
          };
          const int body = (here + V - 1) / V * V, body_end = until / V * V;
          if constexpr (P::template has_edges<V>) {
            // The elements before the first whole access, and those behind the last.
            const int before = min(body, until) - here, behind = until - max(body_end, body);
            if (lane < before + max(behind, 0)) {
              const int offset = lane < before ? here + lane : body_end + lane - before;
              Accesses<P, 1, 1> edge;
              Elements<P, 1> left;
              P::template read_all<L>(edge.raw[0], from.to, offset, policy);
              unpack_all(edge, 0, offset);
              stream.prepare(edge.full, edge.col, row, scalar, edge.live);
              stream.take(edge.full[0], edge.col[0], row, scalar, edge.live[0], left);
              add_all(left, offset);
              left.template store<Stage>(to.to, offset);
              leaves.add_totals(left);
            }
          }
          constexpr int apart = 32 * V;
          for (int start = body + lane * V; start < body_end; start += accesses * apart) {
            Accesses<P, V, accesses> now;
            // Past the end, reread the first access: it cannot change the maximum. The thread would
            // wait for conditional loads.
            const auto access = [&](int n) {
              return start + n * apart < body_end ? start + n * apart : start;
            };
#pragma unroll
            for (int n = 0; n < accesses; ++n)
              P::template read_all<L>(now.raw[n], from.to, access(n), policy);
#pragma unroll
            for (int n = 0; n < accesses; ++n) unpack_all(now, n, access(n));
            stream.prepare(now.full, now.col, row, scalar, now.live);
#pragma unroll
            for (int n = 0; n < accesses; ++n) {
              const int offset = start + n * apart;
              if (n > 0 && offset >= body_end) break;
              stream.take(now.full[n], now.col[n], row, scalar, now.live[n], leaves);
              add_all(leaves, offset);
              leaves.template store<Stage, true>(to.to, offset);
            }
          }
          if constexpr (Sums::size > 0) {
            T all[Sums::size];
#pragma unroll
            for (int n = 0; n < Sums::size; ++n) all[n] = sums[n];
            reduce_each<Addition>(all, 32);
            // The warp's part of the channel's sums: the first warp has the first part.
            const int64_t part = warp - quotient(channel * run + shift, stretch);
            if (lane == 0) {
              each(Sums{}, [&](auto sum, auto n) {
                constexpr int place = place_of<decltype(sum), typename P::ColumnSums>;
                partial[place][(group * each_row + channel) * parts + part] += all[n];
              });
            }
          }
          here = until;
        }
      }
      stream.finish(team, row, reductions);
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
