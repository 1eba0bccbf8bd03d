// Rows with gaps in between: those of a part of a wider tensor, or of one of a tensor's two halves.
#pragma once

#include <cstdint>

#include "fusegen/platform.h"

namespace fusegen {

// After each `run` rows (of rows that lie side by side, matrices [cols, inner]; where a row is
// whatever lies together, elements) `extra` elements belong to something else. Without gaps it is
// 0; where the same rows serve again, below 0.
struct Gap {
  int64_t extra = 0;
  // row / run is row factor / 2^shift for any row below 2^31 (Granlund and Montgomery 1994,
  // "Division by invariant integers using multiplication").
  uint32_t factor = 1u << 31, shift = 31;

  static Gap after(int64_t run, int64_t extra) {
    Gap gap{extra};
    while (int64_t(1) << (gap.shift - 31) < run) ++gap.shift;
    gap.factor = uint32_t(((uint64_t(1) << gap.shift) + uint64_t(run) - 1) / uint64_t(run));
    return gap;
  }
};

// How much further than without gaps a row lies.
FUSEGEN_FN int64_t gap_before(const Gap& gap, int64_t row) {
  if (gap.extra == 0) return 0;
  return int64_t(uint64_t(uint32_t(row)) * gap.factor >> gap.shift) * gap.extra;
}

// The same where a GPU's thread counts once a row. Computed lazily, and only if the tensor has
// gaps: most have none.
FUSEGEN_FN int64_t gap_before_row(const Gap& gap, int64_t row) {
  if (gap.extra == 0) return 0;
  uint32_t place = uint32_t(row);
#ifdef __CUDA_ARCH__
  asm("" : "+r"(place));
#endif
  return gap_before(gap, place);
}

}  // namespace fusegen
