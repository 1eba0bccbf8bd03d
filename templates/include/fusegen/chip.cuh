// What launch parameters follow from: the chip's extents, and how many blocks of a kernel it holds.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <type_traits>

namespace fusegen {

struct Chip {
  int device;
  int multiprocessors;
  int shared_bytes;  // that one block may have
  int access_bytes;  // that one access of a thread may have: 16, or 32 from compute capability 10.0
                     // on
  bool clusters;     // blocks may read each other's shared memory (compute capability 9.0)
};

// The current device.
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

// Blocks of a kernel that the whole chip holds at a time, at least one a multiprocessor. Allows the
// kernel the shared memory it asks for.
template <class Kernel>
int64_t resident_blocks(Kernel* kernel, dim3 threads, size_t shared) {
  int blocks = 0;
  if (shared > 32 * 1024) {  // with what the kernel declares itself it may be more than 48 KiB
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
  }
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, int(threads.x * threads.y),
                                                shared);
  return int64_t(std::max(blocks, 1)) * chip().multiprocessors;
}

// Clusters of `size` blocks that the whole chip holds at a time; 0 where it cannot hold one.
template <class Kernel>
int64_t resident_clusters(Kernel* kernel, dim3 threads, size_t shared, int size) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
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
    return 0;
  }
  return clusters;
}

// Elements of one access: as many as `most` bytes hold (0: as the chip can), if the tensors allow
// it.
template <class S, class Allows>
int widest(int most, Allows&& allows) {
  if (most == 0) most = chip().access_bytes;
  for (const int bytes : {32, 16}) {
    if (bytes <= most && allows(bytes / int(sizeof(S)))) return bytes / int(sizeof(S));
  }
  return 1;
}

// Accesses that a thread has under way, where `accesses` are asked for of up to 16 bytes.
template <class S>
constexpr int in_flight(int accesses, int width) {
  return width * sizeof(S) > 16 && accesses > 1 ? accesses / 2 : accesses;
}

// Calls f with a width as a constant.
template <class S, class F>
auto with_width(int width, F&& f) {
  if (width == 1) return f(std::integral_constant<int, 1>{});
  if (width * sizeof(S) == 16) return f(std::integral_constant<int, 16 / sizeof(S)>{});
  return f(std::integral_constant<int, 32 / sizeof(S)>{});
}

inline bool aligned(const void* pointer, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

inline const char* last_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace fusegen
