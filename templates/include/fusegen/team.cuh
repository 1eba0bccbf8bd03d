// Reductions over the threads that keep a row: lanes of one warp, a block, or a cluster of blocks
// that read each other's shared memory. Every sum has a fixed order.
#pragma once

#include <cstdint>
#include <type_traits>

#include "fusegen/lanes.cuh"

namespace fusegen {

// The number that terms are relative to while `largest` is the row's maximum so far.
template <class T>
__device__ __forceinline__ T anchor(T largest) {
  return largest == Maximum::identity<T>() ? T(0) : largest;
}

// The factor that turns sums relative to exp(before) into sums relative to exp(after). A sum whose
// terms are all exp(-infinity) is 0.
template <class Math, class T>
__device__ __forceinline__ T shift_factor(T before, T after) {
  return before == Maximum::identity<T>() ? T(0) : Math::exp(before - after);
}

// Who keeps a row: blockDim.x neighbouring lanes of a warp, a whole block, or the blocks of a
// cluster.
enum class Holders { lanes, block, cluster };

// The threads that keep one row together.
//
// Two buffers take turns, so each reduction needs only one barrier. Whoever writes to a buffer has
// passed the barrier of the reduction in between, and nobody reaches that barrier before having
// read the buffer.
template <class T, Holders HOLDERS, int VALUES, int THREADS>
class Team {
 public:
  struct Exchange {
    T warps[2][HOLDERS == Holders::lanes ? 1 : THREADS / 32][VALUES];
    T blocks[2][HOLDERS == Holders::cluster ? 32 : 1][VALUES];
    uint64_t arrived[2];  // mbarriers: values from the cluster's blocks have arrived
  };

  __device__ explicit Team(Exchange& exchange) : exchange_(exchange) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if constexpr (HOLDERS == Holders::cluster) {
      if (threadIdx.x < 2) {
        asm volatile(
            "mbarrier.init.shared.b64 [%0], 1;" ::"r"(address(&exchange_.arrived[threadIdx.x])));
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
      }
      __cluster_barrier_arrive();  // every block runs before another writes to it
      __cluster_barrier_wait();
    }
#endif
  }

  // This block's index within the row, and the number of blocks that keep the row.
  __device__ __forceinline__ int rank() const {
    if constexpr (HOLDERS != Holders::cluster) return 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    return int(__clusterRelativeBlockRank());
#else
    return 0;
#endif
  }
  __device__ __forceinline__ int blocks() const {
    if constexpr (HOLDERS != Holders::cluster) return 1;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    return int(__clusterSizeInBlocks());
#else
    return 1;
#endif
  }

  // Teams of a block: one per row of threads.
  __device__ __forceinline__ int rows() const {
    return HOLDERS == Holders::lanes ? int(blockDim.y) : 1;
  }

  // Reduces one value per thread over the threads of its warp that belong to the same team.
  template <class Op>
  __device__ __forceinline__ T reduce_near(T value) const {
    return reduce_lanes<Op>(value, near());
  }
  template <class Op, int N>
  __device__ __forceinline__ void reduce_near(T (&values)[N]) const {
    reduce_each<Op>(values, near());
  }

  // Reduces N values of each thread in one exchange. Every thread of the team gets the results, in
  // place.
  template <class Op, int N>
  __device__ __forceinline__ void reduce(T (&values)[N]) {
    static_assert(N <= VALUES, "an exchange has VALUES places");
    if constexpr (HOLDERS == Holders::lanes) return reduce_near<Op>(values);
    constexpr int P = sharing<N>;
    T parts[P];
#pragma unroll
    for (int n = 0; n < P; ++n) parts[n] = n < N ? values[n] : T(0);
    const T mine = N == 1 ? reduce_near<Op>(parts[0]) : reduce_shared_out<Op>(parts, 32);
    const int lane = threadIdx.x % 32;
    if (lane < N) exchange_.warps[turn()][threadIdx.x / 32][lane] = mine;
    __syncthreads();
    over<Op>(exchange_.warps[turn()], values, blockDim.x / 32);
    if (several_blocks && blocks() > 1) {
#pragma unroll
      for (int n = 0; n < N; ++n) to_blocks(n, values[n], N);
      await_blocks();
      over<Op>(exchange_.blocks[turn()], values, blocks());
    }
    state_ ^= 1;
  }

  // Reduces a maximum, and sums of terms relative to exp(maximum). On entry, `largest` is the same
  // for all lanes of a warp, and their sums are relative to it. After one exchange, every thread of
  // the team has the row's maximum, and the sums relative to it. (Milakov & Gimelshein 2018,
  // "Online normalizer calculation for softmax", arXiv:1805.02867.)
  template <class Math, int N>
  __device__ __forceinline__ void reduce_shifted(T& largest, T (&sums)[N]) {
    static_assert(N < VALUES, "an exchange has VALUES places");
    reduce_near<Addition>(sums);
    if constexpr (HOLDERS == Holders::lanes) return;
    if (threadIdx.x % 32 == 0) {
      exchange_.warps[turn()][threadIdx.x / 32][0] = largest;
#pragma unroll
      for (int n = 0; n < N; ++n) {
        exchange_.warps[turn()][threadIdx.x / 32][n + 1] = sums[n];
      }
    }
    __syncthreads();
    over_shifted<Math>(exchange_.warps[turn()], largest, sums, blockDim.x / 32);
    if (several_blocks && blocks() > 1) {
      to_blocks(0, largest, N + 1);
#pragma unroll
      for (int n = 0; n < N; ++n) to_blocks(n + 1, sums[n], N + 1);
      await_blocks();
      over_shifted<Math>(exchange_.blocks[turn()], largest, sums, blocks());
    }
    state_ ^= 1;
  }

 private:
  // Whether several blocks can keep a row. Before compute capability 9.0, a cluster is one block.
  // Later it may be one as well, and a launch without clusters must not announce values to blocks.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  static constexpr bool several_blocks = false;
#else
  static constexpr bool several_blocks = HOLDERS == Holders::cluster;
#endif

  // Reduces up to 32 sets of values; every lane gets the results.
  template <class Op, int COUNT, int N>
  __device__ __forceinline__ void over(const T (&sets)[COUNT][VALUES], T (&values)[N],
                                       int count) const {
    constexpr int P = sharing<N>;
    constexpr int lanes = COUNT * P < 32 ? COUNT * P : 32;  // further lanes repeat these
    static_assert((COUNT & (COUNT - 1)) == 0, "a power of two");
    // Every lane reads, and drops values that belong to no set: a branch would take longer.
    const int lane = threadIdx.x % lanes, which = min(lane % P, N - 1);
    T part = Op::template identity<T>();
#pragma unroll
    for (int set = lane / P; set < COUNT; set += lanes / P) {
      const T value = sets[set][which];
      part = set < count ? Op::combine(part, value) : part;
    }
    if constexpr (N == 1 && std::is_same_v<Op, Maximum>) {
      values[0] = reduce_warp<Op>(part);
    } else {
#pragma unroll
      for (int offset = P; offset < lanes; offset *= 2) {
        part = Op::combine(part, __shfl_xor_sync(0xffffffffu, part, offset));
      }
#pragma unroll
      for (int n = 0; n < N; ++n) values[n] = N == 1 ? part : __shfl_sync(0xffffffffu, part, n);
    }
  }

  // The same for a maximum and sums relative to it.
  template <class Math, int COUNT, int N>
  __device__ __forceinline__ void over_shifted(const T (&values)[COUNT][VALUES], T& largest,
                                               T (&sums)[N], int count) const {
    const int from = threadIdx.x % 32;
    const T mine = from < count ? values[from][0] : Maximum::identity<T>();
    largest = reduce_warp<Maximum>(mine);
    const T factor = shift_factor<Math>(mine, largest);
#pragma unroll
    for (int n = 0; n < N; ++n) sums[n] = from < count ? factor * values[from][n + 1] : T(0);
    reduce_each<Addition>(sums, 32);
  }

  // Lanes of a warp that belong to the same team.
  __device__ __forceinline__ int near() const {
    return HOLDERS == Holders::lanes ? int(blockDim.x) : 32;
  }
  __device__ __forceinline__ int turn() const { return state_ & 1; }

  static __device__ __forceinline__ uint32_t address(const void* shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  }

  // Writes this block's value into every block of the cluster. A barrier over the cluster would
  // also wait for stores to global memory; here each value announces itself at the receiver.
  __device__ __forceinline__ void to_blocks(int which, T value, int values) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    const int blocks = this->blocks();
    const uint32_t arrived = address(&exchange_.arrived[turn()]);
    if (which == 0 && threadIdx.x == 0) {
      asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(arrived),
                   "r"(uint32_t(blocks * values * sizeof(T)))
                   : "memory");
    }
    if (int(threadIdx.x) < blocks) {
      uint32_t to, announce;
      asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                   : "=r"(to)
                   : "r"(address(&exchange_.blocks[turn()][rank()][which])), "r"(threadIdx.x));
      asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                   : "=r"(announce)
                   : "r"(arrived), "r"(threadIdx.x));
      if constexpr (sizeof(T) == 8) {
        asm volatile(
            "st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];" ::"r"(to),
            "l"(bit_cast<uint64_t>(value)), "r"(announce)
            : "memory");
      } else {
        asm volatile(
            "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to),
            "r"(bit_cast<uint32_t>(value)), "r"(announce)
            : "memory");
      }
    }
#endif
  }

  // Waits until this turn's values from every block have arrived.
  __device__ __forceinline__ void await_blocks() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    const uint32_t arrived = address(&exchange_.arrived[turn()]);
    uint32_t done = 0;
    while (!done) {
      asm volatile(
          "{.reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; "
          "selp.u32 %0, 1, 0, p;}"
          : "=r"(done)
          : "r"(arrived), "r"(uint32_t(state_ >> (1 + turn()) & 1))
          : "memory");
    }
    state_ ^= 2 << turn();
#endif
  }

  Exchange& exchange_;
  int state_ = 0;  // one bit for the current turn, and one for the phase of each mbarrier
};

// Adds up one value per thread over the whole block; thread (0, 0) gets the sum.
template <class T>
__device__ __forceinline__ T sum_block(T value) {
  __shared__ T shared[32];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int warps = (blockDim.x * blockDim.y + 31) / 32;
  value = reduce_warp<Addition>(value);
  __syncthreads();
  if (thread % 32 == 0) shared[thread / 32] = value;
  __syncthreads();
  value = T(0);
  if (thread == 0) {
    for (int warp = 0; warp < warps; ++warp) value += shared[warp];
  }
  return value;
}

}  // namespace fusegen
