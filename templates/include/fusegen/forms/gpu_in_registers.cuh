// A row in the registers of a team of threads, on the GPU: what `resident` and `single` share.
#pragma once

#include "fusegen/forms/gpu_row_parts.cuh"

namespace fusegen {
namespace {

// A thread's part of a row: ITEMS vectors of V columns. ANYWHERE: they may begin anywhere in
// memory, and the last one may be incomplete.
template <class D, class S, int V, int ITEMS, bool ANYWHERE = false>
struct RowInRegisters {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;

  const typename P::Args& args;
  const typename K::Scalar& scalar;
  int r, end;  // the row, and how many columns it has; 0 if it does not exist
  int first_column, apart;
  int64_t row_at;  // the thread's first element
  typename K::Row row{};
  RowReductions<P> reductions;
  typename K::Live live[ITEMS * V];
  Packed<S, V> raw[ITEMS][P::Fulls::size + 1];

  __device__ __forceinline__ RowInRegisters(const typename P::Args& args,
                                            const typename K::Scalar& scalar, int r, int end,
                                            int first_column, int apart, int64_t row_at)
      : args(args),
        scalar(scalar),
        r(r),
        end(end),
        first_column(first_column),
        apart(apart),
        row_at(row_at) {}
  __device__ __forceinline__ int column(int item) const { return first_column + item * apart; }

  // Runs a stage: what is computed once, then each vector, and what is reduced over the row.
  //   read(item)                 reads the inputs of a vector in the first stage
  //   channel(item, c)           the channel of column c
  //   fill_columns(col, item, c) the operands of columns
  //   add(stage, item)           adds a vector to sums of columns
  //   fetch_next()               follows the last vector of the first stage
  template <class Stage, bool FIRST, class Team, class Read, class Channel, class FillColumns,
            class Add, class FetchNext>
  __device__ __forceinline__ void run(Team& team, Elements<P, V>& leaves, const Read& read,
                                      const Channel& channel, const FillColumns& fill_columns,
                                      const Add& add, const FetchNext& fetch_next) {
    P::template begin_stage<Stage>(scalar, row);
    Reductions<T, Stage> reduced;
    if constexpr (Stage::has_elements) {
      using Stores = Only<Stage, Role::store>;
      const typename P::template Starts<Stores> to(args, r, row_at);
#pragma unroll
      for (int item = 0; item < ITEMS; ++item) {
        const int c = column(item);
        constexpr bool stores = ANYWHERE && Stores::size > 0;
        const unsigned lanes = stores ? __ballot_sync(0xffffffffu, c < end) : 0;
        if (c < end) {
          [[maybe_unused]] const auto place = VectorPlace::of<V>(c, end, lanes);
          if constexpr (FIRST) {
            read(item);
          } else {
            P::template forget_used<Stage>(raw[item]);
          }
          if constexpr (Only<Stage, Role::rescaled>::size > 0)
            rescale_live<Stage, V>(live + item * V, reductions.rescale);
          typename K::Full full[V];
          P::template unpack_full<Stage, false, ANYWHERE>(
              args, full, raw[item], row_at + item * apart, channel(item, c), c);
          typename K::Col col[V] = {};
          if constexpr (Only<Stage, Role::uses_columns>::size > 0) fill_columns(col, item, c);
#pragma unroll
          for (int v = 0; v < V; ++v) {
            typename K::Out out;
            Stage::element(full[v], col[v], row, scalar, live[item * V + v], out);
            const bool here = !ANYWHERE || v < place.valid;
            reduced.take(out, here);
            leaves.template take<Stage>(v, out, here);
            if constexpr (ANYWHERE && ColumnSumsIn<Stage>::size > 0) {
              if (!here) leaves.template clear<Stage>(v);
            }
          }
          if constexpr (ColumnSumsIn<Stage>::size > 0) add(Stage{}, item);
          if constexpr (ANYWHERE)
            leaves.template store_anywhere<Stage>(to.to, item * apart, place);
          else
            leaves.template store<Stage>(to.to, item * apart);
        }
      }
    }
    if constexpr (FIRST) fetch_next();
    reductions.template reduce<Stage>(team, row, reduced);
  }
};

}  // namespace
}  // namespace fusegen
