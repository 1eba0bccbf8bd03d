"""Writes what a model spells in a way of its own as the ops of which specs are made.

- `torch.where(seen, scores, -inf)` is a `masked_fill`, and so may become attention.
- A factor of bools or integers, as in `x * mask` and `x / lengths`, is cast first, as torch does inside.
- `kl_div` with "batchmean" is its sum, divided by the size of the batch.
- `cosine_similarity` is the sum of the products of two normalised tensors.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from fusegen.models import patterns
from fusegen.models.added_node import added, replace_node
from fusegen.models.arguments import tensor_of
from fusegen.models.beside import has_another_beside
from fusegen.models.effects import Effects, is_in_place
from fusegen.models.shapes import equal, numel, same
from fusegen.models.small_tensors import TIMES

__all__ = ["write_plainly"]

#: The largest `eps` of a cosine that no norm falls below. Of norms that do, the gradient is not that of
#: normalised tensors: torch's cosine has that of the norm as it was.
_LEAST_NORM = 1e-6


def write_plainly(graph: fx.Graph, effects: Effects) -> None:
    """Replace each of these calls by what it computes, if another op is beside it.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved in the graph.
    """
    for node in list(graph.nodes):
        write = _written_by(node)
        if write is None or not effects.may_move(node) or is_in_place(node):
            continue
        if write is not _cosine_similarity and not has_another_beside(node):
            continue
        with graph.inserting_before(node):
            made = write(graph, node)
        if made is not None:
            replace_node(node, made)


def _written_by(node: fx.Node) -> Callable[[fx.Graph, fx.Node], fx.Node | None] | None:
    """Return what writes a node in other words; None if nothing does."""
    if node.target is functional.cosine_similarity:
        return _cosine_similarity
    if node.op == "call_method" and node.target == "where":
        return _masked
    op = patterns.op_of(node)
    return _WRITTEN.get(op.name) if op is not None else None


def _masked(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Write a choice between a tensor and an infinite number, or one that is a method."""
    if len(node.args) != 3 or node.kwargs:
        return None
    condition, first, second = node.args
    if node.op == "call_method":
        first, condition = condition, first
    if not isinstance(condition, fx.Node):
        return None
    if isinstance(first, fx.Node) and _is_infinite(second):
        x, value, hides = first, second, False
    elif isinstance(second, fx.Node) and _is_infinite(first):
        x, value, hides = second, first, True
    elif node.op == "call_method":
        return added(graph, node, torch.where, (condition, first, second))
    else:
        return None
    before, after = tensor_of(x), tensor_of(node)
    if before is None or after is None or before.dtype is not after.dtype:
        return None
    if not same(tuple(before.shape), tuple(after.shape)):
        return None
    hidden = condition if hides else added(graph, condition, torch.logical_not, (condition,))
    return added(graph, node, "masked_fill", (x, hidden, value))


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _with_cast_factors(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Cast the one factor that is no floating-point tensor: a mask, or a small tensor of integers."""
    value = tensor_of(node)
    tensors = {n: t for n in node.all_input_nodes if (t := tensor_of(n)) is not None}
    others = [n for n, t in tensors.items() if not t.is_floating_point()]
    if value is None or not value.is_floating_point() or len(others) != 1 or len(tensors) != 2:
        return None
    (factor,) = others
    kind = tensors[factor]
    if kind.is_complex() or kind.device != value.device or not kind.dim():
        return None
    small = TIMES * numel(tuple(kind.shape)) <= numel(tuple(value.shape))
    if kind.dtype is not torch.bool and not small:
        return None
    cast = added(graph, factor, "to", (factor, value.dtype))
    return graph.node_copy(node, lambda used: cast if used is factor else used)


def _batchmean(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Write a divergence by its sum."""
    if node.kwargs.get("reduction") != "batchmean":
        return None
    x = node.args[0] if node.args else node.kwargs.get("input")
    reads = tensor_of(x)
    if not isinstance(x, fx.Node) or reads is None or not reads.dim():
        return None
    size: Any = reads.shape[0]
    if not isinstance(size, int):
        size = added(graph, x, "size", (x, 0))
    total = added(graph, node, node.target, node.args, {**node.kwargs, "reduction": "sum"})
    return added(graph, node, operator.truediv, (total, size))


def _cosine_similarity(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Write a cosine by normalised tensors, each of which has all numbers of its rows."""
    names = ("x1", "x2", "dim", "eps")
    given = {"dim": 1, "eps": 1e-8, **dict(zip(names, node.args, strict=False)), **node.kwargs}
    first, second, dim, eps = (given.get(name) for name in names)
    one, other, value = (tensor_of(n) for n in (first, second, node))
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return None
    if one is None or other is None or value is None or not isinstance(dim, int):
        return None
    fewer = min(one.dim(), other.dim())
    if (dim >= 0 and one.dim() != other.dim()) or not -fewer <= dim < fewer:
        return None
    if not isinstance(eps, float) or eps > _LEAST_NORM:
        return None
    if not one.dtype is other.dtype is value.dtype or not equal(one.shape[dim], other.shape[dim]):
        return None
    rows = [
        added(graph, n, functional.normalize, (n,), {"dim": dim, "eps": eps})
        for n in (first, second)
    ]
    product = added(graph, node, operator.mul, tuple(rows))
    return added(graph, node, "sum", (product, dim))


_WRITTEN: Mapping[str, Callable[[fx.Graph, fx.Node], fx.Node | None]] = {
    "where": _masked,
    "mul": _with_cast_factors,
    "div": _with_cast_factors,
    "kl_div": _batchmean,
}
