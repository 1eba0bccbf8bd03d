"""`torch.func.vmap` over an operator: the batch becomes rows if the kinds allow it, else a loop.

Rows are independent, so a batch of activations is one activation with more rows. This needs two things. An
operand that all rows share (a bias) must be shared by the batch. And the operator may not sum over rows: the
gradient of a bias is one sum per member of the batch. Operators that draw random numbers loop too, because a
draw depends on an element's place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fusegen.runtime.operators import BoundOperator

_BY_ROW = frozenset({"full", "row", "dropped", "half"})


def batched(
    call: Callable[[BoundOperator, tuple[Any, ...]], Any],
    size: int,
    dims: Sequence[int | None],
    operator: BoundOperator,
    args: tuple[Any, ...],
    more: int = 0,
) -> tuple[Any, Any]:
    """Return the outputs of a batch of calls, and the dim of the batch in each.

    Args:
        call: calls an operator.
        size: of the batch.
        dims: for each argument, the dim of the batch, or None where all members share it.
        operator: the operator.
        args: the operator's arguments.
        more: how many tensors of x's shape come after them.
    """
    found = _fold(call, size, dims, operator, args, more) if _folds(dims, operator, args) else None
    if found is None:
        members = [
            call(operator, tuple([_member(a, d, n) for a, d in zip(args, dims, strict=True)]))
            for n in range(size)
        ]
        if isinstance(members[0], Tensor):
            return torch.stack(members), 0
        found = tuple([torch.stack(out) for out in zip(*members, strict=True)])
    return found, (0 if isinstance(found, Tensor) else (0,) * len(found))


def _member(argument: Any, dim: int | None, number: int) -> Any:
    return argument if dim is None else argument.select(dim, number)


def _folds(dims: Sequence[int | None], operator: BoundOperator, args: tuple[Any, ...]) -> bool:
    """Whether the batch can become rows."""
    if any(isinstance(kind, tuple) for kind in operator.kinds):
        return False  # it may vary along the dim that the batch would join
    if operator.random or operator.mixes_rows or not _BY_ROW.issuperset(operator.output_kinds):
        return False
    shared = all(
        dim is None or kind in _BY_ROW
        for kind, dim in zip(operator.kinds, dims[: operator.count], strict=True)
    )
    dims_of_one = args[0].dim() - (dims[0] is not None)
    return shared and (
        _merges(dims, operator, args) or (dims_of_one == 1 and operator.columns == (-1, -1))
    )


def _merges(dims: Sequence[int | None], operator: BoundOperator, args: tuple[Any, ...]) -> bool:
    """Whether the batch can join the first dim of an activation: that dim must belong to its rows, and to one
    half of x."""
    return bool(args[0].dim() - (dims[0] is not None) > max(-operator.columns[0], -operator.halved))


def _fold(
    call: Callable[[BoundOperator, tuple[Any, ...]], Any],
    size: int,
    dims: Sequence[int | None],
    operator: BoundOperator,
    args: tuple[Any, ...],
    more: int,
) -> Any:
    """Run the batch as rows of one call: [B, rows, …, cols] becomes [B rows, …, cols]; [B, cols] stays."""
    merges = _merges(dims, operator, args)
    tensors = operator.count + (operator.statistics if operator.order else 0)

    def folded(place: int) -> Any:
        tensor, dim = args[place], dims[place]
        if tensors <= place < len(args) - more or (
            place < operator.count and operator.kinds[place] not in _BY_ROW
        ):
            return tensor
        whole = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        if operator.count <= place < tensors:  # of one row, the batch that shares it is a view
            return whole.flatten(0, 1).contiguous()
        return whole.flatten(0, 1) if merges else whole

    def unfolded(tensor: Tensor, statistic: bool) -> Tensor:
        return (
            tensor.unflatten(0, (size, tensor.shape[0] // size)) if merges or statistic else tensor
        )

    found = call(operator, tuple([folded(place) for place in range(len(args))]))
    if isinstance(found, Tensor):
        return unfolded(found, False)
    plain = len(operator.like)
    return tuple([unfolded(t, number >= plain) for number, t in enumerate(found)])
