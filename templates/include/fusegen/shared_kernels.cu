// The kernels that all packages share: they know no formula. They move elements, or add up rows.
// They are compiled once for elements of FUSEGEN_BYTES bytes, or of every size where that is not
// given, and linked to the libraries of all packages whose dtypes have such elements.
#include "fusegen/runs.cuh"
#include "fusegen/summed_rows.cuh"
#include "fusegen/transposed.cuh"

namespace fusegen {

#define FUSEGEN_MOVES(bytes)                                                \
  template const char* transposed_cuda<bytes>(const Transposition&, void*); \
  template const char* runs_copied_cuda<bytes>(const Runs&, void*);
#define FUSEGEN_SUMS(stored)                                    \
  template int64_t summed_rows_parts<stored>(int64_t, int64_t); \
  template const char* summed_rows_cuda<stored>(const SummedRows&, void*);

#if !defined(FUSEGEN_BYTES) || FUSEGEN_BYTES == 2
FUSEGEN_MOVES(2)
FUSEGEN_SUMS(bfloat16)
FUSEGEN_SUMS(float16)
#endif
#if !defined(FUSEGEN_BYTES) || FUSEGEN_BYTES == 4
FUSEGEN_MOVES(4)
FUSEGEN_SUMS(float)
#endif
#if !defined(FUSEGEN_BYTES) || FUSEGEN_BYTES == 8
FUSEGEN_MOVES(8)
FUSEGEN_SUMS(double)
#endif

}  // namespace fusegen
