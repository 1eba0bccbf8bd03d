// Long rows that pass through a ring in shared memory, on the GPU.
//
// The blocks of a cluster share a row. In steps, a thread takes a few accesses of each tensor; its
// ring has slots for several steps. A stage goes over the row, the next one back again: so what the
// ring still holds when a stage ends is what the next one begins with. Only what has left the ring
// is read again, from the L2 cache. As soon as a slot is free, the step that needs it next is
// copied into it, also across the end of a stage or of a row.
//
// Operands of channels are loaded, and sums by channel are left, where a warp comes to another
// channel. Rows and channels may begin within a step, and between two accesses; such a step is
// taken apart. Bound: memory; for rows that the cluster's shared memory cannot hold, the L2 cache
// as well.
#pragma once

#include "fusegen/forms/gpu_streamed_parts.cuh"

namespace fusegen {
namespace {

// The accesses of a thread in one step: as many as registers allow.
template <class P, int V, int BLOCKS>
constexpr int ring_room =
    (BLOCKS > 1 ? 64 : 128) / int(sizeof(typename P::T)) / (V * (P::Fulls::size + !P::Fulls::size));
template <class P, int V, int BLOCKS>
constexpr int ring_accesses = ring_room<P, V, BLOCKS> < 1   ? 1
                              : ring_room<P, V, BLOCKS> > 4 ? 4
                                                            : ring_room<P, V, BLOCKS>;

// Starts the copies of a thread's accesses in one step: for each, those of a warp are contiguous.
template <int N, class Pack>
__device__ __forceinline__ void copy_all_ahead(Pack* shared, const void* global, uint64_t policy) {
  const uint32_t to = copy_place(shared, policy);
  copy_ahead_at<0>(to, global, policy);
  if constexpr (N > 1) copy_ahead_at<512>(to, global, policy);
  if constexpr (N > 2) copy_ahead_at<1024>(to, global, policy);
  if constexpr (N > 3) copy_ahead_at<1536>(to, global, policy);
}

// A block's part of row r. Offsets count elements from the last place before the part where an
// access may begin.
template <int V>
struct RingPart {
  int64_t at;      // the element at offset 0
  int64_t column;  // its column; before the row, if the row begins within an access
  int begin, end;  // the offsets of the part
  __device__ __forceinline__ RingPart(int64_t r, int64_t cols, int64_t stretch_at,
                                      int64_t stretch) {
    const int shift = V == 1 ? 0 : int(uint32_t(r) * uint32_t(cols) % V);
    column = stretch_at - shift;
    at = r * cols + column;
    begin = stretch_at ? 0 : shift;
    end = int(min(cols - column, stretch));
  }
};

// The channel that a warp is in, during a stage: its operands, and its sums over the grid.
template <class P, class Stage, int V>
class RingChannel {
  using T = typename P::T;
  using Args = typename P::Args;
  using Partial = typename P::Partial;

 public:
  using Sums = Only<Stage, Role::run_sum>;

  T operands[P::Spreads::size + 1];
  T sums[Sums::size + 1] = {};
  int first = 0, until = 0;  // its offsets in the block's part of the row

  __device__ __forceinline__ RingChannel(const Args& args, const Partial& partial,
                                         const RingPart<V>& part, int64_t run, int first_channel)
      : args_(args), partial_(partial), part_(part), run_(run), first_channel_(first_channel) {}

  // Goes to the channel of an offset. sum_place(channel) is the place of this warp's part of the
  // channel's sums.
  template <class SumPlace>
  __device__ __forceinline__ void enter(int offset, const SumPlace& sum_place) {
    if (offset >= first && offset < until) return;
    leave();
    channel_ = quotient(part_.column + offset, run_);
    const int64_t here = channel_ * run_ - part_.column;
    first = int(max(here, int64_t(part_.begin)));
    until = int(min(here + run_, int64_t(part_.end)));
    each(typename P::Spreads{}, [&](auto item, auto n) {
      using Stored = typename decltype(item)::type;
      operands[n] = load(pointer<Stored, decltype(item)::arg>(args_) + first_channel_ + channel_);
    });
    if constexpr (Sums::size > 0) {
      place_ = sum_place(channel_);
      each(Sums{}, [&](auto sum, auto n) {
        if (threadIdx.x % 32 == 0) earlier_[n] = *part_of(sum);
      });
    }
  }
  // Adds the sums to those of earlier rows. These were read when the warp entered the channel, so
  // that it does not wait for them now.
  __device__ __forceinline__ void leave() {
    if constexpr (Sums::size > 0) {
      if (channel_ < 0) return;
      T all[Sums::size];
#pragma unroll
      for (int n = 0; n < Sums::size; ++n) all[n] = sums[n];
      reduce_each<Addition>(all, 32);
      each(Sums{}, [&](auto sum, auto n) {
        if (threadIdx.x % 32 == 0) *part_of(sum) = earlier_[n] + all[n];
        sums[n] = T(0);
      });
    }
  }

 private:
  template <class Sum>
  __device__ __forceinline__ T* part_of(Sum) const {
    return P::template part<Sum>(partial_) + place_;
  }

  const Args& args_;
  const Partial& partial_;
  const RingPart<V>& part_;
  const int64_t run_;
  const int first_channel_;
  int64_t channel_ = -1, place_ = 0;
  T earlier_[Sums::size + 1];
};

template <class D, class L, class S, int V, int BLOCKS>
__global__ void __launch_bounds__(512 * BLOCKS, 1)
    ring(typename D::Args args, [[maybe_unused]] uint64_t policy, RingWalk walk,
         typename GpuParts<D, S>::Partial partial) {
  using P = GpuParts<D, S>;
  using K = typename P::K;
  using T = typename P::T;
  using Fulls = typename P::Fulls;
  using All = typename P::AllStages;
  using Pack = Packed<S, V>;
  await_kernels_before();
  const int64_t rows = args.rows, cols = args.cols;
  int64_t run = cols;
  if constexpr (has_channels<P>) run = run_length<P>(args);
  const int64_t each_row = quotient(cols, run);
  const auto scalar = P::scalars(args);
  using RowTeam = Team<T, Holders::cluster, joint_values<D>, 512 * BLOCKS>;
  __shared__ typename RowTeam::Exchange exchange;
  RowTeam team(*settled(&exchange));
  const int64_t group = blockIdx.x / team.blocks(), groups = gridDim.x / team.blocks();
  const int thread = threadIdx.x, threads = blockDim.x, warps = threads / 32;
  constexpr int accesses = ring_accesses<P, V, BLOCKS>,
                span = accesses * 32 * V;  // columns of a warp
  const int64_t stretch_at = team.rank() * walk.stretch;
  const int64_t parts = parts_of_channel(run, walk.stretch, warps);

  extern __shared__ __align__(16) unsigned char dynamic[];
  Pack* ring[Fulls::size + 1];
#pragma unroll
  for (int n = 0; n < Fulls::size; ++n)
    ring[n] = settled(reinterpret_cast<Pack*>(dynamic) + n * walk.slots * accesses * threads +
                      thread / 32 * accesses * 32 + thread % 32);

  const auto begin_of = [&](int step) { return (step * warps + thread / 32) * span; };
  const int lane_offset = thread % 32 * V, slot_size = accesses * threads;
  const auto copy = [&](const auto& from, int step, int end, int slot) {
    const int begins = begin_of(step), offset = begins + lane_offset;
    if (sizeof(Pack) == 16 && begins + span <= end) {
#pragma unroll
      for (int n = 0; n < Fulls::size; ++n)
        copy_all_ahead<accesses>(ring[n] + slot * slot_size, from.to[n] + offset, policy);
      return;
    }
#pragma unroll 1
    for (int a = 0; a < accesses; ++a) {  // the row ends within the step
      const int left = end - (offset + a * 32 * V);
      if (left <= 0) return;
#pragma unroll
      for (int n = 0; n < Fulls::size; ++n) {
        Pack* const to = ring[n] + slot * slot_size + a * 32;
        const S* const source = from.to[n] + offset + a * 32 * V;
        if constexpr (sizeof(Pack) == 16)
          copy_ahead_some(to, source, min(V, left) * int(sizeof(S)), policy);
        else if constexpr (copies_ahead<Pack>)
          copy_ahead(to, source, policy);
        else
          *to = load_packed<V>(source);
      }
    }
  };

  Elements<P, V> leaves;
  RowAhead<D, S> values(args, group);
  const auto read_row = [&](int64_t r) {
    if (r < rows) values.read(args, r);
  };
  read_row(group);
  values.begin(args, group + groups);
  auto channels = row_channels<P>(args, group, groups);

  bool down = false;  // whether a stage goes from the last step to the first
  int slot = 0;       // of the next step
  if (group < rows) {
    const RingPart<V> part(group, cols, stretch_at, walk.stretch);
    const typename P::template Starts<Fulls> from(args, group, part.at);
    for (int step = 0; step < walk.slots; ++step) {
      copy(from, step, part.end, step);
      commit_copies();
    }
  }
  for (int64_t r = group; r < rows; r += groups) {
    const RingPart<V> part(r, cols, stretch_at, walk.stretch);
    const RingPart<V> next(min(r + groups, rows - 1), cols, stretch_at, walk.stretch);
    const int64_t next_row = r + groups;
    const typename P::template Starts<Fulls> from(args, r, part.at);
    const typename P::template Starts<Fulls> following(args, min(next_row, rows - 1), next.at);
    typename K::Row row{};
    RowReductions<P> reductions;
    values.take_up(args, row, r + 2 * groups);
    read_row(next_row);
    each(StagesOf<D>{}, [&](auto stage, auto index) {
      using Stage = decltype(stage);
      constexpr bool last = index.value == LastReading<D>::place;
      P::template begin_stage<Stage>(scalar, row);
      const typename P::template Starts<Only<Stage, Role::store>> to(args, r, part.at);
      StreamedStage<P, D, index.value> stream;
      if constexpr (reads_row<Stage>) {
        RingChannel<P, Stage, V> channel(args, partial, part, run, channels.first());
        // The first parts of a channel's sums are those of the first block that has columns of it.
        const auto sum_place = [&](int64_t which) {
          const int64_t begins = which * run + (stretch_at - part.column);
          const int64_t block = team.rank() - quotient(begins, walk.stretch);
          return (group * each_row + which) * parts + block * warps + thread / 32;
        };
        // Takes some accesses, the first of them at an offset.
        const auto take = [&](auto& some, int at) {
          using Some = std::remove_reference_t<decltype(some)>;
#pragma unroll
          for (int n = 0; n < Some::number; ++n) {
            const int offset = at + n * 32 * V;
            P::template unpack_inputs<All>(args, some.full[n], some.raw[n], part.at + offset);
            each(typename P::Spreads{}, [&](auto item, auto k) {
#pragma unroll
              for (int v = 0; v < Some::width; ++v)
                some.full[n][v].*item.field = channel.operands[k];
            });
            P::load_cols(args, scalar, some.col[n], part.column + offset);
          }
          stream.prepare(some, row, scalar);
#pragma unroll
          for (int n = 0; n < Some::number; ++n) {
            const int offset = at + n * 32 * V;
            stream.take(some, n, row, scalar, leaves);
            each(Only<Stage, Role::run_sum>{}, [&](auto sum, auto k) {
              constexpr int place = place_of<decltype(sum), typename P::ColumnSums>;
              channel.sums[k] += folded(leaves.summed[place]);
            });
            each(Only<Stage, Role::col_sum>{}, [&](auto sum, auto) {
              constexpr int place = place_of<decltype(sum), typename P::ColumnSums>;
              add_vector(partial[place] + group * cols + part.column + offset,
                         leaves.summed[place]);
            });
            if constexpr (Some::whole)
              leaves.template store<Stage, true>(to.to, offset);
            else
              leaves.template store_some<Stage>(to.to, offset, some.wanted[n]);
          }
        };
        for (int n = 0; n < walk.steps; ++n) {
          const int left = walk.steps - 1 - n, step = down ? left : n;
          await_copies_but(walk.slots - 1);  // of later steps
          const int begins = begin_of(step), ends = min(begins + span, part.end);
          if (begins < ends) {
            int here = max(begins, part.begin);
            channel.enter(here, sum_place);
            if (here == begins && begins + span <= channel.until) {
              Accesses<P, V, accesses> now;
#pragma unroll
              for (int a = 0; a < accesses; ++a)
                P::take_all(now.raw[a], ring, slot * slot_size + a * 32);
              take(now, begins + lane_offset);
            } else {
              for (; here < ends; here = min(channel.until, ends)) {
                channel.enter(here, sum_place);
                const int stop = min(channel.until, ends);
#pragma unroll 1
                for (int a = 0; a < accesses; ++a) {
                  const int at = begins + a * 32 * V + lane_offset;
                  Accesses<P, V, 1, false> some;
#pragma unroll
                  for (int v = 0; v < V; ++v)
                    some.wanted[0] |= uint32_t(at + v >= here && at + v < stop) << v;
                  if (!some.wanted[0]) continue;
                  P::take_all(some.raw[0], ring, slot * slot_size + a * 32);
                  take(some, at);
                }
              }
            }
          }
          // The slot is free for the step that comes a whole ring later.
          if (left >= walk.slots) {
            copy(from, down ? step - walk.slots : step + walk.slots, part.end, slot);
          } else if (last && next_row < rows) {
            const int further = walk.slots - 1 - left;  // steps into the next row
            copy(following, down ? walk.steps - 1 - further : further, next.end, slot);
          }
          commit_copies();
          if (last || left > 0) {
            slot += down ? -1 : 1;
            slot = slot < 0 ? walk.slots - 1 : slot == walk.slots ? 0 : slot;
          }
        }
        channel.leave();
        if (!last) down = !down;
      }
      stream.finish(team, scalar, row, reductions, cols);
    });
    if (thread == 0 && team.rank() == 0) leave_row<P, V>(args, partial, r, scalar, row, leaves);
    channels.advance();
    values.advance();
  }
  leave_totals<P>(partial, leaves.totals);
}

}  // namespace
}  // namespace fusegen
