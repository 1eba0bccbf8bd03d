// Rows with gaps between them: part of a wider tensor, one of a tensor's two halves, a tensor whose
// dims lie in another order, or one that is broadcast.
#pragma once

#include <cstdint>

#include "fusegen/platform.h"

namespace fusegen {

// The gaps of a tensor, the innermost first: after each run of rows, skip `extra` elements. (In an
// outer reduction the unit is a matrix [cols, inner], not a row. If a row is any contiguous
// stretch, the unit is an element.) A dim whose stride is not that of a contiguous tensor makes one
// gap: two make the strides of an operand [batch, 1, cols], three those of any tensor of four dims.
// If memory is read again, `extra` is negative. Where there are fewer gaps, the others have extra
// 0.
struct Gap {
  static constexpr int most = 3;

  int64_t extra[most] = {};
  // row / run equals row * factor / 2^shift for any row below 2^31 (Granlund and Montgomery 1994,
  // "Division by invariant integers using multiplication").
  uint32_t factor[most] = {}, shift[most] = {};

  bool none() const { return extra[0] == 0; }

  // Adds gap number n: `skipped` elements after each `run` rows.
  void add(int n, int64_t run, int64_t skipped) {
    extra[n] = skipped;
    shift[n] = 31;
    while (int64_t(1) << (shift[n] - 31) < run) ++shift[n];
    factor[n] = uint32_t(((uint64_t(1) << shift[n]) + uint64_t(run) - 1) / uint64_t(run));
  }
};

// How many elements the gaps before a row add to its offset.
FUSEGEN_FN int64_t gap_before(const Gap& gap, int64_t row) {
  if (gap.extra[0] == 0) return 0;
  int64_t skipped = 0;
  for (int n = 0; n < Gap::most; ++n) {
    if (gap.extra[n] == 0) break;
    skipped += int64_t(uint64_t(uint32_t(row)) * gap.factor[n] >> gap.shift[n]) * gap.extra[n];
  }
  return skipped;
}

// The same for GPU threads, which compute it once per row. Computed lazily, and only if the tensor
// has gaps: most have none.
FUSEGEN_FN int64_t gap_before_row(const Gap& gap, int64_t row) {
  if (gap.extra[0] == 0) return 0;
  uint32_t place = uint32_t(row);
#ifdef __CUDA_ARCH__
  asm("" : "+r"(place));
#endif
  return gap_before(gap, place);
}

}  // namespace fusegen
