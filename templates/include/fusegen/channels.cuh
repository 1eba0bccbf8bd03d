// Which channel an element is of, where a number serves all elements of a channel: a row begins at
// a channel, and its columns go on to others, each of `run` columns. So an element takes an
// addition, and a row, or a thread's columns, the divisions.
#pragma once

#include <cstdint>

#include "fusegen/dtype.h"
#include "fusegen/vector.cuh"

namespace fusegen {

// The channels of every `step`-th row, from row `row` on.
class RowChannels {
 public:
  __device__ __forceinline__ RowChannels(int64_t row, int64_t step, int64_t cols, int64_t run,
                                         int64_t channels)
      : run_(run), channels_(channels) {
    const int64_t each = cols / run;
    first_ = int(row * each % channels);
    step_ = int(step * each % channels);
  }

  // The channel of the present row's column c.
  __device__ __forceinline__ int at(int64_t c) const { return first_ + further(c); }
  // The present row's first channel, and how many channels further column c is in any row.
  __device__ __forceinline__ int first() const { return first_; }
  __device__ __forceinline__ int further(int64_t c) const {
    return int(channel_of(c, run_, channels_));
  }

  __device__ __forceinline__ void advance() {
    first_ += step_;
    if (first_ >= int(channels_)) first_ -= int(channels_);
  }

 private:
  const int64_t run_, channels_;
  int first_, step_;
};

// How many channels after its row's first a thread's columns are, each `apart` after the one
// before.
class ChannelWalk {
 public:
  __device__ __forceinline__ ChannelWalk(int column, int apart, int64_t run)
      : run_(int(run)),
        channel_(column / run_),
        within_(column % run_),
        channels_(apart / run_),
        rest_(apart % run_) {}

  // The same walk, of which the compiler does not know that it has been walked before: all its
  // channels would be kept in registers.
  __device__ __forceinline__ ChannelWalk anew() const {
    ChannelWalk walk = *this;
    walk.channel_ = int(opaque(uint32_t(channel_)));
    walk.within_ = int(opaque(uint32_t(within_)));
    return walk;
  }

  __device__ __forceinline__ int channel() const { return channel_; }

  __device__ __forceinline__ void advance() {
    channel_ += channels_;
    within_ += rest_;
    if (within_ >= run_) {
      within_ -= run_;
      ++channel_;
    }
  }

 private:
  int run_, channel_, within_, channels_, rest_;
};

// What each of the columns c … c + V - 1, a multiple of V, has of its channel: the first of them is
// of `channel`, and the next channel begins where c is a multiple of `run`; WHOLE: as all runs are
// of V, it is known that all are of one.
template <int V, bool WHOLE = false, class S>
__device__ __forceinline__ auto spread_vector(const S* data, int64_t channel, int64_t c,
                                              int64_t run, int64_t channels) {
  using T = decltype(load(data));
  Vector<T, V> spread;
  if (V == 1 || WHOLE || run % V == 0) {  // all are of one channel
    const T value = load(data + channel);
#pragma unroll
    for (int v = 0; v < V; ++v) spread.value[v] = value;
  } else {
    int64_t until = run - c % run;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (until == 0) {
        until = run;
        channel = channel + 1 == channels ? 0 : channel + 1;
      }
      spread.value[v] = load(data + channel);
      --until;
    }
  }
  return spread;
}

}  // namespace fusegen
