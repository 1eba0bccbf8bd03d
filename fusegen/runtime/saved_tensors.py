"""The tensors that a call keeps for its derivative, and what stands for those that it does not keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fusegen.runtime.operators import as_tuple

__all__ = ["kept_tensors", "with_unread", "without_unread"]


def kept_tensors(
    kept: Sequence[tuple[int, int]], tensors: Sequence[Tensor], out: Any
) -> Sequence[Tensor]:
    """Return the tensors that a derivative takes: those of the call, and an output in the place of some."""
    if not kept:
        return tensors
    found, outputs = list(tensors), as_tuple(out)
    for place, output in kept:
        found[place] = outputs[output]
    return found


def without_unread(
    unread: Sequence[tuple[int, int]], tensors: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """Return the tensors that are kept for a derivative, without those of which it reads no number."""
    if not unread:
        return tensors
    found: list[Tensor | None] = [*tensors]
    for place, _ in unread:
        found[place] = None
    return found


def with_unread(
    unread: Sequence[tuple[int, int]],
    tensors: Sequence[Tensor | None],
    cotangents: Sequence[Tensor | None],
) -> Sequence[Any]:
    """Return the tensors that a derivative takes, from those that were kept for it.

    Args:
        unread: see `Operator.unread`.
        tensors: those that were kept.
        cotangents: the cotangents, of which there is one at least.
    """
    if not unread:
        return tensors
    found, one = [*tensors], next(c for c in cotangents if c is not None)
    for place, source in unread:
        if found[place] is None:
            found[place] = one if source < 0 else tensors[source]
    return found
