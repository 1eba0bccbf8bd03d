"""In which order the elements of an activation lie, and for which kernels that will do.

The kernels decide this by themselves (templates/include/fusegen/binding.h, `Activation::lies_in`); here it is
said again for those who must know a result's strides without running them.
"""

from __future__ import annotations

from torch import Tensor


def keeps_order(x: Tensor, order: str, columns: tuple[int, int]) -> bool:
    """Return whether kernels take x as it lies and give their results the same strides.

    Args:
        x: the activation.
        order: what the kernels can do. "contiguous": one dim behind the other; else elements may lie in any
            order without gaps, but for "packed" and "strided" columns lie together and in their own order,
            and so do rows; for "packed" nothing lies behind the columns.
        columns: the first and the last dim along which a row runs, counted from the end.
    """
    if order == "contiguous" or x.is_contiguous() or not x.numel():
        return False
    strides = x.stride()
    lying = sorted((d for d in range(x.dim()) if x.shape[d] > 1), key=lambda d: -strides[d])
    apart = 1
    for dim in reversed(lying):
        if strides[dim] != apart:
            return False
        apart *= x.shape[dim]
    if order == "any":
        return True
    of_columns = range(x.dim() + columns[0], x.dim() + columns[1] + 1)
    inside = [place for place, dim in enumerate(lying) if dim in of_columns]
    across = [dim for dim in lying if dim not in of_columns]
    along = [lying[place] for place in inside]
    together = not inside or inside[-1] - inside[0] == len(inside) - 1
    behind = bool(inside) and inside[-1] < len(lying) - 1
    in_order = across == sorted(across) and along == sorted(along)
    return together and in_order and not (order == "packed" and behind)
