"""Finds rotary position embedding in a captured graph where it is written without `rotate_half`.

Pairs are turned one half at a time, `cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), -1)`, with tables of one
number for each pair, or `stack((...), -1).flatten(-2)` for neighbours. Or only the first columns of a row are
turned, and the rest is put beside them: `cat((x * cos + rotate_half(x) * sin, rest), -1)`. As one call it is
read and written once.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import fx

from fusegen.atoms.halves import MOST_PARTS
from fusegen.models import functions, patterns
from fusegen.models.added_node import replace_node
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.effects import Effects
from fusegen.models.halves import half_of
from fusegen.models.shapes import broadcast, same

__all__ = ["write_ropes"]

_JOINS = (torch.cat, torch.concat, torch.concatenate)
_FLATTENS = frozenset({"flatten", "reshape", "view"})


class _Rope(NamedTuple):
    """A call of `functions.rope`, and the nodes that it stands for."""

    x: fx.Node
    cos: fx.Node
    sin: fx.Node
    keywords: dict[str, Any]
    among: tuple[fx.Node, ...]


def write_ropes(graph: fx.Graph, effects: Effects) -> None:
    """Replace each rotation by one call; what it was made of is left for those who read it.

    Args:
        graph: the graph, in which `rotary.py` has written halves and neighbours that are turned.
        effects: what may not be moved. It knows nothing of the nodes that are added.
    """
    for node in list(graph.nodes):
        found = _by_pairs(node) or _of_some_columns(node)
        if found is None or not _may_move(found, node, effects):
            continue
        with graph.inserting_before(node):
            made = graph.call_function(
                functions.rope, (found.x, found.cos, found.sin), found.keywords
            )
        replace_node(node, made)


def _may_move(found: _Rope, node: fx.Node, effects: Effects) -> bool:
    """Whether a rotation may be one call: its tables get no gradient, and nothing between is changed."""
    tables = [tensor_of(table) for table in (found.cos, found.sin)]
    if any(t is None or t.requires_grad or not t.is_floating_point() for t in tables):
        return False
    known = [
        n for n in (*found.among, node) if n.target not in (functions.rope, functions.rotate_half)
    ]
    stretch = effects.stretch[node]
    return all(effects.may_move(n) and effects.stretch.get(n) == stretch for n in known)


def _by_pairs(node: fx.Node) -> _Rope | None:
    """Return the rotation of a join of both elements of each pair; None if it is none."""
    value = tensor_of(node)
    alternating = name_of(node) in _FLATTENS
    join = node.args[0] if alternating and node.args else node
    if value is None or not isinstance(join, fx.Node):
        return None
    parts = _joined(join, torch.stack if alternating else None)
    if parts is None or len(parts) != 2:
        return None
    if alternating and not _flattens(node, join):
        return None
    first, second = parts
    for one, other in _operands(first, "sub"):
        for cos, a in _factors(one):
            for sin, b in _factors(other):
                halves = half_of(a), half_of(b)
                if halves[0] is None or halves[1] is None or halves[0].whole is not halves[1].whole:
                    continue
                if (halves[0].place, halves[1].place) != (0, 1):
                    continue
                if {half.alternating for half in halves if half} != {alternating}:
                    continue
                whole = halves[0].whole
                turned = _turned_back(second, (b, cos), (a, sin))
                if turned and _has_width(cos, a) and _has_width(sin, a):
                    keywords = {"interleaved": alternating, "per_pair": True}
                    if same(tuple(value.shape), tuple(whole.meta["example_value"].shape)):
                        return _Rope(
                            whole, cos, sin, keywords, (join, first, second, one, other, a, b)
                        )
    return None


def _turned_back(
    node: fx.Node, one: tuple[fx.Node, fx.Node], other: tuple[fx.Node, fx.Node]
) -> bool:
    """Whether a node is the sum of two products of these factors."""
    return any(
        _is_product(left, one) and _is_product(right, other)
        for left, right in _operands(node, "add")
    )


def _is_product(node: fx.Node, factors: tuple[fx.Node, fx.Node]) -> bool:
    """Whether a node is the product of a half of a tensor and a table."""
    half, table = factors
    return any(b is table and half_of(a) == half_of(half) for a, b in _factors(node))


def _of_some_columns(node: fx.Node) -> _Rope | None:
    """Return the rotation of a row's first columns, beside which a join puts the rest; None if it is none."""
    parts = _joined(node, None)
    if parts is None or len(parts) != 2 or len(parts[0].users) > 1:
        return None
    turned, rest = parts
    inner = _whole_rotation(turned)
    if inner is None:
        return None
    front, back = _piece_of(inner.x), _piece_of(rest)
    if front is None or back is None or front[0] is not back[0]:
        return None
    whole = tensor_of(front[0])
    width = whole.shape[-1] if whole is not None and whole.dim() else None
    if not isinstance(width, int) or front[1:] != (0, back[1]) or back[2] != width:
        return None
    count = 2 * width / front[2]
    if count != int(count) or count > MOST_PARTS:
        return None
    keywords = {**inner.keywords, "partial_rotary_factor": front[2] / width}
    return _Rope(front[0], inner.cos, inner.sin, keywords, (*inner.among, turned, rest, inner.x))


def _whole_rotation(node: fx.Node) -> _Rope | None:
    """Return the rotation that a node computes of all of what it turns."""
    if node.target is functions.rope:
        x, cos, sin = node.args
        keywords = dict(node.kwargs)
        if isinstance(x, fx.Node) and isinstance(cos, fx.Node) and isinstance(sin, fx.Node):
            return None if "partial_rotary_factor" in keywords else _Rope(x, cos, sin, keywords, ())
        return None
    for left, right in _operands(node, "add"):
        for cos, x in _factors(left):
            for sin, turned in _factors(right):
                if turned.target is not functions.rotate_half or turned.args[0] is not x:
                    continue
                if _has_width(cos, x) and _has_width(sin, x):
                    keywords = {"interleaved": bool(turned.kwargs.get("interleaved"))}
                    return _Rope(x, cos, sin, keywords, (left, right, turned))
    return None


def _piece_of(node: fx.Node) -> tuple[fx.Node, int, int] | None:
    """Return the tensor of whose last dim a node is a piece, and where the piece begins and ends."""
    if node.target is not operator.getitem:
        return None
    base, index = node.args
    value, tensor = tensor_of(node), tensor_of(base)
    if value is None or not isinstance(base, fx.Node):
        return None
    if isinstance(index, int):
        return _piece_of_split(base, index, value.shape[-1])
    if tensor is None or not isinstance(index, tuple) or not isinstance(index[-1], slice):
        return None
    if any(i is not Ellipsis and i != slice(None) for i in index[:-1]):
        return None
    if Ellipsis not in index[:-1] and len(index) != tensor.dim():
        return None
    sizes = (tensor.shape[-1], value.shape[-1], index[-1].start or 0)
    if index[-1].step not in (None, 1) or not all(isinstance(size, int) for size in sizes):
        return None
    begin = sizes[2] + sizes[0] if sizes[2] < 0 else sizes[2]
    return base, begin, begin + sizes[1]


def _piece_of_split(base: fx.Node, place: int, width: Any) -> tuple[fx.Node, int, int] | None:
    """The same of one of the two pieces of a split of the last dim."""
    pieces = base.meta.get("example_value")
    if name_of(base) not in ("split", "tensor_split", "split_with_sizes"):
        return None
    if not isinstance(pieces, list | tuple) or len(pieces) != 2 or not base.args:
        return None
    whole, tensor = base.args[0], tensor_of(base.args[0])
    dim = base.args[2] if len(base.args) > 2 else base.kwargs.get("dim", 0)
    if tensor is None or not isinstance(whole, fx.Node) or dim not in (-1, tensor.dim() - 1):
        return None
    begin = 0 if place % 2 == 0 else pieces[0].shape[-1]
    both = isinstance(begin, int) and isinstance(width, int)
    return (whole, begin, begin + width) if both else None


def _joined(node: fx.Node, function: Any) -> list[fx.Node] | None:
    """Return the tensors that a node joins along the last dim of its result; None if it does not."""
    if node.op != "call_function" or node.target not in ((function,) if function else _JOINS):
        return None
    parts: Any = node.args[0] if node.args else node.kwargs.get("tensors")
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    value = tensor_of(node)
    if value is None or dim not in (-1, value.dim() - 1) or not isinstance(parts, list | tuple):
        return None
    return list(parts) if all(isinstance(part, fx.Node) for part in parts) else None


def _flattens(node: fx.Node, join: fx.Node) -> bool:
    """Whether a node makes one dim of the last two of a stack."""
    value, stacked = tensor_of(node), tensor_of(join)
    if value is None or stacked is None or stacked.dim() < 2:
        return False
    *before, count, two = stacked.shape
    return same(tuple(value.shape), (*before, count * two))


def _operands(node: fx.Node, name: str) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Yield the two tensors that an op of this name takes, in both orders if these are equal."""
    op = patterns.op_of(node)
    if op is None or op.name != name or len(node.args) != 2 or node.kwargs:
        return
    left, right = node.args
    if isinstance(left, fx.Node) and isinstance(right, fx.Node):
        yield left, right
        if name in ("add", "mul"):
            yield right, left


def _factors(node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """Return the two factors of a product, in both orders."""
    return list(_operands(node, "mul"))


def _has_width(table: fx.Node, turned: fx.Node) -> bool:
    """Whether a table has a number for each column of a tensor, to whose shape it is broadcast."""
    own, value = tensor_of(table), tensor_of(turned)
    if own is None or value is None or not own.dim() or not same(own.shape[-1:], value.shape[-1:]):
        return False
    shape = broadcast([tuple(own.shape), tuple(value.shape)])
    return shape is not None and same(shape, tuple(value.shape))
