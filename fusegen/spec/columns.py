"""The columns of a parameter: how many dims its shape needs of a row, as far as the spec says."""

from __future__ import annotations

from collections.abc import Iterable

from fusegen.program import Kind
from fusegen.spec.model import Argument, Operand, Shape

__all__ = ["columns_problem"]


def columns_problem(
    operand: Operand, arguments: Iterable[Argument], first: int, last: int
) -> str | None:
    """Return why a parameter of kind col does not fit rows of some dims, or None if it may.

    Args:
        operand: the operand.
        arguments: the arguments of its spec.
        first: the first dim of a row, counted from the end.
        last: the last one.
    """
    if operand.kind is not Kind.COL:
        return None
    shape: object = operand.shape
    if isinstance(shape, str):
        shape = next(a.default for a in arguments if a.name == shape)
    if not isinstance(shape, tuple):
        return None  # it is known at construction
    places = [place - len(shape) for place, size in enumerate(shape) if size != 1]
    if all(first <= place <= last for place in places):
        return None
    return f"{operand.name!r} cannot broadcast: {_listed(shape)} is not of kind col {_row(first, last)}"


def _listed(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _row(first: int, last: int) -> str:
    """Return the shape of what has a number for each column of a row."""
    columns = ["cols"] if first == last else [f"dim {dim}" for dim in range(first, last + 1)]
    return _listed((*columns, *[1] * (-1 - last)))
