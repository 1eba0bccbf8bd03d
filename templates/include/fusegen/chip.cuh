// What launch parameters depend on: the chip's limits, and how many blocks of a kernel it holds.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <type_traits>
#include <utility>

namespace fusegen {

// The limits of one device.
struct Chip {
  int device;
  int multiprocessors;
  int shared_bytes;  // most that one block can use
  // Most that one access of a thread can move: 16, or 32 from compute capability 10.0 on.
  int access_bytes;
  bool clusters;  // whether blocks can read each other's shared memory (compute capability 9.0)
};

// The limits of the current device, queried once.
inline const Chip& chip() {
  constexpr int most = 64;
  static Chip chips[most];
  static std::once_flag known[most];
  int device = 0;
  cudaGetDevice(&device);
  device = std::min(device, most - 1);
  std::call_once(known[device], [device] {
    Chip& found = chips[device];
    int major = 0;
    found.device = device;
    cudaDeviceGetAttribute(&found.multiprocessors, cudaDevAttrMultiProcessorCount, device);
    cudaDeviceGetAttribute(&found.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    found.access_bytes = major >= 10 ? 32 : 16;
    found.clusters = major >= 9;
  });
  return chips[device];
}

// What is asked about a launch: of which kernel, on which device, in blocks of how many threads
// and bytes of shared memory, in clusters of how many blocks (0: no clusters).
using Question = std::tuple<const void*, int, unsigned, size_t, int>;

// The driver's answers, by question. The driver works them out anew each time it is asked, while
// the GPU waits for a launch.
class Answers {
 public:
  // The answer to `question`, by ask() if it is new.
  template <class Ask>
  int64_t find(const Question& question, Ask&& ask) {
    const std::lock_guard<std::mutex> held(mutex_);
    const auto found = known_.find(question);
    if (found != known_.end()) return found->second;
    return known_[question] = ask();
  }

  // Grants a kernel `bytes` of shared memory. What it was granted for a larger launch stays. Called
  // from ask() alone: find() holds the lock.
  template <class Kernel>
  void grant(Kernel* kernel, int device, size_t bytes) {
    size_t& granted = granted_[{reinterpret_cast<const void*>(kernel), device}];
    if (bytes <= granted) return;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
    granted = bytes;
  }

 private:
  std::mutex mutex_;
  std::map<Question, int64_t> known_;
  std::map<std::pair<const void*, int>, size_t> granted_;
};

inline Answers& answers() {
  static Answers kept;
  return kept;
}

// How many blocks of a kernel the whole chip holds at a time, at least one per multiprocessor. Also
// grants the kernel the shared memory it asks for.
template <class Kernel>
int64_t resident_blocks(Kernel* kernel, dim3 threads, size_t shared) {
  const int device = chip().device;
  const unsigned count = threads.x * threads.y;
  return answers().find({reinterpret_cast<const void*>(kernel), device, count, shared, 0}, [&] {
    // Together with static shared memory, 32 KiB may exceed the 48 KiB that need no grant.
    if (shared > 32 * 1024) answers().grant(kernel, device, shared);
    int blocks = 0;
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, int(count), shared);
    return int64_t(std::max(blocks, 1)) * chip().multiprocessors;
  });
}

// How many clusters of `size` blocks the whole chip holds at a time; 0 if it cannot hold one.
template <class Kernel>
int64_t resident_clusters(Kernel* kernel, dim3 threads, size_t shared, int size) {
  const int device = chip().device;
  const unsigned count = threads.x * threads.y;
  return answers().find({reinterpret_cast<const void*>(kernel), device, count, shared, size}, [&] {
    answers().grant(kernel, device, shared);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = unsigned(size);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(unsigned(size));
    config.blockDim = threads;
    config.dynamicSmemBytes = shared;
    config.attrs = &attribute;
    config.numAttrs = 1;
    int clusters = 0;
    if (cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) != cudaSuccess) {
      cudaGetLastError();
      clusters = 0;
    }
    return int64_t(clusters);
  });
}

// Elements of one access: as many as fit into `most` bytes, or into what the chip supports if
// `most` is 0, and at least into `LEAST`. It is 1 if the tensors do not allow wide accesses.
template <class S, int LEAST = 16, class Allows>
int widest(int most, Allows&& allows) {
  if (most == 0) most = chip().access_bytes;
  for (int bytes = 32; bytes >= LEAST; bytes /= 2) {
    const int width = bytes / int(sizeof(S));
    if (width > 1 && bytes <= most && allows(width)) return width;
  }
  return 1;
}

// How many accesses a thread keeps in flight, if `accesses` of up to 16 bytes are asked for: half
// as many wider ones.
template <class S>
constexpr int in_flight(int accesses, int width) {
  return width * sizeof(S) > 16 && accesses > 1 ? accesses / 2 : accesses;
}

// Calls f with the width as a compile-time constant: 1, or that of an access of LEAST to MOST
// bytes.
template <class S, int LEAST = 16, int MOST = 32, class F>
auto with_width(int width, F&& f) {
  if (width == 1) return f(std::integral_constant<int, 1>{});
  if constexpr (LEAST == 8 && sizeof(S) < 8) {
    if (width * sizeof(S) == 8) return f(std::integral_constant<int, 8 / sizeof(S)>{});
  }
  if (MOST == 16 || width * sizeof(S) == 16)
    return f(std::integral_constant<int, 16 / sizeof(S)>{});
  return f(std::integral_constant<int, MOST / sizeof(S)>{});
}

// Whether a pointer is aligned to `bytes` bytes.
inline bool aligned(const void* pointer, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// The message of the last CUDA error, or null; clears the error.
inline const char* last_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace fusegen
