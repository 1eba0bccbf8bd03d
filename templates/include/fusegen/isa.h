// The instruction sets that kernel.cpp is compiled for, and which of them this machine gets.
#pragma once

#include <cstdlib>
#include <cstring>

namespace fusegen {

// Each kernel is there once a isa: `forward_cpu<Avx2>`. Other processors than x86 have one, and
// so has what FUSEGEN_NATIVE=1 builds for one machine alone.
struct Portable {};
struct Avx2 {};
struct Avx512 {};

#if defined(__x86_64__) && !defined(FUSEGEN_NATIVE)
#define FUSEGEN_ISAS(name) \
  {name<::fusegen::Portable>, name<::fusegen::Avx2>, name<::fusegen::Avx512>}
constexpr const char* isa_names[] = {"portable", "avx2", "avx512"};

// What toolchain/compilers.py compiles each isa with is what is asked for here.
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

// The isa in use: the best that the processor has, or a lower one that FUSEGEN_CPU names.
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
