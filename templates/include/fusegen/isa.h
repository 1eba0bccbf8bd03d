// The instruction sets that kernel.cpp is compiled for, and the choice of one on this machine.
#pragma once

#include <cstdlib>
#include <cstring>

namespace fusegen {

// Each kernel is compiled once per isa: `forward_cpu<Avx2>`. Processors other than x86 have one
// isa, and so do packages built for one machine with FUSEGEN_NATIVE=1.
struct Portable {};
struct Avx2 {};
struct Avx512 {};

// FUSEGEN_ISAS lists a kernel's copies for all isas, from the lowest to the best. `isa_names` has
// the names of the isas in the same order.
#if defined(__x86_64__) && !defined(FUSEGEN_NATIVE)
#define FUSEGEN_ISAS(name) \
  {name<::fusegen::Portable>, name<::fusegen::Avx2>, name<::fusegen::Avx512>}
constexpr const char* isa_names[] = {"portable", "avx2", "avx512"};

// Checks for the features that toolchain/compilers.py enables for each isa.
inline int best_isa() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return wide ? 2 : 1;
}
#else
#define FUSEGEN_ISAS(name) {name<::fusegen::Portable>}
constexpr const char* isa_names[] = {"portable"};

inline int best_isa() {
  return 0;
}
#endif

// The isa in use: the best the processor supports, or a lower one if FUSEGEN_CPU names it.
inline int isa() {
  static const int chosen = [] {
    const int best = best_isa();
    const char* const asked = std::getenv("FUSEGEN_CPU");
    for (int i = 0; asked && i < best; ++i) {
      if (!std::strcmp(asked, isa_names[i])) return i;
    }
    return best;
  }();
  return chosen;
}

}  // namespace fusegen
