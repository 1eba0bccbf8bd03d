"""The memory format of an activation, and which kernels take it without a copy.

The kernels decide this themselves (templates/include/fusegen/activation_impl.h). The decision is repeated
here for fake tensors, which need a result's strides without running a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

#: If a kernel takes any contiguous run as a row, shorter runs are copied, unless the parts of x are that
#: short. So are tensors with gaps and this many elements. A tensor has gaps at no more than three dims.
#: activation.h and strided.h have the same numbers.
SHORTEST, MOST, GAPS = 32, 2**31, 3


def keeps_strides(
    x: Tensor,
    shape: Sequence[int],
    memory_format: str,
    columns: tuple[int, int],
    halved: int = 0,
    partition: tuple[int, bool] = (2, False),
) -> bool:
    """Return whether kernels take x's dims in the order that they have in memory.

    Results then have the same order, without gaps; else they are contiguous.

    Args:
        x: the tensor of the activation.
        shape: the activation's: x's, or that of one of its halves.
        memory_format: what the kernels take. "contiguous": the dims in their own order. "grouped": that, or
            with the channels last. "any": in
            any order; a row is then any contiguous run. "packed" and "strided": in an order in which columns
            are neighbours and in their own order, and so are rows; for "packed" no dim comes after the
            columns. All of them allow gaps between rows.
        columns: the first and the last dim along which a row runs, counted from the end.
        halved: the dim along which x has two halves or more parts, counted from the end; 0 if it has none.
        partition: how many parts there are, and whether the columns of the first two alternate.
    """
    if memory_format == "contiguous" or x.is_contiguous() or not x.numel():
        return False
    parts, alternating = partition
    steps = ((2,) if parts == 2 else (2, 1)) if alternating else (1,)
    if alternating and x.stride(-1) != 1:
        return False
    shortest = min(SHORTEST, math.prod(shape[halved:])) if halved and 1 in steps else SHORTEST

    def lies(dims: Sequence[int], row: int) -> bool:
        return all(_lies(x, shape, dims, row, shortest, step) for step in steps)

    dims = [d for d in range(len(shape)) if shape[d] > 1]
    of_columns = range(len(shape) + columns[0], len(shape) + columns[1] + 1)
    strides = x.stride()
    lasting = [strides[d] for d in dims if strides[d]]
    in_order = lasting == sorted(lasting, reverse=True)
    row = 0 if memory_format == "any" else math.prod(shape[columns[0] :])
    if in_order and lies(dims, row):
        return False
    dims.sort(key=lambda dim: -strides[dim])
    if alternating and any(strides[d] < strides[-1] for d in range(len(shape))):
        return False
    if memory_format == "any":
        return lies(dims, 0)
    if memory_format == "grouped":
        others = sorted(set(dims) - {1})
        return dims == [*others, 1] and lies(dims, math.prod(shape[1:]))
    inside = [place for place, dim in enumerate(dims) if dim in of_columns]
    across = [dim for dim in dims if dim not in of_columns]
    along = [dims[place] for place in inside]
    if across != sorted(across) or along != sorted(along):
        return False
    if inside and inside[-1] - inside[0] != len(inside) - 1:
        return False
    after = dims[inside[-1] + 1 :] if inside else []
    if memory_format == "packed" and after:
        return False
    return lies(dims, math.prod(shape[d] for d in (*along, *after)))


def _lies(
    x: Tensor, shape: Sequence[int], dims: Sequence[int], row: int, shortest: int, step: int
) -> bool:
    """Whether x, with its dims in a given order, has gaps at no more dims than a kernel can count.

    The gaps must be between rows with a given number of elements, or, if that is 0, between long enough runs.
    What lies between the columns of the last dim, which are `step` apart, is no gap.
    """
    count, apart = 1, step
    strides = list(x.stride())
    strides[-1:] = [s * step for s in strides[-1:]]
    gaps = last = 0
    for dim in reversed(dims):
        if strides[dim] != apart:
            gaps += 1
            short = count % row != 0 if row else count < shortest
            if gaps > GAPS or (gaps == 1 and short) or math.prod(shape) >= MOST:
                return False
        count *= shape[dim]
        apart = strides[dim] * shape[dim]
        last += strides[dim] * (shape[dim] - 1)
    return not gaps or last < MOST
