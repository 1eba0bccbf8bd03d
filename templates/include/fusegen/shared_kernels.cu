// The kernels that all packages share: they move elements and know no formula. They are compiled
// once for elements of FUSEGEN_BYTES bytes, or of every size where that is not given, and linked to
// the libraries of all packages whose dtypes have such elements.
#include "fusegen/transposed.cuh"

namespace fusegen {

#if defined(FUSEGEN_BYTES)
template const char* transposed_cuda<FUSEGEN_BYTES>(const Transposition&, void*);
#else
template const char* transposed_cuda<2>(const Transposition&, void*);
template const char* transposed_cuda<4>(const Transposition&, void*);
template const char* transposed_cuda<8>(const Transposition&, void*);
#endif

}  // namespace fusegen
