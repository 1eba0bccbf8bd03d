// Rows with gaps between them: part of a wider tensor, one of a tensor's two halves, a tensor whose
// dims lie in another order, or one that is broadcast.
#pragma once

#include <cstdint>

#include "fusegen/divisor.h"
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

  // Modulo 2^32: their sum, what all gaps add to an offset, is below 2^31 either way.
  uint32_t extra[most] = {};
  SmallDivisor run[most];
  uint32_t broadcast = 0;  // whether memory is read again

  bool none() const { return extra[0] == 0; }

  // Adds gap number n: `skipped` elements after each run of `rows` rows.
  void add(int n, int64_t rows, int64_t skipped) {
    extra[n] = uint32_t(skipped);
    if (skipped < 0) broadcast = 1;
    run[n] = SmallDivisor(rows);
  }

  // How many runs lie before a row.
  FUSEGEN_FN uint32_t runs(int n, uint32_t row) const { return run[n].quotient(row); }
};

// How many elements the gaps before a row add to its offset.
FUSEGEN_FN int64_t gap_before(const Gap& gap, int64_t row) {
  if (gap.extra[0] == 0) return 0;
  uint32_t skipped = 0;
  for (int n = 0; n < Gap::most; ++n) {
    if (gap.extra[n] == 0) break;
    skipped += gap.runs(n, uint32_t(row)) * gap.extra[n];
  }
  return int32_t(skipped);
}

// The same for GPU threads, which compute it once per row. Without a branch: what is loaded for a
// row would not be moved across one, which cost rows of odd length up to 1.4 times the time (H200).
FUSEGEN_FN int64_t gap_before_row(const Gap& gap, int64_t row) {
  uint32_t place = uint32_t(row);
#ifdef __CUDA_ARCH__
  asm("" : "+r"(place));
#endif
  uint32_t skipped = 0;
#pragma unroll
  for (int n = 0; n < Gap::most; ++n) skipped += gap.runs(n, place) * gap.extra[n];
  return int32_t(skipped);
}

// Whether a gap lies between two rows. What two gaps add to an offset may cancel, so the runs are
// compared.
FUSEGEN_FN bool has_gaps(const Gap& gap, uint32_t first, uint32_t last) {
  bool found = false;
#pragma unroll
  for (int n = 0; n < Gap::most; ++n)
    found |= gap.extra[n] != 0 && gap.runs(n, first) != gap.runs(n, last);
  return found;
}

}  // namespace fusegen
