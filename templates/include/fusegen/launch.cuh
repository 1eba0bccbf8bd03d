// Launches kernels so that one may begin while its predecessor in the stream still finishes.
// Otherwise there is a microsecond between two small kernels. (CUDA C++ Programming Guide,
// "Programmatic Dependent Launch and Synchronization"; from compute capability 9.0 on.)
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "fusegen/chip.cuh"

namespace fusegen {

// Waits until the results of earlier kernels can be read, then lets the next kernel begin. It must
// be the first line of each kernel: later kernels in the stream rely on all earlier ones being
// done.
__device__ __forceinline__ void await_kernels_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Launches a kernel on a grid of blocks with `shared` bytes each. If `cluster` is above 1, that
// many blocks form a cluster.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), cudaStream_t stream, dim3 grid, dim3 threads,
                   size_t shared, int cluster, Arguments... arguments) {
  cudaLaunchAttribute attributes[2]{};
  unsigned count = 0;
  if (cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = unsigned(cluster);
    attributes[count].val.clusterDim.y = attributes[count].val.clusterDim.z = 1;
    ++count;
  }
  if (chip().clusters) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count].val.programmaticStreamSerializationAllowed = 1;
    ++count;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

}  // namespace fusegen
