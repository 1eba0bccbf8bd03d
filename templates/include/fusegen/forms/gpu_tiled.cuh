// Rows that 16 bytes do not divide, or that begin between two accesses, on the GPU: a tile of
// neighbouring rows passes through shared memory, where a thread takes single elements.
//
// A warp has a tile of its own: some lanes take a row, the others its neighbours, in turns. A row
// too long for a warp is a block's tile. Copies between a tensor and shared memory are wide
// wherever rows begin (row_tile.cuh). A thread takes up to ITEMS times V neighbouring columns, V of
// them after one test. Each stage reads its inputs again from shared memory; computed values stay
// in registers. Meanwhile the next tile is copied. Bound: memory; for short rows and in 16 bits,
// instructions.
#pragma once

#include "fusegen/forms/gpu_row_ahead.cuh"
#include "fusegen/forms/gpu_row_parts.cuh"
#include "fusegen/forms/gpu_tile_plan.cuh"

namespace fusegen {
namespace {

// An item's part of the tile that begins with row `first`.
template <class Item, class S, class Args>
__device__ __forceinline__ auto tile_part(const Args& args, S* place, int64_t first, int rows) {
  const auto start = [&args, first](int y) {
    const int64_t r = first + y;
    auto* const begin = const_cast<S*>(pointer<S, Item::arg>(args)) + r * args.cols;
    if constexpr (has_gap<Item>) {
      if ((args.*Item::gap).extra[0] != 0) return begin + gap_before_row(args.*Item::gap, r);
    }
    return begin;
  };
  bool gaps = false;
  if constexpr (has_gap<Item>) {
    const Gap& gap = args.*Item::gap;
    if (gap.extra[0] != 0) gaps = has_gaps(gap, uint32_t(first), uint32_t(first) + rows - 1);
  }
  return RowTile{place, rows, int(args.cols), gaps, start};
}

// Stores the sums of a block's columns, of which a thread has those from `first` to `end`; the rows
// of threads of all warps share them. `space`: shared memory for a number for each column of each
// warp.
template <int ITEMS, bool BY_WARP, class T>
__device__ __forceinline__ void leave_tile_sums(const T (&sums)[ITEMS], T* partial, int first,
                                                int end, int cols, T* space) {
  if constexpr (BY_WARP) {
    const int lanes = int(blockDim.x), thread = int(threadIdx.y) * lanes + int(threadIdx.x);
    const int warps = lanes * int(blockDim.y) / 32;
    __syncthreads();
#pragma unroll
    for (int item = 0; item < ITEMS; ++item) {
      T sum = sums[item];
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) {
        if (offset < lanes) break;
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      }
      if (thread % 32 < lanes && first + item < end) space[thread / 32 * cols + first + item] = sum;
    }
    __syncthreads();
    for (int column = thread; column < cols; column += warps * 32) {
      T sum = T(0);
      for (int warp = 0; warp < warps; ++warp) sum += space[warp * cols + column];
      partial[column] = sum;
    }
  } else {
#pragma unroll
    for (int item = 0; item < ITEMS; ++item) {
      if (first + item < end) partial[first + item] = sums[item];
    }
  }
}

template <class D, class L, class S, int V, int ITEMS, int THREADS, int BLOCKS, Holders HOLDERS>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    tiled(typename D::Args args, uint64_t policy, TileWalk walk,
          typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;
  using Fulls = typename P::Fulls;
  using Stores = typename P::Stores;
  using Tensors = TileTensors<P>;
  await_kernels_before();
  const int rows = int(args.rows), cols = int(args.cols);
  const auto scalar = P::scalars(args);
  using RowTeam = Team<T, HOLDERS, joint_values<D>, THREADS>;
  __shared__ typename RowTeam::Exchange exchange;
  RowTeam team(*settled(&exchange));
  extern __shared__ __align__(16) unsigned char dynamic[];

  // Who shares a tile, and which of its rows this thread takes.
  constexpr bool by_warp = HOLDERS == Holders::lanes;
  const int thread = int(threadIdx.y * blockDim.x + threadIdx.x);
  const int threads = int(blockDim.x * blockDim.y);
  const TileThreads all{by_warp ? thread % 32 : thread, by_warp ? 32 : threads};
  const int across = by_warp ? 32 / int(blockDim.x) : 1;  // rows at a time
  const int mine = by_warp ? int(threadIdx.y) % across : 0;
  const int tile_rows = across * walk.turns, tiles = threads / all.count;
  const auto sync = [] {
    if constexpr (by_warp)
      __syncwarp();
    else
      __syncthreads();
  };
  // A thread takes neighbouring columns.
  const int first_column = int(threadIdx.x) * walk.items;
  const int end = min(cols, first_column + walk.items);
  const auto load_cols = [&](typename K::Col(&col)[V], int c) {
    each(typename P::Cols{}, [&](auto item, auto) {
      using Item = decltype(item);
      const auto* const from = pointer<typename Item::type, Item::arg>(args) + c;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (c + v < end) col[v].*item.field = load(from + v);
      }
    });
    P::derive_cols(scalar, col, c);
  };

  // Where the parts of the tensors lie in shared memory: the inputs twice, for this tile and the
  // next.
  S* places[Tensors::size + 1];
  S* place = reinterpret_cast<S*>(settled(dynamic) + (by_warp ? thread / 32 * walk.bytes : 0));
  each(Fulls{}, [&](auto item, auto n) {
    places[n] = place;
    place += part_room<decltype(item), S>(args, tile_rows);
  });
  const int inputs = int(place - places[0]);
  place += Fulls::size > 0 ? inputs : 0;
  each(Stores{}, [&](auto item, auto n) {
    places[Fulls::size + n] = place;
    place += part_room<decltype(item), S>(args, tile_rows);
  });

  Elements<P, V> leaves;
  T col_sums[P::ColSums::size + 1][ITEMS * V] = {};

  const auto rows_of = [&](int64_t tile) {
    return int(min(int64_t(tile_rows), rows - tile * tile_rows));
  };
  const auto part = [&](auto item, int64_t tile, int buffer) {
    using Item = decltype(item);
    constexpr int n = place_of<Item, Tensors>;
    S* const place = places[n] + (n < Fulls::size ? buffer * inputs : 0);
    return tile_part<Item>(args, place, tile * tile_rows, rows_of(tile));
  };
  const auto fetch = [&](int64_t tile, int buffer) {
    if (tile * tile_rows < rows) {
      each(Fulls{},
           [&](auto item, auto) { part(item, tile, buffer).fetch(all, walk.bits, policy); });
    }
    commit_copies();
  };
  const int64_t step = int64_t(gridDim.x) * tiles;
  // The row that this thread takes after row y of a tile, as a number of all rows.
  const auto row_after = [&](int64_t tile, int y) {
    return y + across < tile_rows ? tile * tile_rows + y + across
                                  : (tile + step) * tile_rows + mine;
  };
  const auto second_after = [&](int64_t tile, int y) {
    return y + across < tile_rows ? row_after(tile, y + across) : row_after(tile + step, mine);
  };
  int64_t tile = int64_t(blockIdx.x) * tiles + thread / all.count;
  fetch(tile, 0);
  RowAhead<D, S> values(args, tile * tile_rows + mine);
  const auto read_row = [&](int64_t r) {
    if (r < rows) values.read(args, r);
  };
  read_row(tile * tile_rows + mine);
  values.begin(args, row_after(tile, mine));
  for (int buffer = 0; tile * tile_rows < rows; tile += step, buffer ^= 1) {
    fetch(tile + step, buffer ^ 1);
    await_copies_but<1>(1);
    sync();
    const int first_row = int(tile * tile_rows), count = rows_of(tile);
    Pointers<S, Tensors::size> first;  // this thread's first element of the tile
    uint32_t apart = 0;                // which tensors have gaps between these rows
    each(Tensors{}, [&](auto item, auto n) {
      const auto rows = part(item, tile, buffer);
      first.to[n] = rows.row(0) + first_column;
      apart |= uint32_t(rows.gaps) << n.value;
    });
    for (int y = mine; y - mine < count; y += across) {
      const int r = first_row + y;
      const int64_t row_at = int64_t(r) * cols;
      typename K::Row row{};
      typename K::Live live[ITEMS * V];
      RowReductions<P> reductions;
      Pointers<S, Tensors::size> at;
      each(Tensors{}, [&](auto item, auto n) {
        at.to[n] = apart >> n.value & 1 ? part(item, tile, buffer).row(y) + first_column
                                        : first[n] + y * cols;
      });
      values.take_up(args, row, second_after(tile, y));
      const auto channels = row_channels<P>(args, r, 0);
      each(StagesOf<D>{}, [&](auto stage, auto n) {
        using Stage = decltype(stage);
        P::template begin_stage<Stage>(scalar, row);
        Reductions<T, Stage> reduced;
        // What an earlier stage has read should not stay in registers.
        each(Fulls{}, [&](auto, auto input) { at.to[input] = settled(at[input]); });
        if constexpr (Stage::has_elements) {
#pragma unroll
          for (int item = 0; item < ITEMS; ++item) {
            const int c = first_column + item * V;
            if (y < count && c < end) {
              Packed<S, V> raw[Fulls::size + 1];
              each(Fulls{}, [&](auto, auto input) {
#pragma unroll
                for (int v = 0; v < V; ++v) raw[input].value[v] = at[input][item * V + v];
              });
              if constexpr (Only<Stage, Role::rescaled>::size > 0)
                rescale_live<Stage, V>(live + item * V, reductions.rescale);
              typename K::Full full[V];
              P::template unpack_full<Stage, false, true>(args, full, raw, row_at + c,
                                                          channels.at(c), c, end - c);
              typename K::Col col[V] = {};
              if constexpr (Only<Stage, Role::uses_columns>::size > 0) load_cols(col, c);
              typename K::Out out[V];
#pragma unroll
              for (int v = 0; v < V; ++v)
                Stage::element(full[v], col[v], row, scalar, live[item * V + v], out[v]);
              const auto take = [&](int some) {
                uint32_t wanted = 0;
#pragma unroll
                for (int v = 0; v < V; ++v) {
                  if (v < some) {
                    reduced.take(out[v]);
                    leaves.template take<Stage>(v, out[v]);
                    wanted |= 1u << v;
                  }
                }
                Pointers<S, Only<Stage, Role::store>::size> to;
                each(Only<Stage, Role::store>{}, [&](auto store, auto n) {
                  to.to[n] = at[place_of<decltype(store), Tensors>];
                });
                leaves.template store_some<Stage>(to.to, item * V, wanted);
              };
              if (c + V <= end)
                take(V);
              else
                take(end - c);
              each(ColumnSumsIn<Stage>{}, [&](auto sum, auto) {
                constexpr int n = place_of<decltype(sum), typename P::ColumnSums>;
#pragma unroll
                for (int v = 0; v < V; ++v) col_sums[n][item * V + v] += leaves.summed[n].value[v];
              });
            }
          }
        }
        if constexpr (n.value == 0) read_row(row_after(tile, y));
        reductions.template reduce<Stage>(team, row, reduced);
      });
      if (y < count && threadIdx.x == 0) leave_row<P, V>(args, partial, r, scalar, row, leaves);
      values.advance();
    }
    sync();
    each(Stores{}, [&](auto item, auto) { part(item, tile, 0).leave(all, walk.bits); });
  }
#pragma unroll
  for (int n = 0; n < P::ColSums::size; ++n)
    leave_tile_sums<ITEMS * V, by_warp>(col_sums[n], partial[n] + int64_t(blockIdx.x) * cols,
                                        first_column, end, cols, reinterpret_cast<T*>(dynamic));
  leave_totals<P>(partial, leaves.totals);
}

}  // namespace
}  // namespace fusegen
