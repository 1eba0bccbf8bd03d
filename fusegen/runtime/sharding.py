"""How an operator runs on shards of a DTensor. This follows from the kinds of its inputs and outputs.

Rows are independent. So an activation that is sharded by rows needs no exchange, and a sum over rows (the
gradient of a bias) is a partial sum of each shard. The same is true of an activation that is sharded by
columns, if the operator reduces no row. DTensor gathers everything else first.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from fusegen.runtime.operators import BoundOperator

_MODULE = "torch.distributed.tensor"
_known: set[str] = set()


def know_shardings(operator: BoundOperator) -> None:
    """Register sharding rules once DTensor is imported. The import takes a second, and few programs need
    it."""
    name = operator.name
    if name in _known or _MODULE not in sys.modules:
        return
    from torch.distributed.tensor.experimental import register_sharding

    _known.add(name)
    register_sharding(operator.overload)(lambda *args: _shardings(operator, args))  # type: ignore[arg-type]


def shard_index(x: Tensor) -> int:
    """Return the number of this process's shard of a DTensor, or 0 for a plain tensor."""
    if _MODULE not in sys.modules:
        return 0
    from torch.distributed.tensor import DTensor

    if not isinstance(x, DTensor):
        return 0
    index = 0
    coordinate = x.device_mesh.get_coordinate() or ()
    for place, placement in enumerate(x.placements[: len(coordinate)]):
        if placement.is_shard():
            index = index * x.device_mesh.size(place) + coordinate[place]
    return index


def _shardings(operator: BoundOperator, args: tuple[Any, ...]) -> list[tuple[list[Any], list[Any]]]:
    """Return the placements of outputs and inputs, along one dim of a mesh, that need no exchange."""
    from torch.distributed.tensor import Replicate

    dims = len(args[0].shape)
    replicated = (
        [Replicate()] * operator.returned,
        _padded(operator, args, [Replicate()] * operator.count),
    )
    found: list[tuple[list[Any], list[Any]]] = [replicated]
    if operator.mixes_rows or (
        operator.statistics and any(isinstance(kind, tuple) for kind in operator.kinds)
    ):  # in statistics, rows may be counted in another order
        return found
    columns = (
        range(dims + operator.columns[0], dims + operator.columns[1] + 1) if dims else range(0)
    )
    for dim in range(dims):
        if operator.halved and dim == dims + operator.halved:
            continue  # a shard would have rows of one half only
        if dim in columns:
            if operator.by_column and len(columns) == 1 and not operator.grouped:
                found.append(_split(operator, args, dim, "row"))
        elif (
            dim == 0 or not operator.statistics
        ):  # statistics are flat: only the first dim can split them
            found.append(_split(operator, args, dim, "col"))
    return found


def _split(
    operator: BoundOperator, args: tuple[Any, ...], dim: int, across: str
) -> tuple[list[Any], list[Any]]:
    """Return the placements if x is split along a dim; values of kind `across` do not vary along it."""
    from torch.distributed.tensor import Partial, Replicate, Shard

    dims = len(args[0].shape)

    def place(kind: Any, shape: Any, summed: Any) -> Any:
        if isinstance(kind, tuple):
            at = dim - (dims - len(shape))  # leading dims may be missing
            return Shard(at) if dim - dims in kind else summed
        if kind in ("scalar", across) or (kind == "channel" and dim != 1):
            return summed
        if kind == "dropped":  # x's shape without its columns
            gone = range(dims + operator.columns[0], dims + operator.columns[1] + 1)
            return summed if dim in gone else Shard(dim - (len(gone) if dim > gone[-1] else 0))
        if kind == "channel":  # [C, 1, 1] or [C]: the dim before those that are all ones
            return Shard(max(0, len(shape) - (dims - 1)))
        return Shard(dim - (dims - len(shape)))  # leading dims may be missing

    shapes = [args[n].shape for n in range(operator.count)]
    inputs = [place(k, s, Replicate()) for k, s in zip(operator.kinds, shapes, strict=True)]
    outputs = [
        place(k, shapes[n], Partial())
        for k, n in zip(operator.output_kinds, operator.like, strict=True)
    ]
    if operator.order == 0:
        outputs += [Shard(0)] * operator.statistics
    return outputs, _padded(operator, args, inputs, Shard(0))


def _padded(
    operator: BoundOperator, args: tuple[Any, ...], placements: list[Any], statistic: Any = None
) -> list[Any]:
    """Return the placements of all arguments: those of the tensors, the statistics and the seed."""
    from torch.distributed.tensor import Replicate

    statistics = [statistic or Replicate()] * (operator.statistics if operator.order else 0)
    whole = [*placements, *statistics, *([Replicate()] if operator.random else [])]
    return whole + [None] * (len(args) - len(whole))
