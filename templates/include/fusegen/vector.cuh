// How a thread reads and writes neighbouring elements: V of them in one access of up to 16 bytes,
// or 32.
#pragma once

#include <cstdint>
#include <type_traits>

#include "fusegen/storage.h"
#include "fusegen/random.h"

namespace fusegen {

// V neighbouring elements in the type they are computed in.
template <class T, int V>
struct Vector {
  T value[V];
};

// V neighbouring elements as they are stored.
template <class S, int V>
struct alignas(sizeof(S) * V) Packed {
  S value[V];
};

// Elements of a piece: what lies between two boundaries of 16 bytes.
template <class S>
constexpr int piece = 16 / int(sizeof(S));
// How many elements an address is after a boundary of 16 bytes.
template <class S>
__device__ __forceinline__ int after_boundary(const S* at) {
  return int(uint32_t(reinterpret_cast<uintptr_t>(at)) / sizeof(S)) & (piece<S> - 1);
}

// Reads V neighbouring elements in one access.
template <int V, class S>
__device__ __forceinline__ Packed<S, V> load_packed(const S* from) {
  return *reinterpret_cast<const Packed<S, V>*>(from);
}

// Converts packed elements to the type they are computed in.
template <class S, int V>
__device__ __forceinline__ Vector<compute_t<S>, V> unpack(const Packed<S, V>& packed) {
  Vector<compute_t<S>, V> loaded;
  if constexpr (std::is_same_v<S, bfloat16> && V % 2 == 0) {
    // A word holds two elements. The upper one is already in place: it costs one instruction, not
    // two.
    const auto* words = reinterpret_cast<const uint32_t*>(&packed);
#pragma unroll
    for (int w = 0; w < V / 2; ++w) {
      loaded.value[2 * w] = bit_cast<float>(words[w] << 16);
      loaded.value[2 * w + 1] = bit_cast<float>(words[w] & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) loaded.value[v] = Storage<S>::load(packed.value[v]);
  }
  return loaded;
}

// Reads and converts V neighbouring elements.
template <int V, class S>
__device__ __forceinline__ Vector<compute_t<S>, V> load_vector(const S* from) {
  return unpack(load_packed<V>(from));
}

// Converts and stores V neighbouring elements.
template <int V, class S>
__device__ __forceinline__ void store_vector(S* to, const Vector<compute_t<S>, V>& from) {
  Packed<S, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v) packed.value[v] = Storage<S>::store(from.value[v]);
  *reinterpret_cast<Packed<S, V>*>(to) = packed;
}

// Adds V numbers to those at `to`, in accesses of up to 16 bytes.
template <class T, int V>
__device__ __forceinline__ void add_vector(T* to, const Vector<T, V>& from) {
  constexpr int width = V * sizeof(T) <= 16 ? V : 16 / sizeof(T);
#pragma unroll
  for (int k = 0; k < V; k += width) {
    auto& chunk = *reinterpret_cast<Packed<T, width>*>(to + k);
    Packed<T, width> sum = chunk;
#pragma unroll
    for (int w = 0; w < width; ++w) sum.value[w] += from.value[k + w];
    chunk = sum;
  }
}

// Stores a vector in a single access. After a condition, the compiler may split `store_vector` into
// single elements.
template <int V, class S>
__device__ __forceinline__ void store_at_once(S* to, const Vector<compute_t<S>, V>& from) {
  constexpr int bytes = sizeof(S) * V;
  if constexpr (bytes == 8 || bytes == 16) {
    Packed<S, V> packed;
#pragma unroll
    for (int v = 0; v < V; ++v) packed.value[v] = Storage<S>::store(from.value[v]);
    const auto words = bit_cast<Packed<uint32_t, bytes / 4>>(packed);
    if constexpr (bytes == 8) {
      asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(words.value[0]),
                   "r"(words.value[1]));
    } else {
      asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words.value[0]),
                   "r"(words.value[1]), "r"(words.value[2]), "r"(words.value[3]));
    }
  } else {
    store_vector(to, from);
  }
}

// Makes the compiler forget what it knows about a packed vector. It then recomputes values from the
// vector, instead of keeping them in registers.
template <class S, int V>
__device__ __forceinline__ void forget(Packed<S, V>& packed) {
  if constexpr (sizeof(packed) % 4 == 0) {
    auto* words = reinterpret_cast<uint32_t*>(&packed);
#pragma unroll
    for (int w = 0; w < int(sizeof(packed) / 4); ++w) asm volatile("" : "+r"(words[w]));
  }
}

// Hides from the compiler that it has seen this number before. It then recomputes what depends on
// the number, instead of keeping it in registers.
__device__ __forceinline__ uint32_t opaque(uint32_t number) {
  asm volatile("" : "+r"(number));
  return number;
}

// Makes the compiler keep an index that it would otherwise recompute, with multiplications, at each
// use.
__device__ __forceinline__ int64_t opaque(int64_t index) {
  asm("" : "+l"(index));
  return index;
}

// The same for an address in shared memory, which takes five instructions to compute.
template <class T>
__device__ __forceinline__ T* settled(T* shared) {
  const uint32_t address = opaque(static_cast<uint32_t>(__cvta_generic_to_shared(shared)));
  return static_cast<T*>(__cvta_shared_to_generic(address));
}

// The sum of a vector's elements, added in pairs.
template <class T, int V>
__device__ __forceinline__ T folded(const Vector<T, V>& values) {
  Vector<T, V> sums = values;
#pragma unroll
  for (int half = V / 2; half > 0; half /= 2) {
#pragma unroll
    for (int v = 0; v < half; ++v) sums.value[v] += sums.value[v + half];
  }
  return sums.value[0];
}

// The uniform random numbers of elements index … index + V - 1; index is a multiple of V.
template <class T, int V>
__device__ __forceinline__ Vector<T, V> draw_vector(uint64_t seed, uint32_t stream,
                                                    uint64_t index) {
  static_assert(V == 16 || V == 8 || V <= 4, "one call of philox serves eight elements");
  Vector<T, V> drawn;
  if constexpr (V == 1) {
    drawn.value[0] = T(uniform(seed, stream, index));
  } else if constexpr (V > 8) {
#pragma unroll
    for (int part = 0; part < V; part += 8) {
      const auto eight = draw_vector<T, 8>(seed, stream, index + part);
#pragma unroll
      for (int v = 0; v < 8; ++v) drawn.value[part + v] = eight.value[v];
    }
  } else {
    const Bits bits = philox(seed, stream, index / 8);
    uint32_t word[V / 2];
#pragma unroll
    for (int k = 0; k < V / 2; ++k) {
      word[k] = bits.word[k];
      if constexpr (V == 4) word[k] = index & 4 ? bits.word[k + 2] : word[k];
    }
    if constexpr (V == 2) {
      const uint32_t low = index & 2 ? bits.word[1] : bits.word[0];
      const uint32_t high = index & 2 ? bits.word[3] : bits.word[2];
      word[0] = index & 4 ? high : low;
    }
#pragma unroll
    for (int k = 0; k < V / 2; ++k) {
      drawn.value[2 * k] = T(low_uniform(word[k]));
      drawn.value[2 * k + 1] = T(high_uniform(word[k]));
    }
  }
  return drawn;
}

}  // namespace fusegen
