"""The dims in a step: checks that the activation has them, and puts several in order."""

from __future__ import annotations

from collections.abc import Sequence


class DimError(ValueError):
    """Dims that a step cannot reduce over. The message is for the spec's author."""


def check_dim(name: str, dim: int, dims: int, why: str = "") -> None:
    """Refuse a dim that the activation does not have.

    Args:
        name: what the spec calls it.
        dim: the dim.
        dims: the activation's number of dims, or 0 for any.
        why: the reason why it can only be the last of [rows, cols], if it can.

    Raises:
        DimError: if it does not have the dim, or the dim is not the last of [rows, cols].
    """
    if dim in (-1, 1):
        return
    if dims >= 3:
        if not -dims <= dim < dims:
            raise DimError(f"{name} {dim} does not exist: the activation has {dims} dims")
    elif dim in (0, -2) and why:
        raise DimError(f"{why}: {name} is -1 or 1, not {dim}")
    elif dim in (0, -2):
        if dims != 2:
            raise DimError(f"{name} {dim} is the first dim of a matrix: say `dims: 2` if x is one")
    else:
        raise DimError(f"{name} {dim} does not exist: of [rows, cols], the last dim is -1 or 1")


def dims_in_order(name: str, given: Sequence[int], dims: int) -> tuple[int, ...]:
    """Return some dims in order, counted from the end.

    Raises:
        DimError: if the activation does not have them all, or one is given twice.
    """
    listed = list(given)
    if dims < 3:
        raise DimError(
            f"{name} {listed} needs an activation of several dims: say how many with `dims:`"
        )
    for dim in listed:
        check_dim(name, dim, dims)
    named = sorted(dim % dims - dims for dim in listed)
    if len({*named}) < len(named):
        raise DimError(f"the dims {listed} have one twice")
    return tuple(named)


def are_dims(value: object) -> bool:
    """Return whether a value is a list of dims."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    )
