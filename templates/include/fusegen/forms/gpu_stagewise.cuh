// Rows that lie between one another, on the GPU, a stage at a time over the whole tensor: groups of
// channels in channels-last, and other rows whose columns lie apart and are too many for a block.
//
// The tensor is matrices [places, inner], and a row is some neighbours of every place. A thread
// keeps V neighbouring elements and what is known of their rows, and walks down the places with R
// of them in flight. What a stage reduces, blocks leave in parts for each column; a small kernel
// joins those of a row. The next stage reads the tensor again, from its end: the last
// of it is still in the L2 cache. Bound: memory, once for each stage.
#pragma once

#include "fusegen/forms/gpu_stagewise_plan.cuh"

namespace fusegen {
namespace {

// What the kernels of a call share in its workspace: what is reduced of each row, and the parts of
// a stage that blocks leave.
template <class P>
struct StageMemory {
  Pointers<typename P::T, ReducedIn<typename P::AllStages>::size> reduced;
  typename P::T* parts;
};

// A pass: stage PLACE over all elements. REVERSED: from the tensor's end.
template <class D, class L, class S, int V, int PLACE, bool REVERSED>
__global__ void __launch_bounds__(256)
    stage_pass(typename D::Args args, [[maybe_unused]] uint64_t policy, StageWalk walk,
               StageMemory<GpuParts<D, S>> memory, typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;
  using Stage = StageAt<D, PLACE>;
  using Sums = Only<Stage, Role::run_sum>;
  constexpr bool centred = is_centred<Stage>;
  constexpr int last = centred ? PLACE - 1 : PLACE;  // of the stages whose elements are computed
  using Seen = FirstStages<D, last + 1>;
  using Storing = StageAt<D, last>;
  constexpr int R = StagewisePlan<D, L, S>::template in_flight<Seen>;
  using Streams = decltype(typename P::Fulls{} + Only<Storing, Role::store>{});
  using Reducer = std::conditional_t<centred, ColumnMoments<T, StageAt<D, PLACE - 1>, V>,
                                     ColumnReductions<T, Stage, V>>;
  await_kernels_before();
  const auto scalar = P::scalars(args);
  const uint32_t c = (blockIdx.x * blockDim.x + threadIdx.x) * V;
  const uint32_t slice = REVERSED ? gridDim.y - 1 - blockIdx.y : blockIdx.y;
  const uint32_t columns = walk.together - blockIdx.x * blockDim.x * V;  // from the block's first
  const int64_t stride = int64_t(gridDim.y) * blockDim.y;
  constexpr uint32_t every = (uint64_t(1) << V) - 1;
  __shared__ T strands[256 * strand_chunk<V>];
  Elements<P, V> leaves;
  T sums[Sums::size + 1][V] = {};
  T spread[P::Spreads::size + 1][V];
  const auto load_spread = [&](int64_t first) {
    each(typename P::Spreads{}, [&](auto item, auto n) {
      using Item = decltype(item);
      const auto* const from = pointer<typename Item::type, Item::arg>(args) + first;
#pragma unroll
      for (int v = 0; v < V; ++v) spread[n][v] = T(load(from + (c + v) % walk.inner));
    });
  };
  // Each channel's sum over what this thread has added up; block: the number of the block's part.
  const auto leave_sums = [&](int64_t block) {
    each(Sums{}, [&](auto item, auto n) {
      T* const first = P::template part<decltype(item)>(partial) + block * walk.together +
                       blockIdx.x * blockDim.x * V;
      join_strands<256, Addition>(strands, sums[n], [&](int column, T total) {
        if (column < columns) first[column] = total;
      });
#pragma unroll
      for (int v = 0; v < V; ++v) sums[n][v] = T(0);
    });
  };
  if (!walk.by_sample) load_spread(0);
  for (int64_t turn = blockIdx.z; turn < walk.matrices; turn += gridDim.z) {
    const int64_t matrix = REVERSED ? walk.matrices - 1 - turn : turn;
    const int64_t base = matrix * walk.elements();
    const typename P::template Starts<Streams> streams(args, matrix, base);
    Reducer reducer;
    if (walk.by_sample) load_spread(matrix * walk.inner);
    if (c < walk.together) {
      typename K::Row row[V] = {};
#pragma unroll
      for (int v = 0; v < V; ++v)
        know_row<P, last>(args, scalar, walk.row(matrix, c + v), memory.reduced, row[v]);
      // Computes the elements from `at` on whose bits are set.
      const auto take = [&](const Packed<S, V>* raw, int64_t at, uint32_t wanted) {
        typename K::Full full[V];
        P::template unpack_inputs<Seen>(args, full, raw, base + at);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          each(typename P::Spreads{},
               [&](auto item, auto n) { full[v].*item.field = spread[n][v]; });
          if (wanted != every && !(wanted >> v & 1)) continue;
          typename K::Live live;
          typename K::Out out;
          stages_to<D, last>(full[v], typename K::Col{}, row[v], scalar, live, out);
          reducer.take(v, out);
          leaves.template take<Storing>(v, out);
          if constexpr (!centred)
            each(Sums{}, [&](auto item, auto n) { sums[n][v] += out.*item.out; });
        }
        S* const* const to = streams.to + P::Fulls::size;
        if (wanted == every)
          leaves.template store<Storing, true>(to, at);
        else
          leaves.template store_some<Storing>(to, at, wanted);
        if (wanted == every)
          reducer.took();
        else
          reducer.took_some(wanted);
      };
      // Not unrolled: a batch has enough accesses in flight.
#pragma unroll 1
      for (int64_t first = int64_t(slice) * blockDim.y + threadIdx.y; first < walk.steps;
           first += stride * R) {
        Packed<S, V> raw[R][P::Fulls::size + 1];
#pragma unroll
        for (int i = 0; i < R; ++i) {
          const int64_t step = first + i * stride;
          if (step < walk.steps)
            P::template read_used<L, Seen>(raw[i], streams.to, step * walk.together + c, policy);
        }
#pragma unroll
        for (int i = 0; i < R; ++i) {
          const int64_t step = first + i * stride;
          if (step < walk.steps) take(raw[i], step * walk.together + c, every);
        }
      }
      // The places that are left: fewer than a step has.
      const int64_t at = walk.steps * walk.together + c;
      const int64_t left = min(walk.elements() - at, int64_t(V));
      if (slice == 0 && threadIdx.y == 0 && left > 0) {
        Packed<S, V> raw[P::Fulls::size + 1] = {};
#pragma unroll
        for (int n = 0; n < P::Fulls::size; ++n) {
#pragma unroll
          for (int v = 0; v < V; ++v) {
            if (v < left) raw[n].value[v] = streams.to[n][at + v];
          }
        }
        take(raw, at, uint32_t((uint64_t(1) << left) - 1));
      }
    }
    if constexpr (reduces_row<Stage>) {
      T* const first = memory.parts + walk.part(matrix, slice) + blockIdx.x * blockDim.x * V;
      reducer.leave(strands, first, columns, walk, slice);
    }
    if (walk.by_sample) leave_sums(matrix * gridDim.y + slice);
  }
  if (!walk.by_sample) leave_sums(int64_t(blockIdx.z) * gridDim.y + blockIdx.y);
  each(Only<Stage, Role::total>{}, [&](auto item, auto) {
    const T total = sum_block(leaves.totals[place_of<decltype(item), typename P::Totals>]);
    const int64_t block = (int64_t(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    if (threadIdx.x == 0 && threadIdx.y == 0)
      P::template part<decltype(item)>(partial)[block] = total;
  });
}

// Joins the parts of each row that stage PLACE left: a warp a row, or a block if they are many.
// After the last stage that reduces, it also leaves what belongs to the row. A PLACE of -1: there
// is no such stage.
template <class D, class S, int PLACE>
__global__ void __launch_bounds__(256)
    join_rows(typename D::Args args, StageWalk walk, StageMemory<GpuParts<D, S>> memory,
              typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using T = typename P::T;
  using Stage = StageAt<D, PLACE>;
  constexpr int stages = StagesOf<D>::size;
  using All = ReducedIn<typename P::AllStages>;
  await_kernels_before();
  const auto scalar = P::scalars(args);
  const StageWalk::Counts counts(walk);
  T totals[P::Totals::size + 1] = {};
  for (int64_t r = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; r < args.rows;
       r += int64_t(gridDim.x) * blockDim.y) {
    const int64_t matrix = r / walk.rows();
    const uint32_t of_matrix = uint32_t(r % walk.rows());
    const auto keep = [&](auto item, T value) {
      if (threadIdx.x == 0) memory.reduced.to[place_of<decltype(item), All>][r] = value;
    };
    if constexpr (is_centred<Stage>) {
      T total = 0, squares = 0;
      each_part(walk, matrix, of_matrix,
                [&](uint32_t, uint32_t, int64_t at) { total += memory.parts[at]; });
      total = join_threads<Addition>(total);
      const T mean = total / T(args.cols);
      each_part(walk, matrix, of_matrix, [&](uint32_t slice, uint32_t column, int64_t at) {
        // Both are loaded whatever the count is: the thread would wait for each conditional load.
        const T sum = memory.parts[at], own = memory.parts[walk.parts() + at];
        const T count = T(counts.of(slice, column)), apart = sum / count - mean;
        squares += count > T(0) ? fma(count * apart, apart, own) : T(0);
      });
      squares = join_threads<Addition>(squares);
      each(Only<StageAt<D, PLACE - 1>, Role::sum>{}, [&](auto item, auto) { keep(item, total); });
      each(Only<Stage, Role::sum>{}, [&](auto item, auto) { keep(item, squares); });
    } else {
      const auto joined = [&](auto op, auto item, int part) {
        using Op = decltype(op);
        T value = Op::template identity<T>();
        each_part(walk, matrix, of_matrix, [&](uint32_t, uint32_t, int64_t at) {
          value = Op::combine(value, memory.parts[part * walk.parts() + at]);
        });
        keep(item, join_threads<Op>(value));
      };
      using Largest = Only<Stage, Role::largest>;
      each(Largest{}, [&](auto item, auto n) { joined(Maximum{}, item, n); });
      each(Only<Stage, Role::sum>{},
           [&](auto item, auto n) { joined(Addition{}, item, Largest::size + n); });
    }
    if constexpr (PLACE == LastReducing<D>::place) {
      if (threadIdx.x == 0) {
        typename P::K::Row row = {};
        know_row<P, stages>(args, scalar, r, memory.reduced, row);
        P::store_row(args, r, scalar, row);
        each(typename P::RowSums{}, [&](auto item, auto) {
          P::template part<decltype(item)>(partial)[r] = member(row, scalar, item.value);
        });
        each(typename P::RowTotals{}, [&](auto item, auto) {
          totals[place_of<decltype(item), typename P::Totals>] += member(row, scalar, item.value);
        });
      }
    }
  }
  if constexpr (PLACE == LastReducing<D>::place) {
    each(typename P::RowTotals{}, [&](auto item, auto) {
      const T total = sum_block(totals[place_of<decltype(item), typename P::Totals>]);
      if (threadIdx.x == 0 && threadIdx.y == 0)
        P::template part<decltype(item)>(partial)[blockIdx.x] = total;
    });
  }
}

template <class D, class L, class S>
struct Stagewise {
  using Args = typename D::Args;
  using P = GpuParts<D, S>;
  using T = typename P::T;
  using Plan = StagewisePlan<D, L, S>;
  // Nothing may belong to columns, and the channels of a place must be its neighbours. Something
  // must be reduced or read of a row.
  static constexpr bool serves = has_none_of<InputsOf<D>, Role::col, Role::index, Role::derived,
                                             Role::column_lines, Role::taken> &&
                                 P::ColSums::size == 0 && !P::alternating && D::stages::size > 0 &&
                                 (D::interleaved || P::Spreads::size + P::RunSums::size == 0);

  static bool fits(const Args& args) {
    return args.rows > 0 && args.cols > 0 && args.inner < INT32_MAX / Plan::wide;
  }

  // The plan for a call, by how many blocks of any pass the chip holds.
  static Plan plan_of(const Args& args) {
    Plan plan(args);
    int64_t resident = INT64_MAX;
    each_pass(plan, [&](auto* kernel, auto) {
      resident = std::min(resident, resident_blocks(kernel, plan.threads, 0));
    });
    plan.deal(args, resident);
    return plan;
  }

  static int64_t workspace(const Args& args) {
    const Plan plan = plan_of(args);
    return plan.shared(args.rows) * int64_t(sizeof(T)) + scratch_bytes<D, S>(args, plan);
  }

  static void run(const Args& args, void* workspace, cudaStream_t stream) {
    const Plan plan = plan_of(args);
    StageMemory<P> memory;
    memory.parts = static_cast<T*>(workspace);
    T* next = memory.parts + plan.walk.parts() * most_reductions(StagesOf<D>{});
    for (int n = 0; n < ReducedIn<typename P::AllStages>::size; ++n, next += args.rows)
      memory.reduced.to[n] = next;
    const auto partial = place_partials<D, S>(args, plan, next);
    each(typename P::Totals{}, [&](auto item, auto) {
      cudaMemsetAsync(partial[place_of<decltype(item), typename P::Partials>], 0,
                      sizeof(T) * plan.blocks, stream);
    });
    const uint64_t policy = read_policy(args.rows * args.cols * int64_t(sizeof(S)));
    const auto join = [&](auto place) {
      launch(join_rows<D, S, decltype(place)::value>, stream, plan.joined_by, plan.joining, 0, 1,
             args, plan.walk, memory, partial);
    };
    each_pass(plan, [&](auto* kernel, auto place) {
      launch(kernel, stream, plan.grid, plan.threads, 0, 1, args, policy, plan.walk, memory,
             partial);
      if constexpr (reduces_row<StageAt<D, decltype(place)::value>>) join(place);
    });
    constexpr int of_rows =
        Only<ResultsOf<D>, Role::row_store>::size + P::RowSums::size + P::RowTotals::size;
    if constexpr (of_rows > 0 && LastReducing<D>::place < 0) join(Place<-1>{});
    add_up<D, S>(args, plan, partial, stream);
  }

 private:
  // Calls f with the kernel of each pass, and the place of its stage.
  template <class F>
  static void each_pass(const Plan& plan, const F& f) {
    each(StagesOf<D>{}, [&](auto stage, auto n) {
      if constexpr (is_pass<decltype(stage)>) {
        constexpr bool reversed = passes_before<n.value>(StagesOf<D>{}) % 2;
        if (plan.width == 1)
          f(stage_pass<D, L, S, 1, n.value, reversed>, n);
        else
          f(stage_pass<D, L, S, Plan::wide, n.value, reversed>, n);
      }
    });
  }
};

}  // namespace
}  // namespace fusegen
