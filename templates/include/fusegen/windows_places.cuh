// How threads share the places of windows.cuh: where each has its own, and what it stores there.
//
// A thread has V adjacent channels of a place, if the tensors are channels-last, or else V adjacent
// places of a line, which read what they share from the L1 cache. Lines are dealt to blocks of 256
// threads, several to a block if they are short.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "fusegen/divisor.h"
#include "fusegen/storage.h"
#include "fusegen/vector.cuh"
#include "fusegen/windows.h"

namespace fusegen {
namespace {

// How the lines of places are dealt to blocks: `chunks` blocks side by side have `across` threads.
struct Lines {
  uint32_t count, across, chunks;
  bool whole;  // V places divide a line, and all its accesses are aligned
  SmallDivisor stride[3];
};

// What a thread has: the first of its places in a sample, and its first channel.
struct Position {
  int64_t sample, channel;
  int at[3];
};

// Finds the thread's position among places of some sizes. Returns whether there is one.
template <int V, bool LAST>
__device__ __forceinline__ bool find_position(const Lines& lines, const int (&places)[3],
                                              int64_t channels, Position& found) {
  const uint32_t line = blockIdx.x / lines.chunks * blockDim.y + threadIdx.y;
  const uint32_t item = blockIdx.x % lines.chunks * blockDim.x + threadIdx.x;
  if (line >= lines.count || item >= lines.across) return false;
  const uint32_t lanes = LAST ? uint32_t(channels / V) : 1;
  const uint32_t column = item / lanes, plane = line / uint32_t(places[1]);
  found.channel = LAST ? int64_t(item - column * lanes) * V : 0;
  found.at[2] = LAST ? int(column) : int(column) * V;
  found.at[1] = int(line - plane * uint32_t(places[1]));
  found.sample = plane / uint32_t(places[0]);
  found.at[0] = int(plane - uint32_t(found.sample) * uint32_t(places[0]));
  return true;
}

// Where the line of a place begins, in a tensor with so many places.
__device__ __forceinline__ int64_t line_of(const Windows& w, const int (&places)[3],
                                           const Position& p, int a, int b) {
  return ((p.sample * places[0] + a) * places[1] + b) * places[2] * w.channels + p.channel;
}

// Of how many elements of dim k a window's mean is.
__device__ __forceinline__ int count_of(const Windows& w, int k, int window) {
  const int begin = window * w.stride[k] - w.padding[k];
  const int end = min(begin + w.size[k], w.in[k] + w.padding[k]);
  return w.counts_padding ? end - begin : min(end, w.in[k]) - max(begin, 0);
}

// Stores what a thread has: V channels, or those of V places that exist.
template <bool LAST, int V, class S, class T>
__device__ __forceinline__ void store_places(S* to, const Vector<T, V>& value, bool whole,
                                             int exist) {
  if (LAST || whole) {
    store_vector(to, value);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (v < exist) to[v] = Storage<S>::store(value.value[v]);
    }
  }
}

}  // namespace
}  // namespace fusegen
