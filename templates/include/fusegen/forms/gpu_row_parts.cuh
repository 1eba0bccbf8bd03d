// What the GPU's forms for rows share: channels along a row, what a stage reduces over it, and sums
// of columns.
#pragma once

#include "fusegen/forms/gpu_elements.cuh"
#include "fusegen/forms/gpu_grid_sums.cuh"

namespace fusegen {
namespace {

// The most values that one exchange among a row's threads carries.
template <class... Stages>
constexpr int most_values(List<Stages...>) {
  int most = 1;
  const auto stage = [&](int reduced, bool shifted) {
    most = std::max(most, shifted ? reduced + 1 : std::min(reduced, jointly));
  };
  (stage(Only<Stages, Role::sum>::size + Only<Stages, Role::largest>::size,
         Only<Stages, Role::shifted>::size > 0),
   ...);
  return most;
}
template <class D>
constexpr int joint_values = most_values(StagesOf<D>{});

// The channels of every `step`-th row from `row` on, if operands are spread over a row's channels.
// Index: an integer type that holds the numbers of rows and of columns.
struct NoChannels {
  template <class Index>
  __device__ __forceinline__ int at(Index) const {
    return 0;
  }
  __device__ __forceinline__ int first() const { return 0; }
  __device__ __forceinline__ int further(int) const { return 0; }
  __device__ __forceinline__ void advance() {}
};
// The columns of a row are `inner` elements apart.
template <class P, class Index>
__device__ __forceinline__ auto row_channels(const typename P::Args& args, Index row, Index step,
                                             int64_t inner = 1) {
  if constexpr (P::Spreads::size > 0)
    return RowChannels<Index>(row, step, Index(args.cols), Index(run_length<P>(args) / inner),
                              Index(channels_of<P>(args)));
  else
    return NoChannels{};
}

// What a stage reduces over a row. A provisional maximum is only the warp's; the sums after it are
// relative to it, and one exchange turns both into the row's.
template <class P>
struct RowReductions {
  using T = typename P::T;
  using K = typename P::K;

  T near;         // the provisional maximum
  T rescale = 1;  // what turns values relative to it into values relative to the row's

  template <class Stage, class Team>
  __device__ __forceinline__ void reduce(Team& team, typename K::Row& row,
                                         const Reductions<T, Stage>& reduced) {
    using Shift = Only<Stage, Role::shifted>;
    if constexpr (Only<Stage, Role::provisional>::size > 0) {
      near = team.template reduce_near<Maximum>(reduced.largest[0]);
      each(Only<Stage, Role::largest>{}, [&](auto item, auto) { row.*item.row = anchor(near); });
    } else if constexpr (Shift::size > 0) {
      using Sums = Only<Stage, Role::sum>;
      const T warp = near;
      T sums[Sums::size];
#pragma unroll
      for (int n = 0; n < Sums::size; ++n) sums[n] = reduced.sum[n];
      team.template reduce_shifted<typename K::Functions>(near, sums);
      rescale = shift_factor<typename K::Functions>(warp, near);
      each(Shift{}, [&](auto item, auto) { row.*item.row = near; });
      each(Sums{}, [&](auto item, auto n) { row.*item.row = sums[n]; });
    } else {
      reduced.reduce(team, row);
    }
  }
};

// What one thread of a team leaves of row r: its results, and terms of sums over rows.
template <class P, int V>
__device__ __forceinline__ void leave_row(const typename P::Args& args,
                                          const typename P::Partial& partial, int64_t r,
                                          const typename P::K::Scalar& scalar,
                                          const typename P::K::Row& row, Elements<P, V>& leaves) {
  P::store_row(args, r, scalar, row);
  if constexpr (P::RowSums::size > 0) {
    each(typename P::RowSums{}, [&](auto item, auto) {
      P::template part<decltype(item)>(partial)[r] = member(row, scalar, item.value);
    });
  }
  if constexpr (P::RowTotals::size > 0) {
    each(typename P::RowTotals{}, [&](auto item, auto) {
      leaves.totals[place_of<decltype(item), typename P::Totals>] +=
          member(row, scalar, item.value);
    });
  }
}

// Adds a vector of a stage to the sums of its columns, in any of their classes.
template <class P, class Stage, class ColSums, class RunSums, int V>
__device__ __forceinline__ void add_columns(ColSums& col_sums, RunSums& run_sums, int item,
                                            const Elements<P, V>& leaves) {
  each(ColumnSumsIn<Stage>{}, [&](auto sum, auto) {
    constexpr int n = place_of<decltype(sum), typename P::ColumnSums>;
    if constexpr (n < P::ColSums::size)
      col_sums[n].add(item, leaves.summed[n]);
    else
      run_sums[n - P::ColSums::size].add(item, leaves.summed[n]);
  });
}

// Stores the sums of a block's columns or channels. A thread has `items` accesses from column
// `first_column` on, `apart` columns from each other. run_places: where the sums of channels are.
// FIXED: the number of accesses, if it is known. ANYWHERE: whether rows are of any length.
template <class P, int V, int FIXED, bool ANYWHERE = false, class Team, class ColSums>
__device__ __forceinline__ void leave_columns_of(const typename P::Args& args,
                                                 const typename P::Partial& partial,
                                                 const Team& team, int first_column, int apart,
                                                 int items, int fold, ColSums& col_sums,
                                                 void* const* run_places) {
  if constexpr (P::ColumnSums::size > 0) {
    const int cols = int(args.cols), first_of_block = first_column - int(threadIdx.x) * V;
    __syncthreads();
    if constexpr (P::RunSums::size > 0) {
      // Each row of threads stores its sums by channel. Its rows all had the same channels.
      const int run = int(run_length<P>(args));
      const RunColumns columns{first_of_block,
                               min(cols, first_of_block + items * apart),
                               run,
                               cols / run,
                               fold,
                               team.blocks(),
                               team.rank()};
      each(typename P::RunSums{}, [&](auto, auto n) {
        leave_runs<V>(run_places[n], partial[P::ColSums::size + n],
                      int64_t(blockIdx.x) / team.blocks() * blockDim.y, columns);
      });
    }
    if constexpr (P::ColSums::size > 0) {
      // The block stores its column sums. Each thread of its first row stores sums that other
      // threads added up.
      const int64_t at = int64_t(blockIdx.x) / team.blocks() * cols + first_of_block;
      const auto leave = [&](int item) {
        each(typename P::ColSums{}, [&](auto, auto n) {
          leave_columns<ANYWHERE>(col_sums[n], item, partial[n] + at + item * apart,
                                  cols - first_of_block - item * apart, team.rows());
        });
      };
      if constexpr (FIXED > 0) {
#pragma unroll
        for (int item = 0; item < FIXED; ++item) leave(item);
      } else {
        for (int item = 0; item < items; ++item) leave(item);
      }
    }
  }
}

}  // namespace
}  // namespace fusegen
