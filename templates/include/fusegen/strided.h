// Rows with gaps between them: part of a wider tensor, or one of a tensor's two halves.
#pragma once

#include <cstdint>

#include "fusegen/platform.h"

namespace fusegen {

// After each `run` rows, skip `extra` elements that belong to something else. (In an outer
// reduction the unit is a matrix [cols, inner], not a row. If a row is any contiguous stretch, the
// unit is an element.) Without gaps, `extra` is 0. If the same rows are read again, it is negative.
struct Gap {
  int64_t extra = 0;
  // row / run equals row * factor / 2^shift for any row below 2^31 (Granlund and Montgomery 1994,
  // "Division by invariant integers using multiplication").
  uint32_t factor = 1u << 31, shift = 31;

  static Gap after(int64_t run, int64_t extra) {
    Gap gap{extra};
    while (int64_t(1) << (gap.shift - 31) < run) ++gap.shift;
    gap.factor = uint32_t(((uint64_t(1) << gap.shift) + uint64_t(run) - 1) / uint64_t(run));
    return gap;
  }
};

// How many elements the gaps before a row add to its offset.
FUSEGEN_FN int64_t gap_before(const Gap& gap, int64_t row) {
  if (gap.extra == 0) return 0;
  return int64_t(uint64_t(uint32_t(row)) * gap.factor >> gap.shift) * gap.extra;
}

// The same for GPU threads, which compute it once per row. Computed lazily, and only if the tensor
// has gaps: most have none.
FUSEGEN_FN int64_t gap_before_row(const Gap& gap, int64_t row) {
  if (gap.extra == 0) return 0;
  uint32_t place = uint32_t(row);
#ifdef __CUDA_ARCH__
  asm("" : "+r"(place));
#endif
  return gap_before(gap, place);
}

}  // namespace fusegen
