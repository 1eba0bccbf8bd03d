// Rows with gaps in between: those of a part of a wider tensor, or of one of a tensor's two halves.
#pragma once

#include <cstdint>

#include "fusegen/platform.h"

namespace fusegen {

// After each `run` rows, `extra` elements belong to something else; of rows that lie side by side,
// after each `run` matrices [cols, inner]. Where nothing lies in between, `extra` is 0; where the
// same rows serve again, it is below.
struct Gap {
  int64_t run = 1, extra = 0;
};

FUSEGEN_FN int64_t quotient(int64_t a, int64_t b) {
  if ((a | b) >> 31) return a / b;
  return uint32_t(a) / uint32_t(b);  // several times faster
}

// How much further than without gaps a row lies.
FUSEGEN_FN int64_t gap_before(const Gap& gap, int64_t row) {
  if (gap.extra == 0) return 0;
  return (gap.run == 1 ? row : quotient(row, gap.run)) * gap.extra;
}

// The same for element `at` of rows of `cols`.
FUSEGEN_FN int64_t gap_before(const Gap& gap, int64_t at, int64_t cols) {
  return gap.extra == 0 ? 0 : gap_before(gap, quotient(at, cols));
}

}  // namespace fusegen
