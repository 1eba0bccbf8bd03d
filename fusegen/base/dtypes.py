"""The dtypes that kernels are compiled for."""

from __future__ import annotations

__all__ = ["DTYPES", "STORED"]

#: Their names, in the order of `DType` in templates/include/fusegen/dtype.h.
DTYPES = ("float64", "float32", "bfloat16", "float16")
#: The C++ type that each one's numbers are stored in; kernel.cu is compiled once for each, as FUSEGEN_STORED.
STORED = dict(zip(DTYPES, ("double", "float", "bfloat16", "float16"), strict=True))
