// How a kernel reads its tensors: with an L2 cache policy, and by copying them ahead.
#pragma once

#include <cstdint>

#include "fusegen/vector.cuh"

namespace fusegen {

// More bytes than two thirds of any chip's L2 cache so far: an H200 has 60 MB, a B200 126.
constexpr int64_t beyond_cache = int64_t(96) << 20;

// How to read tensors of `bytes` bytes each, encoded like the result of PTX's `createpolicy` for
// all accesses. Usually that is `evict_normal`. Tensors that exceed the cache are read with
// `evict_last`: the cache then evicts results first, in the order in which they were written, and
// the kernel takes 1 to 3 % less time (docs/notes/2026-11-22_l2_policy.md). Smaller tensors, and
// results written beside them, may be read again soon. The host chooses, because a word from the
// kernel's parameters takes no registers.
inline uint64_t read_policy(int64_t bytes) {
  return bytes < beyond_cache ? 0x16f0000000000000 : 0x14f0000000000000;
}

// Reads V neighbouring elements with a policy, through the function that
// `cuda::associate_access_property` calls. From compute capability 10.0 on it uses no policy: nvcc
// 13.0 aborts on some such reads there.
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

// Starts an asynchronous copy of a packed vector to shared memory, through the L1 cache: use it for
// data that other threads of the block read too. Only the thread that started the copy reads it,
// after `await_copies`, so no barrier is needed.
template <class Pack>
__device__ __forceinline__ void copy_ahead_cached(Pack* shared, const void* global) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(sizeof(Pack))
               : "memory");
}

// Where in shared memory copies of 16 bytes with a policy go to. It is deliberately not a plain
// sum. ptxas 13.0 makes an illegal instruction of a copy with a policy to the sum of a thread's
// address and a uniform one: `LDGSTS [R+UR], desc[UR1]`. The lower half of a policy is 0, which
// ptxas cannot know.
template <class Pack>
__device__ __forceinline__ uint32_t copy_place(Pack* shared, uint64_t policy) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared)) | static_cast<uint32_t>(policy);
}
// Starts a copy of 16 bytes with a policy, bypassing L1: to AT bytes after such a place, from AT
// bytes after an address.
template <int AT>
__device__ __forceinline__ void copy_ahead_at(uint32_t to, const void* global, uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0+%3], [%1+%3], 16, %2;" ::"r"(to),
               "l"(global), "l"(policy), "n"(AT)
               : "memory");
}
// The same for no more than the first `bytes` of 16, followed by zeros. compute-sanitizer takes it
// for a read of all 16: with FUSEGEN_WATCHED it copies byte by byte.
template <class Pack>
__device__ __forceinline__ void copy_ahead_some(Pack* shared, const void* global, int bytes,
                                                [[maybe_unused]] uint64_t policy) {
#ifdef FUSEGEN_WATCHED
  for (int i = 0; i < 16; ++i) {
    reinterpret_cast<char*>(shared)[i] = i < bytes ? static_cast<const char*>(global)[i] : 0;
  }
#else
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(
                   copy_place(shared, policy)),
               "l"(global), "r"(bytes), "l"(policy)
               : "memory");
#endif
}

// Starts a copy of a packed vector: with the policy and bypassing L1 if it has 16 bytes, otherwise
// as `copy_ahead_cached` does.
template <class Pack>
__device__ __forceinline__ void copy_ahead(Pack* shared, const void* global,
                                           [[maybe_unused]] uint64_t policy) {
  if constexpr (sizeof(Pack) == 16) {
    copy_ahead_at<0>(copy_place(shared, policy), global, policy);
  } else {
    copy_ahead_cached(shared, global);
  }
}

// The same, through the L1 cache after all if `cached`. Without a branch.
template <class Pack>
__device__ __forceinline__ void copy_ahead(Pack* shared, const void* global, uint64_t policy,
                                           uint32_t cached) {
  if constexpr (sizeof(Pack) == 16) {
    asm volatile(
        "{.reg .pred p; setp.ne.u32 p, %3, 0;"
        "@p cp.async.ca.shared.global [%0], [%1], 16;"
        "@!p cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;}" ::"r"(
            copy_place(shared, policy)),
        "l"(global), "l"(policy), "r"(cached)
        : "memory");
  } else {
    copy_ahead_cached(shared, global);
  }
}

// Ends a group of copies.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until no more than `groups` of the thread's groups are under way, or no more than N.
template <int N = 7>
__device__ __forceinline__ void await_copies_but(int groups) {
  if constexpr (N > 0) {
    if (groups < N) return await_copies_but<N - 1>(groups);
  }
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Waits for the copies that this thread started.
__device__ __forceinline__ void await_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

}  // namespace fusegen
