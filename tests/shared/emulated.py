"""Kernels for a GPU, run thread by thread by a C++ compiler; only those whose threads share nothing."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from fusegen.base import paths
from fusegen.toolchain.compilers import find_compilers

__all__ = ["emulated"]

#: What CUDA has and the kernels use.
CUDA = """
#pragma once
#include <cmath>
#include <cstdint>
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
struct dim3 { unsigned x = 1, y = 1; dim3(unsigned x, unsigned y = 1) : x(x), y(y) {} };
struct uint2 { uint32_t x, y; };
struct uint4 { uint32_t x, y, z, w; };
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
inline const char* cudaGetErrorString(cudaError_t) { return ""; }
inline dim3 blockIdx(0), threadIdx(0), blockDim(1);
using std::min, std::max;
"""
#: Runs a kernel for each thread of each block.
LAUNCH = """
#pragma once
#include <cuda_runtime.h>
namespace fusegen {
inline void await_kernels_before() {}
template <class Kernel, class... Arguments>
cudaError_t launch(Kernel* kernel, cudaStream_t, dim3 grid, dim3 threads, size_t, int,
                   const Arguments&... arguments) {
  blockDim = threads;
  for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
    for (threadIdx.y = 0; threadIdx.y < threads.y; ++threadIdx.y)
      for (threadIdx.x = 0; threadIdx.x < threads.x; ++threadIdx.x) kernel(arguments...);
  return cudaSuccess;
}
}  // namespace fusegen
"""
VECTOR = """
#pragma once
#include "fusegen/storage.h"
namespace fusegen {
template <class T, int V> struct Vector { T value[V]; };
template <class S, int V> struct Packed { S value[V]; };
template <int V, class S> Packed<S, V> load_packed(const S* from) {
  Packed<S, V> found;
  for (int v = 0; v < V; ++v) found.value[v] = from[v];
  return found;
}
template <class S, int V> Vector<compute_t<S>, V> unpack(const Packed<S, V>& packed) {
  Vector<compute_t<S>, V> found;
  for (int v = 0; v < V; ++v) found.value[v] = Storage<S>::load(packed.value[v]);
  return found;
}
template <int V, class S> void store_vector(S* to, const Vector<compute_t<S>, V>& from) {
  for (int v = 0; v < V; ++v) to[v] = Storage<S>::store(from.value[v]);
}
}  // namespace fusegen
"""


def emulated(folder: Path, main: str, *flags: str) -> ctypes.CDLL:
    """Return a library of a C++ source that includes kernels.

    Args:
        folder: where it is compiled.
        main: the source, with functions of C.
        flags: further ones for the compiler.
    """
    files = {"cuda_runtime.h": CUDA, "fusegen/launch.cuh": LAUNCH, "fusegen/vector.cuh": VECTOR}
    (folder / "fusegen").mkdir()
    for name, text in {**files, "main.cpp": main}.items():
        (folder / name).write_text(text)
    library = folder / "emulated.so"
    own = ["-std=c++17", "-O1", "-fPIC", "-shared", "-w", f"-I{folder}", f"-I{paths.include()}"]
    compiler = str(find_compilers().cxx)
    subprocess.run(
        [compiler, *own, *flags, str(folder / "main.cpp"), "-o", str(library)], check=True
    )
    return ctypes.CDLL(str(library))
