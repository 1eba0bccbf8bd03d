"""Finds the parts of one width that a captured graph takes of a tensor, by a split or by slices."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from fusegen.atoms.halves import MOST_PARTS
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.effects import Effects

__all__ = ["Cut", "cuts_of"]

_SPLITS = frozenset({"chunk", "split", "tensor_split"})


@dataclass
class Cut:
    """A tensor whose parts along a dim are read.

    Args:
        whole: the tensor.
        dim: the dim, counted from the end.
        among: how many parts it has.
        places: which part each node is.
        between: the nodes between the tensor and these: what splits it.
    """

    whole: fx.Node
    dim: int
    among: int
    places: dict[fx.Node, int] = field(default_factory=dict)
    between: dict[fx.Node, None] = field(default_factory=dict)


def cuts_of(graph: fx.Graph, effects: Effects) -> list[Cut]:
    """Return the tensors whose parts of one width are taken, in the graph's order."""
    pieces: dict[tuple[fx.Node, int, Any], list[tuple[fx.Node, int, fx.Node | None]]] = {}
    for node in graph.nodes:
        if not node.users or not effects.may_move(node):
            continue
        piece = _piece_of_split(node) or _piece_of_slice(node)
        if piece is not None:
            whole, dim, start, size, between = piece
            pieces.setdefault((whole, dim, size), []).append((node, start, between))
    found = []
    for (whole, dim, size), taken in pieces.items():
        tensor = tensor_of(whole)
        length = tensor.shape[dim] if tensor is not None else 0
        if not size or length % size or any(start % size for _, start, _ in taken):
            continue
        cut = Cut(whole, dim, length // size)
        for node, start, between in taken:
            cut.places[node] = start // size
            cut.between |= {} if between is None else {between: None}
        if 2 <= cut.among <= MOST_PARTS and len({*cut.places.values()}) > 1:
            found.append(cut)
    return found


def _piece_of_split(node: fx.Node) -> tuple[fx.Node, int, int, int, fx.Node | None] | None:
    """Return the tensor of which a node is a piece of a split, its dim, where it starts, and its size."""
    if node.target is not operator.getitem or len(node.args) != 2:
        return None
    split: Any = node.args[0]
    place: Any = node.args[1]
    if not isinstance(split, fx.Node) or name_of(split) not in _SPLITS or type(place) is not int:
        return None
    parts: Any = split.meta.get("example_value")
    whole: Any = split.args[0] if split.args else None
    tensor = tensor_of(whole)
    if tensor is None or not isinstance(whole, fx.Node) or not isinstance(parts, list | tuple):
        return None
    dim: Any = split.kwargs.get("dim", split.args[2] if len(split.args) > 2 else 0)
    if type(dim) is not int or not -len(parts) <= place < len(parts):
        return None
    dim, place = dim % tensor.dim(), place % len(parts)
    sizes = [part.shape[dim] for part in parts]
    if any(type(size) is not int for size in (*sizes, tensor.shape[dim])):
        return None
    return whole, dim - tensor.dim(), sum(sizes[:place]), sizes[place], split


def _piece_of_slice(node: fx.Node) -> tuple[fx.Node, int, int, int, fx.Node | None] | None:
    """Return the same of a slice along one dim, such as `x[..., 8:16]` or `x.narrow(1, 8, 8)`."""
    args: Any = node.args
    whole = args[0] if args else None
    tensor = tensor_of(whole)
    if tensor is None or not isinstance(whole, fx.Node) or node.kwargs or not tensor.dim():
        return None
    if name_of(node) == "narrow" and len(args) == 4:
        dim, start, size = args[1:]
        if any(type(number) is not int for number in (dim, start, size)) or start < 0:
            return None
        return whole, dim % tensor.dim() - tensor.dim(), start, size, None
    if node.target is not operator.getitem or len(node.args) != 2:
        return None
    along = _sliced_dim(args[1], tensor.dim())
    if along is None:
        return None
    dim, one = along
    length = tensor.shape[dim]
    if type(length) is not int or any(
        type(n) not in (int, type(None)) for n in (one.start, one.stop)
    ):
        return None
    start, stop, _ = one.indices(length)
    return whole, dim, start, max(stop - start, 0), None


def _sliced_dim(index: Any, dims: int) -> tuple[int, slice] | None:
    """Return the dim, counted from the end, that an index slices, and how; None if it does more."""
    each = list(index) if isinstance(index, tuple) else [index]
    if any(one is not Ellipsis and not isinstance(one, slice) for one in each):
        return None
    if each.count(Ellipsis) > 1 or any(
        s.step not in (None, 1) for s in each if isinstance(s, slice)
    ):
        return None
    if Ellipsis not in each:
        each.append(Ellipsis)
    place = each.index(Ellipsis)
    each[place : place + 1] = [slice(None)] * (dims + 1 - len(each))
    found = [(n - dims, one) for n, one in enumerate(each) if one != slice(None)]
    return found[0] if len(found) == 1 else None
