// The instruction sets that kernel.cpp is compiled for. binding.cpp chooses one on this machine.
#pragma once

namespace fusegen {

// Each kernel is compiled once per isa: `forward_cpu<Avx2>`. Processors other than x86 have one
// isa, and so do packages built for one machine alone, without --portable.
struct Portable {};
struct Avx2 {};
struct Avx512 {};

// FUSEGEN_ISAS lists a kernel's copies for all isas, from the lowest to the best.
#if defined(__x86_64__) && !defined(FUSEGEN_NATIVE)
#define FUSEGEN_ISAS(name) \
  {name<::fusegen::Portable>, name<::fusegen::Avx2>, name<::fusegen::Avx512>}
#else
#define FUSEGEN_ISAS(name) {name<::fusegen::Portable>}
#endif

// The bytes of a vector in the loops of the file that is compiled.
#if defined(__AVX512F__)
#define FUSEGEN_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define FUSEGEN_VECTOR_BYTES 32
#else
#define FUSEGEN_VECTOR_BYTES 16
#endif

// The isa in use, as a place in that list: the best the processor supports, or a lower one if
// FUSEGEN_CPU names it.
int isa();
const char* isa_name();

}  // namespace fusegen
