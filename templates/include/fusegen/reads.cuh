// How a kernel reads the tensors that its rows are of: under a policy of the second-level cache,
// and ahead of their turn.
#pragma once

#include <cstdint>

#include "fusegen/vector.cuh"

namespace fusegen {

// Longer than two thirds of the second-level cache of any chip so far: an H200 has 60 MB, a B200
// 126.
constexpr int64_t beyond_cache = int64_t(96) << 20;

// How to read tensors of so many bytes each, as a word of PTX's `createpolicy` for all of what is
// read: `evict_normal`, or, of tensors that the cache cannot hold anyway, `evict_last`. Results
// leave it first then, in the order in which they were written, and the whole takes 1 to 3 % less
// time (docs/notes/2026-11-22_l2_policy.md). What is shorter may be read again soon, and so may
// what is written beside it. The host chooses: a word from the kernel's parameters takes no
// registers.
inline uint64_t read_policy(int64_t bytes) {
  return bytes < beyond_cache ? 0x16f0000000000000 : 0x14f0000000000000;
}

// V neighbouring elements, read under a policy; by what `cuda::associate_access_property` calls.
// From compute capability 10.0 on without one: nvcc 13.0 breaks off at some of them there.
template <int V, class S>
__device__ __forceinline__ Packed<S, V> load_packed(const S* from,
                                                    [[maybe_unused]] uint64_t policy) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 1000
  from = static_cast<const S*>(__nv_associate_access_property(from, policy));
#endif
  return load_packed<V>(from);
}

// Whether `copy_ahead` can copy a packed vector.
template <class Pack>
constexpr bool copies_ahead = sizeof(Pack) == 4 || sizeof(Pack) == 8 || sizeof(Pack) == 16;

// Copies a packed vector to shared memory while the thread goes on, through the first-level cache:
// for what other threads of the block read too. Only the thread that asked reads the copy, after
// `await_copies`, so that no barrier is needed.
template <class Pack>
__device__ __forceinline__ void copy_ahead_cached(Pack* shared, const void* global) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(sizeof(Pack))
               : "memory");
}

// The same under a policy, and past that cache, where the vector has 16 bytes. The place is no
// plain sum: ptxas 13.0 makes an illegal instruction of a copy with a policy to the sum of a
// thread's place and a uniform one, `LDGSTS [R+UR], desc[UR1]`. A policy's lower half is 0, which
// ptxas cannot know.
template <class Pack>
__device__ __forceinline__ void copy_ahead(Pack* shared, const void* global,
                                           [[maybe_unused]] uint64_t policy) {
  if constexpr (sizeof(Pack) == 16) {
    const uint32_t to =
        static_cast<uint32_t>(__cvta_generic_to_shared(shared)) | static_cast<uint32_t>(policy);
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(to),
                 "l"(global), "l"(policy)
                 : "memory");
  } else {
    copy_ahead_cached(shared, global);
  }
}

__device__ __forceinline__ void await_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

}  // namespace fusegen
