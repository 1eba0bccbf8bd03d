// Chooses the isa that kernels run with. Only binding.cpp includes it.
#pragma once

#include <cstdlib>
#include <cstring>

#include "fusegen/isa.h"

namespace fusegen {
namespace {

// The names of the isas, in the order of FUSEGEN_ISAS.
#if defined(__x86_64__) && !defined(FUSEGEN_NATIVE)
constexpr const char* isa_names[] = {"portable", "avx2", "avx512"};

// Checks for the features that toolchain/compilers.py enables for each isa.
int best_isa() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return wide ? 2 : 1;
}
#else
constexpr const char* isa_names[] = {"portable"};

int best_isa() {
  return 0;
}
#endif

}  // namespace

int isa() {
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

const char* isa_name() {
  return isa_names[isa()];
}

}  // namespace fusegen
