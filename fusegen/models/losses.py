"""Losses of classes in a captured graph: what the target is decides which op they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusegen.models.arguments import UnfitError, tensor_of
from fusegen.models.shapes import same
from fusegen.ops import Op

__all__ = ["by_target"]


def by_target(op: Op, given: dict[str, Any], reads: Tensor | None) -> tuple[Op, dict[str, Any]]:
    """Return the op that a loss is for its target, and its arguments.

    Args:
        op: the op that takes classes.
        given: the arguments, by name.
        reads: the logits, or what the loss takes in their place.

    Raises:
        UnfitError: if the target is neither a class of each row nor a probability of each class.
    """
    target = tensor_of(given.get(op.classes))
    if reads is None or reads.dim() < 2 or target is None:
        raise UnfitError(f"{op.name} of a single row")
    if target.dtype is torch.int64:
        if not same(tuple(target.shape), (reads.shape[0], *reads.shape[2:])):
            raise UnfitError(f"{op.name} with a target of another shape")
        return op, given
    if op.by_probabilities is None or not target.is_floating_point():
        raise UnfitError(f"{op.name} with a target of {target.dtype}")
    if not same(tuple(target.shape), tuple(reads.shape)):
        raise UnfitError(f"{op.name} with a target of another shape")
    return op.by_probabilities, {k: v for k, v in given.items() if k != "ignore_index"}
