// One name for what nvcc and the host compilers name differently.
#pragma once

// FUSEGEN_FN declares a function that is always inlined, on host and device. FUSEGEN_UNROLL unrolls
// the loop that follows it. FUSEGEN_CALLS_ANY precedes such a template that calls what it is given.
#if defined(__CUDACC__)
#define FUSEGEN_CALLS_ANY _Pragma("nv_exec_check_disable")
#define FUSEGEN_FN __host__ __device__ __forceinline__
#define FUSEGEN_UNROLL _Pragma("unroll")
#else
#define FUSEGEN_CALLS_ANY
#define FUSEGEN_FN inline __attribute__((always_inline))
#define FUSEGEN_UNROLL _Pragma("GCC unroll 16")
#endif

// Declares a function that need not be there: its address is null then.
#define FUSEGEN_OPTIONAL __attribute__((weak))
