"""The dtypes that kernels are compiled for."""

from __future__ import annotations

__all__ = ["BYTES", "DTYPES", "STORED", "dtype_named"]

#: Their names, in the order of `DType` in templates/include/fusegen/dtype.h.
DTYPES = ("float64", "float32", "bfloat16", "float16")
#: The C++ type that each one's numbers are stored in; kernel.cu is compiled once for each, as FUSEGEN_STORED.
STORED = dict(zip(DTYPES, ("double", "float", "bfloat16", "float16"), strict=True))
#: The bytes of an element of each one.
BYTES = dict(zip(DTYPES, (8, 4, 2, 2), strict=True))
#: Other names of them, which torch, compilers and the tables of `fusegen bench` use.
_OTHER_NAMES = {
    **{"float64": ("fp64", "f64", "double"), "float32": ("fp32", "f32", "float", "single")},
    **{"bfloat16": ("bf16",), "float16": ("fp16", "f16", "half")},
}
_NAMED = {other: name for name, others in _OTHER_NAMES.items() for other in others}


def dtype_named(word: object) -> str:
    """Return the name of the dtype that a word or a dtype of torch means; other words stay as they are."""
    plain = str(word).strip().removeprefix("torch.")
    return _NAMED.get(plain.lower(), plain)
