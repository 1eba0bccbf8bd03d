// The kernels of windows.h. torch's own ones take three to five times as long as memory does.
//
// Bound: memory, where windows do not overlap.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "fusegen/divisor.h"
#include "fusegen/launch.cuh"
#include "fusegen/storage.h"
#include "fusegen/vector.cuh"
#include "fusegen/windows.h"
#include "fusegen/windows_places.cuh"

namespace fusegen {
namespace {

// Reads the elements of each window.
template <class S, int V, bool LAST, Reading READING>
__global__ void __launch_bounds__(256) read_elements(Windows w, Lines lines) {
  using T = compute_t<S>;
  constexpr bool largest = READING == Reading::largest;
  // Loads of a thread that are in flight: of V channels, or of V places.
  constexpr int batch = LAST ? 4 : 1;
  await_kernels_before();
  Position own;
  if (!find_position<V, LAST>(lines, w.out, w.channels, own)) return;
  const S* const from = static_cast<const S*>(w.from);
  const int64_t to = line_of(w, w.out, own, own.at[0], own.at[1]) + own.at[2] * w.channels;
  const int exist = LAST ? V : w.out[2] - own.at[2];
  const int apart = LAST ? 0 : w.stride[2];  // from one place's window to the next one's
  int begin[3];
#pragma unroll
  for (int k = 0; k < 3; ++k) begin[k] = own.at[k] * w.stride[k] - w.padding[k];
  Vector<T, V> value;
  Vector<uint8_t, V> found{};
  if constexpr (READING == Reading::taken) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (v >= exist) break;
      const int which = w.found[to + v], line = which / w.size[2], c = which % w.size[2];
      const int a = begin[0] + line / w.size[1] * w.dilation[0];
      const int b = begin[1] + line % w.size[1] * w.dilation[1];
      const int64_t at = begin[2] + v * apart + c * w.dilation[2];
      const S* const element = from + line_of(w, w.in, own, a, b) + at * w.channels;
      value.value[v] = Storage<S>::load(element[LAST ? v : 0]);
    }
  } else {
    bool any[V] = {};
#pragma unroll
    for (int v = 0; v < V; ++v) value.value[v] = largest ? -T(INFINITY) : T(0);
    const auto take = [&](int v, T element, int which) {
      if constexpr (largest) {
        // As in torch: the first of equal ones, and the last NaN.
        if (!any[v] || element > value.value[v] || element != element) {
          value.value[v] = element;
          found.value[v] = uint8_t(which);
        }
        any[v] = true;
      } else {
        value.value[v] += element;
      }
    };
    for (int a = 0; a < w.size[0]; ++a) {
      const int at0 = begin[0] + a * w.dilation[0];
      if (uint32_t(at0) >= uint32_t(w.in[0])) continue;
      for (int b = 0; b < w.size[1]; ++b) {
        const int at1 = begin[1] + b * w.dilation[1];
        if (uint32_t(at1) >= uint32_t(w.in[1])) continue;
        const S* const line = from + line_of(w, w.in, own, at0, at1);
        const int which = (a * w.size[1] + b) * w.size[2];
#pragma unroll 1
        for (int first = 0; first < w.size[2]; first += batch) {
          if constexpr (LAST) {
            Packed<S, V> raw[batch];
            bool inside[batch];
#pragma unroll
            for (int i = 0; i < batch; ++i) {
              const int at = begin[2] + (first + i) * w.dilation[2];
              inside[i] = first + i < w.size[2] && uint32_t(at) < uint32_t(w.in[2]);
              if (inside[i]) raw[i] = load_packed<V>(line + at * w.channels);
            }
#pragma unroll
            for (int i = 0; i < batch; ++i) {
              if (!inside[i]) continue;
              const Vector<T, V> elements = unpack(raw[i]);
#pragma unroll
              for (int v = 0; v < V; ++v) take(v, elements.value[v], which + first + i);
            }
          } else {
            S raw[V];
            bool inside[V];
#pragma unroll
            for (int v = 0; v < V; ++v) {
              const int at = begin[2] + v * apart + first * w.dilation[2];
              inside[v] = v < exist && uint32_t(at) < uint32_t(w.in[2]);
              if (inside[v]) raw[v] = line[at];
            }
#pragma unroll
            for (int v = 0; v < V; ++v) {
              if (inside[v]) take(v, Storage<S>::load(raw[v]), which + first);
            }
          }
        }
      }
    }
    if constexpr (!largest) {
      const int plane = count_of(w, 0, own.at[0]) * count_of(w, 1, own.at[1]);
#pragma unroll
      for (int v = 0; v < V; ++v)
        value.value[v] /= T(plane * count_of(w, 2, own.at[2] + (LAST ? 0 : v)));
    }
  }
  if (w.bias) {
    const S* const bias = static_cast<const S*>(w.bias);
#pragma unroll
    for (int v = 0; v < V; ++v)
      value.value[v] +=
          Storage<S>::load(bias[LAST ? own.channel + v : own.sample % w.bias_channels]);
  }
  store_places<LAST>(static_cast<S*>(w.to) + to, value, lines.whole, exist);
  if (largest && w.finds) store_places<LAST>(w.finds + to, found, lines.whole, exist);
}

// Which element of a window of dim k is `steps` after its begin, or -1.
__device__ __forceinline__ int within_window(const Windows& w, int k, int steps) {
  if (steps < 0) return -1;
  if (w.dilation[k] == 1) return steps < w.size[k] ? steps : -1;
  const int found = steps / w.dilation[k];
  return found < w.size[k] && found * w.dilation[k] == steps ? found : -1;
}

// Reads the windows that each element is in.
template <class S, int V, bool LAST, Reading READING>
__global__ void __launch_bounds__(256) read_windows(Windows w, Lines lines) {
  using T = compute_t<S>;
  constexpr bool puts = READING == Reading::put;
  constexpr int width = LAST ? V : 1, batch = LAST ? 2 : 4;  // of a load, and loads in flight
  await_kernels_before();
  Position own;
  if (!find_position<V, LAST>(lines, w.in, w.channels, own)) return;
  const int exist = LAST ? V : w.in[2] - own.at[2];
  int begin[3], first[3], last[3];  // the windows that may have the elements
  const auto window = [&lines](int k, int place) {
    return int(lines.stride[k].quotient(uint32_t(place)));
  };
#pragma unroll
  for (int k = 0; k < 3; ++k) {
    begin[k] = own.at[k] + w.padding[k];
    const int end = begin[k] + (!LAST && k == 2 ? V - 1 : 0);
    const int reach = begin[k] - (w.size[k] - 1) * w.dilation[k];
    first[k] = reach > 0 ? window(k, reach + w.stride[k] - 1) : 0;
    last[k] = min(window(k, end), w.out[k] - 1);
  }
  const S* const from = static_cast<const S*>(w.from);
  Vector<T, V> value{};
  for (int a = first[0]; a <= last[0]; ++a) {
    const int element0 = within_window(w, 0, begin[0] - a * w.stride[0]);
    if (element0 < 0) continue;
    for (int b = first[1]; b <= last[1]; ++b) {
      const int element1 = within_window(w, 1, begin[1] - b * w.stride[1]);
      if (element1 < 0) continue;
      const int64_t line = line_of(w, w.out, own, a, b);
      const int which = (element0 * w.size[1] + element1) * w.size[2];
      const int plane = puts ? 1 : count_of(w, 0, a) * count_of(w, 1, b);
      for (int next = first[2]; next <= last[2]; next += batch) {
        // All of a batch are in flight before any is used.
        Packed<S, width> raw[batch];
        Packed<uint8_t, width> found[batch] = {};
#pragma unroll
        for (int i = 0; i < batch; ++i) {
          if (next + i > last[2]) break;
          const int64_t at = line + (next + i) * w.channels;
          raw[i] = load_packed<width>(from + at);
          if constexpr (puts) found[i] = load_packed<width>(w.found + at);
        }
#pragma unroll
        for (int i = 0; i < batch; ++i) {
          if (next + i > last[2]) break;
          const int steps = begin[2] - (next + i) * w.stride[2];
          const T count = puts ? T(1) : T(plane * count_of(w, 2, next + i));
          Vector<T, width> share = unpack(raw[i]);
#pragma unroll
          for (int v = 0; v < width; ++v) {
            if (!puts) share.value[v] /= count;
          }
#pragma unroll
          for (int v = 0; v < V; ++v) {
            const int of = LAST ? v : 0, element = within_window(w, 2, LAST ? steps : steps + v);
            if (element < 0 || (puts && found[i].value[of] != which + element)) continue;
            value.value[v] += share.value[of];
          }
        }
      }
    }
  }
  const int64_t to = line_of(w, w.in, own, own.at[0], own.at[1]) + own.at[2] * w.channels;
  store_places<LAST>(static_cast<S*>(w.to) + to, value, lines.whole, exist);
}

// Starts the kernel of a reading whose threads have V channels, or places.
template <class S, int V, bool LAST>
const char* start_windows(const Windows& w, Reading reading, bool aligned, cudaStream_t stream) {
  const bool up = reading == Reading::put || reading == Reading::spread;
  const int (&places)[3] = up ? w.in : w.out;
  const int64_t count = w.samples * places[0] * places[1];
  const int64_t across = LAST ? places[2] * (w.channels / V) : (places[2] + V - 1) / V;
  if (count * across * w.channels == 0) return nullptr;
  unsigned side = 1;
  while (side < 256 && side < across) side *= 2;
  const dim3 threads(side, 256 / side);
  const int64_t chunks = (across + side - 1) / side;
  const int64_t blocks = (count + threads.y - 1) / threads.y * chunks;
  bool large = blocks >> 31 || count >> 31 || across >> 31;
  Lines lines{
      uint32_t(count), uint32_t(across), uint32_t(chunks), aligned && places[2] % V == 0, {}};
  for (int k = 0; k < 3; ++k) {
    lines.stride[k] = SmallDivisor(w.stride[k]);
    large = large || (int64_t(w.in[k]) + 2 * int64_t(w.padding[k]) + w.stride[k] + V) >> 31;
  }
  if (large) return "a tensor is too large for its windows";
  const auto started = [&](auto* kernel) {
    const cudaError_t error = launch(kernel, stream, unsigned(blocks), threads, 0, 1, w, lines);
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
  };
  switch (reading) {
    case Reading::largest:
      return started(read_elements<S, V, LAST, Reading::largest>);
    case Reading::mean:
      return started(read_elements<S, V, LAST, Reading::mean>);
    case Reading::taken:
      return started(read_elements<S, V, LAST, Reading::taken>);
    case Reading::put:
      return started(read_windows<S, V, LAST, Reading::put>);
    default:
      return started(read_windows<S, V, LAST, Reading::spread>);
  }
}

}  // namespace

template <class S>
const char* windows_cuda(const Windows& windows, Reading reading, void* stream) {
  constexpr int wide = 16 / sizeof(S), places = std::min(wide, 4);
  const auto on = static_cast<cudaStream_t>(stream);
  const auto aligned = [&](int width) {
    const auto is = [](const void* at, int bytes) {
      return reinterpret_cast<uintptr_t>(at) % bytes == 0;
    };
    return is(windows.from, width * int(sizeof(S))) && is(windows.to, width * int(sizeof(S))) &&
           is(windows.found, width) && is(windows.finds, width);
  };
  if (windows.channels == 1)
    return start_windows<S, places, false>(windows, reading, aligned(places), on);
  if (windows.channels % wide == 0 && aligned(wide))
    return start_windows<S, wide, true>(windows, reading, true, on);
  return start_windows<S, 1, true>(windows, reading, true, on);
}

#if defined(FUSEGEN_STORED)
template const char* windows_cuda<FUSEGEN_STORED>(const Windows&, Reading, void*);
#endif

}  // namespace fusegen
