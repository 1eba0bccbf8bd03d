// The kernels of windows.h. torch's own ones take three to five times as long as memory does.
//
// A thread has V adjacent channels of a window, or of an element, and has up to four loads in
// flight. Rows of places are dealt to blocks of 256 threads, several to a block if they are short.
// Bound: memory, where windows do not overlap.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "fusegen/launch.cuh"
#include "fusegen/storage.h"
#include "fusegen/vector.cuh"
#include "fusegen/windows.h"

namespace fusegen {
namespace {

// How the rows of places are dealt to blocks: `chunks` blocks side by side have `across` threads.
struct RowsOfPlaces {
  uint32_t rows, across, chunks;
};

// What a thread has: a place of a sample, and its first channel.
struct Position {
  int64_t sample, channel;
  int at[3];
};

// Finds the thread's position among places of some sizes. Returns whether there is one.
__device__ __forceinline__ bool find_position(const RowsOfPlaces& deal, const int (&places)[3],
                                              uint32_t lanes, int width, Position& found) {
  const uint32_t row = blockIdx.x / deal.chunks * blockDim.y + threadIdx.y;
  const uint32_t item = blockIdx.x % deal.chunks * blockDim.x + threadIdx.x;
  if (row >= deal.rows || item >= deal.across) return false;
  const uint32_t column = item / lanes, plane = row / uint32_t(places[1]);
  found.channel = int64_t(item - column * lanes) * width;
  found.at[2] = int(column);
  found.at[1] = int(row - plane * uint32_t(places[1]));
  found.sample = plane / uint32_t(places[0]);
  found.at[0] = int(plane - uint32_t(found.sample) * uint32_t(places[0]));
  return true;
}

// Where the numbers of a place begin, in a tensor with so many places.
__device__ __forceinline__ int64_t offset_of(const Windows& w, const int (&places)[3],
                                             const Position& p, int a, int b, int c) {
  return (((p.sample * places[0] + a) * places[1] + b) * places[2] + c) * w.channels + p.channel;
}

// Of how many elements a window's mean is.
__device__ __forceinline__ int count_of(const Windows& w, const int (&window)[3]) {
  int count = 1;
#pragma unroll
  for (int k = 0; k < 3; ++k) {
    const int begin = window[k] * w.stride[k] - w.padding[k];
    const int end = min(begin + w.size[k], w.in[k] + w.padding[k]);
    count *= w.counts_padding ? end - begin : min(end, w.in[k]) - max(begin, 0);
  }
  return count;
}

// Reads the elements of each window.
template <class S, int V, Reading READING>
__global__ void __launch_bounds__(256) read_elements(Windows w, RowsOfPlaces deal) {
  using T = compute_t<S>;
  constexpr int in_flight = 4;
  await_kernels_before();
  Position own;
  if (!find_position(deal, w.out, uint32_t(w.channels / V), V, own)) return;
  const S* const from = static_cast<const S*>(w.from);
  const int64_t to = offset_of(w, w.out, own, own.at[0], own.at[1], own.at[2]);
  int begin[3];
#pragma unroll
  for (int k = 0; k < 3; ++k) begin[k] = own.at[k] * w.stride[k] - w.padding[k];
  Vector<T, V> value;
  Packed<uint8_t, V> found{};
  if constexpr (READING == Reading::taken) {
    found = load_packed<V>(w.found + to);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int line = found.value[v] / w.size[2], c = found.value[v] % w.size[2];
      const int a = line / w.size[1], b = line % w.size[1];
      const int64_t at = offset_of(w, w.in, own, begin[0] + a * w.dilation[0],
                                   begin[1] + b * w.dilation[1], begin[2] + c * w.dilation[2]);
      value.value[v] = Storage<S>::load(from[at + v]);
    }
  } else {
    constexpr bool largest = READING == Reading::largest;
    bool any = false;
#pragma unroll
    for (int v = 0; v < V; ++v) value.value[v] = largest ? -T(INFINITY) : T(0);
    const int all = w.size[0] * w.size[1] * w.size[2];
    int next[3] = {0, 0, 0};  // the element of the window that is loaded next
#pragma unroll 1
    for (int first = 0; first < all; first += in_flight) {
      Packed<S, V> raw[in_flight];
      bool inside[in_flight];
#pragma unroll
      for (int i = 0; i < in_flight; ++i) {
        int at[3];
        inside[i] = first + i < all;
#pragma unroll
        for (int k = 0; k < 3; ++k) {
          at[k] = begin[k] + next[k] * w.dilation[k];
          inside[i] = inside[i] && at[k] >= 0 && at[k] < w.in[k];
        }
        if (inside[i]) raw[i] = load_packed<V>(from + offset_of(w, w.in, own, at[0], at[1], at[2]));
        if (++next[2] == w.size[2]) {
          next[2] = 0;
          if (++next[1] == w.size[1]) {
            next[1] = 0;
            ++next[0];
          }
        }
      }
#pragma unroll
      for (int i = 0; i < in_flight; ++i) {
        if (!inside[i]) continue;
        const Vector<T, V> element = unpack(raw[i]);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const T e = element.value[v];
          if constexpr (largest) {
            // As in torch: the first of equal ones, and the last NaN.
            if (!any || e > value.value[v] || e != e) {
              value.value[v] = e;
              found.value[v] = uint8_t(first + i);
            }
          } else {
            value.value[v] += e;
          }
        }
        any = true;
      }
    }
    if constexpr (!largest) {
      const T count = T(count_of(w, own.at));
#pragma unroll
      for (int v = 0; v < V; ++v) value.value[v] /= count;
    }
  }
  if (w.bias) {
    const S* const bias = static_cast<const S*>(w.bias);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int64_t channel = w.channels == 1 ? own.sample % w.bias_channels : own.channel + v;
      value.value[v] += Storage<S>::load(bias[channel]);
    }
  }
  store_vector(static_cast<S*>(w.to) + to, value);
  if constexpr (READING == Reading::largest) {
    if (w.finds) *reinterpret_cast<Packed<uint8_t, V>*>(w.finds + to) = found;
  }
}

// Reads the windows that each element is in.
template <class S, int V, Reading READING>
__global__ void __launch_bounds__(256) read_windows(Windows w, RowsOfPlaces deal) {
  using T = compute_t<S>;
  await_kernels_before();
  Position own;
  if (!find_position(deal, w.in, uint32_t(w.channels / V), V, own)) return;
  int first[3], last[3];  // the windows that may have the element
#pragma unroll
  for (int k = 0; k < 3; ++k) {
    const int at = own.at[k] + w.padding[k], reach = at - (w.size[k] - 1) * w.dilation[k];
    first[k] = reach > 0 ? (reach + w.stride[k] - 1) / w.stride[k] : 0;
    last[k] = min(at / w.stride[k], w.out[k] - 1);
  }
  const S* const from = static_cast<const S*>(w.from);
  Vector<T, V> value{};
  for (int a = first[0]; a <= last[0]; ++a) {
    for (int b = first[1]; b <= last[1]; ++b) {
      for (int c = first[2]; c <= last[2]; ++c) {
        const int window[3] = {a, b, c};
        int place = 0;  // of the element in the window
        bool among = true;
#pragma unroll
        for (int k = 0; k < 3; ++k) {
          const int steps = own.at[k] + w.padding[k] - window[k] * w.stride[k];
          among = among && (w.dilation[k] == 1 || steps % w.dilation[k] == 0);
          place = place * w.size[k] + (w.dilation[k] == 1 ? steps : steps / w.dilation[k]);
        }
        if (!among) continue;
        const int64_t at = offset_of(w, w.out, own, a, b, c);
        const Vector<T, V> gradient = unpack(load_packed<V>(from + at));
        if constexpr (READING == Reading::put) {
          const Packed<uint8_t, V> found = load_packed<V>(w.found + at);
#pragma unroll
          for (int v = 0; v < V; ++v) {
            if (found.value[v] == place) value.value[v] += gradient.value[v];
          }
        } else {
          const T count = T(count_of(w, window));
#pragma unroll
          for (int v = 0; v < V; ++v) value.value[v] += gradient.value[v] / count;
        }
      }
    }
  }
  const int64_t to = offset_of(w, w.in, own, own.at[0], own.at[1], own.at[2]);
  store_vector(static_cast<S*>(w.to) + to, value);
}

// Starts the kernel of a reading whose threads have V channels.
template <class S, int V>
const char* start_windows(const Windows& w, Reading reading, cudaStream_t stream) {
  const bool up = reading == Reading::put || reading == Reading::spread;
  const int (&places)[3] = up ? w.in : w.out;
  const int64_t rows = w.samples * places[0] * places[1], across = places[2] * (w.channels / V);
  if (rows * across == 0) return nullptr;
  unsigned side = 1;
  while (side < 256 && side < across) side *= 2;
  const dim3 threads(side, 256 / side);
  const int64_t chunks = (across + side - 1) / side;
  const int64_t blocks = (rows + threads.y - 1) / threads.y * chunks;
  if (blocks >> 31 || rows >> 31 || across >> 31) return "a tensor is too large for its windows";
  const RowsOfPlaces deal{uint32_t(rows), uint32_t(across), uint32_t(chunks)};
  const auto started = [&](auto* kernel) {
    const cudaError_t error = launch(kernel, stream, unsigned(blocks), threads, 0, 1, w, deal);
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
  };
  switch (reading) {
    case Reading::largest:
      return started(read_elements<S, V, Reading::largest>);
    case Reading::mean:
      return started(read_elements<S, V, Reading::mean>);
    case Reading::taken:
      return started(read_elements<S, V, Reading::taken>);
    case Reading::put:
      return started(read_windows<S, V, Reading::put>);
    default:
      return started(read_windows<S, V, Reading::spread>);
  }
}

}  // namespace

template <class S>
const char* windows_cuda(const Windows& windows, Reading reading, void* stream) {
  constexpr int wide = 16 / sizeof(S);
  const auto on = static_cast<cudaStream_t>(stream);
  const auto aligned_to = [](const void* at, int bytes) {
    return reinterpret_cast<uintptr_t>(at) % bytes == 0;
  };
  const bool vectors = windows.channels % wide == 0 && aligned_to(windows.from, 16) &&
                       aligned_to(windows.to, 16) && aligned_to(windows.found, wide) &&
                       aligned_to(windows.finds, wide);
  return vectors ? start_windows<S, wide>(windows, reading, on)
                 : start_windows<S, 1>(windows, reading, on);
}

#if defined(FUSEGEN_STORED)
template const char* windows_cuda<FUSEGEN_STORED>(const Windows&, Reading, void*);
#endif

}  // namespace fusegen
