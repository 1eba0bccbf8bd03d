// The next row on its way into shared memory while this one is computed.
#pragma once

#include <cstdint>

#include "fusegen/team.cuh"
#include "fusegen/vector.cuh"

namespace fusegen {

// What a team of threads reads next of each input: ITEMS accesses of 16 bytes a thread.
//
// On Hopper and later the team's first thread asks for a part of a row as one bulk copy, whose
// bytes arrive at an mbarrier: no other thread spends an instruction on addresses. Before Hopper,
// and where a row is a single access, each thread copies what it reads itself. (CUDA C++
// Programming Guide, "Asynchronous Data Copies".)
template <class S, int V, int ITEMS, Holders HOLDERS>
class RowAhead {
 public:
  using Pack = Packed<S, V>;
  // One for each team of a block; several teams, of a warp each, are at most 8.
  struct Barriers {
    alignas(8) uint64_t arrived[HOLDERS == Holders::lanes ? 8 : 1];
  };
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  static constexpr bool bulk = HOLDERS != Holders::lanes || ITEMS > 1;
#else
  static constexpr bool bulk = false;
#endif

  // `first_column` is where this block's part of a row begins.
  __device__ RowAhead(Barriers& barriers, int first_column, int cols)
      : arrived_(shared_address(&barriers.arrived[bulk ? threadIdx.y : 0])),
        first_column_(first_column),
        count_(min(max(cols - first_column, 0), ITEMS * V * int(blockDim.x))) {
    if constexpr (bulk) {
      if (leads()) {
        asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(arrived_));
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
      }
      __syncthreads();
    }
  }

  // The place in shared memory of this thread's first access, of an input whose places begin at
  // `begin`; its next one is blockDim.x places further.
  __device__ __forceinline__ Pack* place(void* begin) const {
    return static_cast<Pack*>(begin) + (threadIdx.y * ITEMS * blockDim.x + threadIdx.x);
  }

  // Announces the copies of `inputs` rows. Every thread of the team has read what they overwrite.
  __device__ __forceinline__ void expect([[maybe_unused]] int inputs) const {
    if constexpr (bulk) {
      if (leads()) {
        asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(arrived_),
                     "r"(uint32_t(inputs * count_ * int(sizeof(S))))
                     : "memory");
      }
    }
  }

  // Starts the copy of one input's row to this thread's `place`.
  __device__ __forceinline__ void copy(Pack* to, const S* row) const {
    if constexpr (bulk) {
      if (leads() && count_ > 0) {
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
            "[%3];" ::"r"(shared_address(to)),
            "l"(row + first_column_), "r"(uint32_t(count_ * int(sizeof(S)))), "r"(arrived_)
            : "memory");
      }
    } else {
#pragma unroll
      for (int item = 0; item < ITEMS; ++item) {
        const int at = (item * int(blockDim.x) + int(threadIdx.x)) * V;
        if (at < count_) copy_ahead(to + item * int(blockDim.x), row + first_column_ + at);
      }
    }
  }

  // Waits for the copies that were announced last.
  __device__ __forceinline__ void await() {
    if constexpr (bulk) {
      uint32_t done = 0;
      while (!done) {
        asm volatile(
            "{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
            "selp.u32 %0, 1, 0, p;}"
            : "=r"(done)
            : "r"(arrived_), "r"(phase_)
            : "memory");
      }
      phase_ ^= 1;
    } else {
      await_copies();
    }
  }

  // Waits until every thread of the team has read its places, where no reduction has waited for
  // that.
  static __device__ __forceinline__ void finish_reading() {
    if constexpr (!bulk) return;
    if constexpr (HOLDERS == Holders::lanes) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }

 private:
  static __device__ __forceinline__ bool leads() { return threadIdx.x == 0; }

  uint32_t arrived_;
  int first_column_, count_;  // the block's part of a row, in elements
  uint32_t phase_ = 0;
};

}  // namespace fusegen
