// Finds the channel of an element, for operands and sums with one value per channel. A row begins
// at the start of a channel, and each channel has `run` adjacent columns. Divisions are done once
// per row, or once for a thread's columns; each element then costs one addition.
#pragma once

#include <cstdint>

#include "fusegen/dtype.h"
#include "fusegen/vector.cuh"

namespace fusegen {

// The channels of every `step`-th row, beginning with row `row`.
class RowChannels {
 public:
  __device__ __forceinline__ RowChannels(int64_t row, int64_t step, int64_t cols, int64_t run,
                                         int64_t channels)
      : run_(run), channels_(channels) {
    const int64_t each = cols / run;
    first_ = int(row * each % channels);
    step_ = int(step * each % channels);
  }

  // The channel of column c in the current row.
  __device__ __forceinline__ int at(int64_t c) const { return first_ + further(c); }
  // The current row's first channel, and the distance in channels from there to column c.
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

// Walks over a thread's columns, which are `apart` columns from each other, and counts their
// channel from the row's first channel.
class ChannelWalk {
 public:
  __device__ __forceinline__ ChannelWalk(int column, int apart, int64_t run)
      : run_(int(run)),
        channel_(column / run_),
        within_(column % run_),
        channels_(apart / run_),
        rest_(apart % run_) {}

  // The same walk, made opaque to the compiler. Otherwise it would see that a second walk repeats
  // the first, and keep all the channels in registers.
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

// Returns one channel value for each of the columns c … c + V - 1, where c is a multiple of V. The
// first column belongs to `channel`; a new channel begins at each multiple of `run`. WHOLE promises
// that runs are multiples of V, so all V columns share one channel.
template <int V, bool WHOLE = false, class S>
__device__ __forceinline__ auto spread_vector(const S* data, int64_t channel, int64_t c,
                                              int64_t run, int64_t channels) {
  using T = decltype(load(data));
  Vector<T, V> spread;
  if (V == 1 || WHOLE || run % V == 0) {  // all columns share one channel
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
