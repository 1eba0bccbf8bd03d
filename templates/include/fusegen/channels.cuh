// Finds the channel of an element, for operands and sums with one value per channel. A row begins
// at the start of a channel, and each channel has `run` adjacent columns. Divisions are done once
// per row, or once for a thread's columns; each element then costs one addition.
#pragma once

#include <cstdint>

#include "fusegen/storage.h"
#include "fusegen/vector.cuh"

namespace fusegen {

// The quotient of two numbers from 0 to 2^63 - 1, of which the divisor is not 0. Four times faster
// below 2^31. The type of both says whether they are known to be.
__device__ __forceinline__ int64_t quotient(int64_t a, int64_t b) {
  return (a | b) >> 31 ? a / b : int64_t(uint32_t(a) / uint32_t(b));
}
__device__ __forceinline__ int quotient(int a, int b) {
  return int(uint32_t(a) / uint32_t(b));
}

// The channels of every `step`-th row, beginning with row `row`. The rows that follow each other
// take turns at the channels, `cols / run` at a time.
template <class Index>
class RowChannels {
 public:
  __device__ __forceinline__ RowChannels(Index row, Index step, Index cols, Index run,
                                         Index channels)
      : run_(run), channels_(int(channels)) {
    const Index each = max(quotient(cols, run), Index(1)), turns = quotient(channels, each);
    const auto turn = [&](Index rows) {
      return int((rows - quotient(rows, turns) * turns) * each);
    };
    first_ = turn(row);
    step_ = step ? turn(step) : 0;
  }

  // The channel of column c in the current row.
  __device__ __forceinline__ int at(Index c) const { return first_ + further(c); }
  // The current row's first channel, and the distance in channels from there to column c.
  __device__ __forceinline__ int first() const { return first_; }
  __device__ __forceinline__ int further(Index c) const {
    return int(run_ == 1 ? c : quotient(c, run_));
  }

  __device__ __forceinline__ void advance() {
    first_ += step_;
    if (first_ >= channels_) first_ -= channels_;
  }

 private:
  const Index run_;
  const int channels_;
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
// that runs are multiples of V, so all V columns share one channel. ANYWHERE: c need not be a
// multiple of V, and only the first `valid` columns need exist.
template <int V, bool WHOLE = false, bool ANYWHERE = false, class S, class Index>
__device__ __forceinline__ auto spread_vector(const S* data, int channel, Index c, Index run,
                                              int valid) {
  using T = decltype(load(data));
  const S* from = data + channel;
  Vector<T, V> spread;
  if (V == 1 || WHOLE || (!ANYWHERE && run % V == 0)) {  // all columns share one channel
    const T value = load(from);
#pragma unroll
    for (int v = 0; v < V; ++v) spread.value[v] = value;
  } else if (run == 1 && valid >= V &&
             reinterpret_cast<uintptr_t>(from) % sizeof(Packed<S, V>) == 0) {
    spread = load_vector<V>(from);  // each has one of its own
  } else {
    Index until = run == 1 ? 1 : run - (c - quotient(c, run) * run);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (until == 0) {
        until = run;
        ++from;
      }
      spread.value[v] = v < valid ? load(from) : T(0);
      --until;
    }
  }
  return spread;
}

}  // namespace fusegen
