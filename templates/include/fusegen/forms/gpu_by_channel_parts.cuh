// What elements read of their channel and which sums of a channel there are, if all samples are one
// matrix [places, …] whose columns belong to channels: where rows differ by their channels alone,
// and where columns do.
#pragma once

#include "fusegen/forms/by_channel.h"
#include "fusegen/forms/gpu_elements.cuh"
#include "fusegen/forms/gpu_places.cuh"

namespace fusegen {
namespace {

// Rows differ by channel, and the channels of a place are adjacent: channels-last.
template <class D, class S>
struct ChannelsOfRows {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;
  using Args = typename D::Args;
  using Numbers = typename K::Row;
  using Sums = Only<typename P::AllStages, Role::sum>;
  static constexpr bool serves = differs_by_channel<D>, leaves_sums = P::RowSums::size > 0;
  static constexpr bool always_wide = false;  // whether accesses always have 16 bytes
  static constexpr int waves = 1;  // blocks per block that the chip holds, if they leave sums

  // Loads the numbers for V elements from element `at` of a step on.
  template <int V>
  static __device__ __forceinline__ void load(const Args& args, const typename K::Scalar& scalar,
                                              Numbers (&row)[V], uint32_t at) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const uint32_t channel = (at + v) % uint32_t(args.channels);
      each(Only<InputsOf<D>, Role::row>{}, [&](auto item, auto) {
        using Item = decltype(item);
        row[v].*item.field =
            T(fusegen::load(pointer<typename Item::type, Item::arg>(args) + channel));
      });
      P::template begin_stage<typename P::AllStages>(scalar, row[v]);
    }
  }
  static __device__ __forceinline__ void run(const typename K::Full& full, const Numbers& row,
                                             const typename K::Scalar& scalar,
                                             typename K::Out& out) {
    P::run_stages(full, typename K::Col{}, row, scalar, out);
  }
  // Calls f(sum over the grid, place among Sums) for each sum of which blocks leave parts.
  template <class F>
  static __device__ __forceinline__ void each_sum(const F& f) {
    each(typename P::RowSums{}, [&](auto item, auto) {
      each(Sums{}, [&](auto sum, auto n) {
        if constexpr (is_sum_of<decltype(sum), decltype(item)>) f(item, n);
      });
    });
  }
  // Where the part for element `at` of a step is among those of a block.
  static __device__ __forceinline__ int64_t place_of_part(const Args&, int64_t at, int64_t) {
    return at;
  }

  static bool fits(const Args& args) { return has_adjacent_channels<D>(args); }
  // The elements of a place.
  static int64_t elements(const Args& args) { return args.channels; }
  static int64_t most_down(int64_t steps) { return steps; }
  // The call as its sums see it: one row for each part that is left.
  static Args summed(const Args& args, int64_t parts) {
    Args found = args;
    found.rows = parts;
    return found;
  }
};

// Elements differ by column, the columns lie apart, and so few rows are neighbours, or so odd a
// number, that samples [cols, inner] are taken as the places of a walk.
template <class D, class S>
struct ChannelsOfColumns {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using Args = typename D::Args;
  using Numbers = typename K::Col;
  using Sums = typename P::ColSums;
  static constexpr bool serves = differs_by_column<D>, leaves_sums = Sums::size > 0;
  static constexpr bool always_wide = true;
  static constexpr int waves = 2;  // a place may have nearly as many tiles as the chip holds

  static FUSEGEN_FN ChannelRuns runs(const Args& args) { return {args.cols, args.inner}; }
  template <int V>
  static __device__ __forceinline__ void load(const Args& args, const typename K::Scalar& scalar,
                                              Numbers (&col)[V], uint32_t at) {
    uint32_t channels[V];
    runs(args).channels_of(channels, at);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      Numbers one[1] = {};
      P::load_cols(args, scalar, one, channels[v]);
      col[v] = one[0];
    }
  }
  static __device__ __forceinline__ void run(const typename K::Full& full, const Numbers& col,
                                             const typename K::Scalar& scalar,
                                             typename K::Out& out) {
    P::run_stages(full, col, typename K::Row{}, scalar, out);
  }
  template <class F>
  static __device__ __forceinline__ void each_sum(const F& f) {
    each(Sums{}, f);
  }
  // Those of a channel lie side by side.
  static __device__ __forceinline__ int64_t place_of_part(const Args& args, int64_t at,
                                                          int64_t together) {
    return runs(args).by_channel(uint32_t(at), uint32_t(together));
  }

  static bool fits(const Args& args) {
    constexpr int width = 16 / sizeof(S);
    bool can = has_no_gaps<D>(args) && args.inner > 1 && args.rows % args.inner == 0 &&
               runs(args).walks(args.rows / args.inner, width);
    const auto check = [&](auto item, auto) {
      can = can && aligned(args.*decltype(item)::arg, 16);
    };
    each(typename P::Fulls{}, check);
    each(typename P::Stores{}, check);
    if constexpr (leaves_sums) {
      const int64_t count = args.rows * args.cols;
      can = can && most_down(count / step_of_walk(elements(args), width, count)) > 0;
    }
    return can;
  }
  static int64_t elements(const Args& args) { return args.cols * args.inner; }
  static int64_t most_down(int64_t steps) { return leaves_sums ? most_with_parts(steps) : steps; }
  static Args summed(const Args& args, int64_t) { return args; }
};

}  // namespace
}  // namespace fusegen
