"""The dims along which the value of a chain varies that starts from an operand which lists its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusegen.spec.keys import OF
from fusegen.spec.model import Operand, Step

__all__ = ["dims_along"]


def dims_along(
    value: str, before: Sequence[Step], declared: Mapping[str, Operand]
) -> tuple[int, ...] | None:
    """Return the dims along which a value varies, counted from the end; None if they are not known.

    Args:
        value: the name of the value.
        before: the steps up to it and more.
        declared: the operands.
    """
    place = next((n for n, step in enumerate(before) if value in step.names), -1)
    first = next((n for n in range(place, -1, -1) if before[n].is_source), None)
    if first is None or OF not in before[first].factors:
        return None
    start, later = before[first].factors[OF], before[first + 1 : place + 1]
    if any(step.tensors or step.mentions or step.split for step in later):
        return None  # it may be larger
    if any(step.attributes.get("keepdim", True) is False for step in later):
        return None
    if start.is_step:
        return dims_along(start.name, before[:first], declared)
    return declared[start.name].dims
