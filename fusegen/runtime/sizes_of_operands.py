"""Refuses operands of size 1 where they alone give a value its size, which would be larger than in torch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusegen.runtime.along_dims import along_dims
from fusegen.runtime.operand_shapes import Operand

__all__ = ["check_sizes"]


def check_sizes(
    package: str,
    x: Tensor,
    operands: Sequence[Operand],
    given: Sequence[Tensor],
    sized: tuple[tuple[int, tuple[str, ...]], ...],
) -> None:
    """Refuse operands of size 1 that alone give a value its size, which would be larger than in torch.

    Args:
        package: the package's name.
        x: the activation.
        operands: the declarations of the operands.
        given: the operands of the call, which the operators take or which were expanded for them.
        sized: see `Activation`.

    Raises:
        ValueError: no operand that may give the size does.
    """
    for dim, names in sized:
        known = {o.name: (o, t) for o, t in zip(operands, given, strict=True) if o.name in names}
        if x.shape[dim] == 1 or any(_size(*one, x, dim) != 1 for one in known.values()):
            continue
        name, (_, tensor) = next(iter(known.items()), (names[0], (None, x)))
        raise ValueError(
            f"{package}: {name}: expected size {x.shape[dim]} along dim {dim} for x of shape "
            f"{tuple(x.shape)}, got shape {tuple(tensor.shape)}: after a reduction the result would be as "
            "large as x there, and torch's is not; declare an operand of one number as scalar, and others "
            "with `dims` that lack this one, or expand it"
        )


def _size(operand: Operand, tensor: Tensor, x: Tensor, dim: int) -> int:
    """Return the size of an operand along a dim of an activation."""
    if tensor.dim() == 1 and (operand.kind == "channel" or operand.per_channel) and x.dim() > 2:
        return tensor.shape[0] if dim == 1 - x.dim() else 1
    if operand.dims:
        tensor = along_dims(tensor, operand.dims, x.shape)
    return tensor.shape[dim] if tensor.dim() >= -dim else 1
