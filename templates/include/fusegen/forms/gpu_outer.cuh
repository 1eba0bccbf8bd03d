// Outer reductions on the GPU: the columns of a row are not adjacent in memory, but neighbouring
// rows are.
//
// A thread has V neighbouring rows, blockDim.x threads stand side by side, and blockDim.y strands
// share their columns. ITEMS columns stay in a thread's registers; meanwhile it copies those of its
// next rows ahead. If ITEMS is 0, each stage reads the rows again, from the caches. Sums by channel
// of what reduces nothing else are left to gpu_by_channel.cuh, and rows that are not kept to
// gpu_stagewise.cuh if nothing belongs to columns. Bound: memory.
#pragma once

#include "fusegen/forms/gpu_by_channel.cuh"
#include "fusegen/forms/gpu_outer_parts.cuh"
#include "fusegen/forms/gpu_stagewise.cuh"

namespace fusegen {
namespace {

template <class D, class L, class S, int V, int ITEMS>
__global__ void __launch_bounds__(outer_threads, OuterLive<D, L, S, V>::resident)
    outer(typename D::Args args, [[maybe_unused]] uint64_t policy, OuterWalk walk,
          typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;
  using Fulls = typename P::Fulls;
  using Stages = StagesOf<D>;
  using Pack = Packed<S, V>;
  using Loads = Only<InputsOf<D>, Role::row>;
  using Plain = decltype(rows_if<true>(Loads{}));
  using Others = decltype(rows_if<false>(Loads{}));
  using TakenItems = Only<InputsOf<D>, Role::taken>;
  using Streams = decltype(Fulls{} + typename P::Stores{});
  await_kernels_before();
  const int64_t cols = args.cols;
  const auto scalar = P::scalars(args);
  constexpr bool holds = ITEMS > 0, ahead = holds && copies_ahead<Pack>;
  constexpr int places = holds ? ITEMS : 1;
  // How many columns are computed after one condition: four elements hide each other's latency.
  constexpr int together = ITEMS % 4 || V > 4 ? 1 : 4 / V;
  const int64_t inner = args.inner;
  const int strands = blockDim.y, threads = blockDim.x * blockDim.y;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int64_t group = blockIdx.x;
  // A thread's columns are `strands` apart. A matrix whose columns are kept has fewer than 2^32
  // elements.
  const uint32_t count = uint32_t((cols - threadIdx.y + strands - 1) / strands);
  const uint32_t offset = uint32_t(threadIdx.y * inner), step = uint32_t(strands * inner);
  // Each thread has its own places in shared memory, for the inputs of its next rows.
  extern __shared__ __align__(16) unsigned char dynamic[];
  unsigned char* place = dynamic;
  Pack* next_full[Fulls::size + 1];
#pragma unroll
  for (int n = 0; n < Fulls::size; ++n) {
    next_full[n] = settled(reinterpret_cast<Pack*>(place) + thread);
    place += ahead ? sizeof(Pack) * ITEMS * threads : 0;
  }
  Slots<PackedRows<V>, Plain> next_rows;
  each(Plain{}, [&](auto item, auto) {
    using Item = decltype(item);
    using RowPack = Packed<typename Item::type, V>;
    next_rows.template of<Item>() = settled(reinterpret_cast<RowPack*>(place) + thread);
    place += ahead ? sizeof(RowPack) * threads : 0;
  });
  const OuterTeam<T, V> team(settled(place));
  Elements<P, V> leaves;
  T sums[places][P::ColumnSums::size + 1] = {};
  OuterTile<V> next(walk);
  const auto fetch = [&] {
    if constexpr (ahead) {
      if (next.row() >= args.rows) return;
      if constexpr (Fulls::size > 0) {
        const uint32_t apart = opaque(step);
        const int64_t matrix = next.matrix_of(next.row());
        const int64_t at = matrix * (cols - 1) * inner + next.row() + offset;
        const typename P::template Starts<Fulls> from(args, matrix, at);
#pragma unroll
        for (int item = 0; item < ITEMS; ++item) {
          if (item < count) {
            P::copy_all(args, next_full, item * threads, from.to, Steps{apart, item}, policy);
          }
        }
      }
      each(Plain{}, [&](auto item, auto) {
        using Item = decltype(item);
        copy_ahead_cached(next_rows.template of<Item>(),
                          pointer<typename Item::type, Item::arg>(args) + next.row());
      });
    }
  };
  fetch();
  while (next.exists()) {
    const int64_t first = next.row();
    const bool mine = first < args.rows;
    // Row m inner + i, number i of matrix m [cols, inner], begins at m cols inner + i.
    const int64_t matrix = next.matrix_of(first);
    const int64_t base = matrix * (cols - 1) * inner + first + (holds ? offset : 0);
    const typename P::template Starts<Streams> at_base(args, matrix, base);
    if constexpr (ahead) await_copies();
    typename K::Row row[V] = {};
    if constexpr (Loads::size + TakenItems::size > 0) {
      if (mine) {
        each(Plain{}, [&](auto item, auto) {
          using Item = decltype(item);
          const auto values =
              unpack(ahead ? *next_rows.template of<Item>()
                           : load_packed<V>(pointer<typename Item::type, Item::arg>(args) + first));
#pragma unroll
          for (int v = 0; v < V; ++v) row[v].*item.field = values.value[v];
        });
#pragma unroll
        for (int v = 0; v < V; ++v) {
          each(Others{}, [&](auto item, auto) {
            P::template load_number<decltype(item)>(args, first + v, row[v]);
          });
          each(TakenItems{}, [&](auto item, auto) {
            P::template take_element<decltype(item)>(args, first + v, row[v]);
          });
        }
      }
    }
    typename K::Live live[places * V];
    Pack raw[places][Fulls::size + 1];
    if constexpr (Fulls::size > 0 && holds && !ahead) {
      const uint32_t apart = opaque(step);
#pragma unroll
      for (int item = 0; item < ITEMS; ++item) {
#pragma unroll
        for (int n = 0; n < Fulls::size; ++n) {
          const S* const from = at_base.to[n];
          raw[item][n] =
              mine && item < count ? read<L, V>(from + Steps{apart, item}, policy) : Pack{};
        }
      }
    }
    // The columns of a matrix are `inner` elements apart, and its rows share their channels.
    const auto channels = row_channels<P>(args, matrix, int64_t(0), inner);
    next.advance();
    each(Stages{}, [&](auto stage, auto index) {
      using Stage = decltype(stage);
      constexpr bool start = index.value == 0;
#pragma unroll
      for (int v = 0; v < V; ++v) P::template begin_stage<Stage>(scalar, row[v]);
      Reductions<T, Stage> reduced[V];
      if constexpr (Stage::has_elements) {
        // Computes the rows' elements of column c, and adds what they leave to columns to row_sum.
        // Without a branch: a thread works on several columns at a time.
        const auto element = [&](bool here, int64_t c, auto at, int item, auto& row_sum) {
          if constexpr (!holds)
            P::template read_all<L>(raw[0], at_base.to, at, policy);
          else if constexpr (start && ahead)
            P::take_all(raw[item], next_full, item * threads);
          else if constexpr (!start)
            P::template forget_used<Stage>(raw[item]);
          typename K::Full full[V];
          P::template unpack_full<typename P::AllStages>(args, full, raw[item], base + at,
                                                         channels.at(c), c);
          typename K::Col col = P::loaded_column(args, c);
          P::derive(scalar, col);
#pragma unroll
          for (int v = 0; v < V; ++v) {
            typename K::Live& known = live[item * V + v];
            typename K::Out out;
            if constexpr (holds)
              Stage::element(full[v], col, row[v], scalar, known, out);
            else
              stages_to<D, index.value>(full[v], col, row[v], scalar, known, out);
            reduced[v].take(out, here);
            leaves.template take<Stage>(v, out, here);
            each(ColumnSumsIn<Stage>{}, [&](auto sum, auto) {
              row_sum[place_of<decltype(sum), typename P::ColumnSums>] +=
                  here ? out.*sum.out : T(0);
            });
          }
          if (here) {
            using Stores = Only<Stage, Role::store>;
            S* to[Stores::size + 1];
            each(Stores{}, [&](auto store, auto n) {
              to[n] = at_base.to[place_of<decltype(store), Streams>];
            });
            leaves.template store<Stage, true>(to, at);
          }
        };
        if constexpr (holds) {
          const uint32_t apart = opaque(step), own = opaque(mine ? count : 0);
#pragma unroll
          for (int begin = 0; begin < ITEMS; begin += together) {
            if (begin >= own) break;
#pragma unroll
            for (int item = begin; item < begin + together; ++item) {
              const bool here = together == 1 || item < own;
              element(here, threadIdx.y + (here ? item * strands : 0), Steps{apart, item}, item,
                      sums[item]);
            }
          }
        } else {
#pragma unroll 4
          for (int64_t c = threadIdx.y; c < cols + threadIdx.y; c += strands) {
            const bool here = mine && c < cols;
            T row_sum[P::ColumnSums::size + 1] = {};
            if (here) element(true, c, c * inner, 0, row_sum);
            each(ColumnSumsIn<Stage>{}, [&](auto sum, auto) {
              constexpr int n = place_of<decltype(sum), typename P::ColumnSums>;
              const T all = reduce_lanes<Addition>(row_sum[n], blockDim.x);
              if (threadIdx.x == 0 && c < cols)
                P::template part<decltype(sum)>(partial)[group * cols + c] += all;
            });
          }
        }
      }
      if constexpr (start) fetch();  // this tile has been read completely
      reduce_strands<T, Stage>(team, reduced, row);
    });
    if (mine && threadIdx.y == 0) {
      using RowStores = Only<ResultsOf<D>, Role::row_store>;
      each(RowStores{}, [&](auto item, auto) {
        using Item = decltype(item);
        Vector<T, V> values;
#pragma unroll
        for (int v = 0; v < V; ++v) values.value[v] = member(row[v], scalar, item.value);
        auto* const to = pointer<typename Item::type, Item::arg>(args);
        if (to) store_vector(to + first, values);
      });
      each(typename P::RowSums{}, [&](auto item, auto) {
        Vector<T, V> values;
#pragma unroll
        for (int v = 0; v < V; ++v) values.value[v] = member(row[v], scalar, item.value);
        store_vector(P::template part<decltype(item)>(partial) + first, values);
      });
      each(typename P::RowTotals{}, [&](auto item, auto) {
#pragma unroll
        for (int v = 0; v < V; ++v)
          leaves.totals[place_of<decltype(item), typename P::Totals>] +=
              member(row[v], scalar, item.value);
      });
    }
  }
  if constexpr (holds && P::ColumnSums::size > 0) {
    // The block's sums. A strand has the same columns in every tile.
#pragma unroll
    for (int item = 0; item < ITEMS; ++item) {
      each(typename P::ColumnSums{}, [&](auto sum, auto n) {
        sums[item][n] = reduce_lanes<Addition>(sums[item][n], blockDim.x);
        if (threadIdx.x == 0 && item < count)
          P::template part<decltype(sum)>(partial)[group * cols + threadIdx.y + item * strands] =
              sums[item][n];
      });
    }
  }
  leave_totals<P>(partial, leaves.totals);
}

template <class D, class L, class S>
struct Outer {
  using Args = typename D::Args;
  using P = GpuParts<D, S>;
  using By = ByChannel<D, L, S>;
  using Passes = Stagewise<D, L, S>;
  using T = typename P::T;
  static constexpr int wide = outer_width<S>();

  // Calls f with the kernel that a plan chose.
  template <class F>
  static void visit(const OuterPlan& plan, F&& f) {
    if (plan.width == 1) {
      if (plan.items) return f(outer<D, L, S, 1, OuterLive<D, L, S, 1>::items()>);
      return f(outer<D, L, S, 1, 0>);
    }
    if (plan.items) return f(outer<D, L, S, wide, OuterLive<D, L, S, wide>::items()>);
    f(outer<D, L, S, wide, 0>);
  }

  // Whether every tensor can be read in vectors along the rows.
  static bool vectorisable(const Args& args) {
    bool can = args.inner % wide == 0 && P::even(args, wide);
    const auto check = [&](auto item, size_t size) {
      can = can && aligned(args.*decltype(item)::arg, wide * size);
    };
    each(typename P::Fulls{}, [&](auto item, auto) { check(item, sizeof(S)); });
    each(typename P::Stores{}, [&](auto item, auto) { check(item, sizeof(S)); });
    const auto check_row = [&](auto item, auto) {
      check(item, sizeof(typename decltype(item)::type));
    };
    each(rows_if<true>(Only<InputsOf<D>, Role::row>{}), check_row);
    each(Only<ResultsOf<D>, Role::row_store>{}, check_row);
    return can;
  }

  // The plan for a call: the rows and columns of a thread, and the grid.
  static OuterPlan plan_of(const Args& args) {
    const bool whole = vectorisable(args);
    OuterNeeds needs{};
    needs.rows = args.rows;
    needs.cols = reads_elements(StagesOf<D>{}) ? args.cols : 1;
    needs.inner = args.inner;
    needs.width = whole ? wide : 1;
    needs.items = whole ? OuterLive<D, L, S, wide>::items() : OuterLive<D, L, S, 1>::items();
    needs.tensors = P::Fulls::size;
    needs.size = sizeof(S);
    int operands = 0, statistics = 0;
    each(rows_if<true>(Only<InputsOf<D>, Role::row>{}), [&](auto item, auto) {
      ++(std::is_same_v<typename decltype(item)::type, T> ? statistics : operands);
    });
    const size_t next =
        outer_next<S>(needs.width, needs.items, needs.tensors, operands, statistics);
    needs.threads = outer_room<S>(needs.width, next);
    OuterPlan plan{choose_outer(needs)};
    plan.shared = outer_shared<S>(plan, next);
    visit(plan, [&](auto* kernel) { place_outer(plan, kernel); });
    return plan;
  }

  // Whether the stages of a plan run over the whole tensor one by one.
  static bool passes(const Args& args, const OuterPlan& plan) {
    if constexpr (Passes::serves)
      return plan.items == 0 && Passes::fits(args);
    else
      return false;
  }

  static int64_t workspace(const Args& args) {
    if constexpr (By::serves) {
      if (By::fits(args)) return By::workspace(args);
    }
    const OuterPlan plan = plan_of(args);
    if constexpr (Passes::serves) {
      if (passes(args, plan)) return Passes::workspace(args);
    }
    if constexpr (P::Partials::size == 0) return 0;
    return scratch_bytes<D, S>(args, plan);
  }

  static void run(const Args& args, void* workspace, cudaStream_t stream) {
    if constexpr (By::serves) {
      if (By::fits(args)) return By::run(args, workspace, stream);
    }
    const OuterPlan plan = plan_of(args);
    if constexpr (Passes::serves) {
      if (passes(args, plan)) return Passes::run(args, workspace, stream);
    }
    const auto partial = place_partials<D, S>(args, plan, workspace);
    if (!plan.items) {
      each(typename P::ColumnSums{}, [&](auto, auto n) {
        cudaMemsetAsync(partial[n], 0, sizeof(T) * plan.groups * args.cols, stream);
      });
    }
    if (plan.grid) {
      const dim3 threads(unsigned(plan.lanes), unsigned(plan.strands));
      const uint64_t policy = read_policy(args.rows * args.cols * int64_t(sizeof(S)));
      visit(plan, [&](auto* kernel) {
        launch(kernel, stream, plan.grid, threads, plan.shared, 1, args, policy, plan.walk,
               partial);
      });
    }
    add_up<D, S>(args, plan, partial, stream);
  }
};

}  // namespace
}  // namespace fusegen
