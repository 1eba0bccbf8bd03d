"""Says which half of a tensor's last dim a node of a captured graph is, or whether it has every other column.

A model writes halves as slices (`x[..., :n]`, `x[..., ::2]`), as pieces of a split, or as elements of the
last dim of what it sees as pairs (`x.reshape(..., -1, 2)`).
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from torch import fx

from fusegen.atoms.halves import MOST_PARTS
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.shapes import same

__all__ = ["Half", "Part", "half_of", "pairs_of", "part_of"]

_SPLITS = frozenset({"chunk", "split", "tensor_split"})
_RESHAPES = frozenset({"reshape", "view", "unflatten"})


class Half(NamedTuple):
    """A half of a tensor's last dim.

    Args:
        whole: the tensor.
        place: 0 for the first half or the even columns, 1 for the second half or the odd ones.
        alternating: whether they are the even or the odd columns.
    """

    whole: fx.Node
    place: int
    alternating: bool = False


class Part(NamedTuple):
    """One of several parts of a tensor's last dim, of one width.

    Args:
        whole: the tensor.
        place: the number of the part.
        among: how many there are.
        alternating: whether they are two, the even and the odd columns.
    """

    whole: fx.Node
    place: int
    among: int
    alternating: bool


def part_of(node: fx.Node) -> Part | None:
    """Return which of which tensor's parts a node is: a half, or a piece of several; None if it is none."""
    if half := half_of(node):
        return Part(half.whole, half.place, 2, half.alternating)
    base, place = node.args if node.target is operator.getitem else (None, None)
    if not isinstance(base, fx.Node) or not isinstance(place, int) or name_of(base) not in _SPLITS:
        return None
    pieces, whole = base.meta.get("example_value"), base.args[0] if base.args else None
    value, tensor = tensor_of(node), tensor_of(whole)
    if value is None or tensor is None or not isinstance(whole, fx.Node) or not tensor.dim():
        return None
    count = len(pieces) if isinstance(pieces, list | tuple) else 0
    width = tensor.shape[-1]
    if not 2 < count <= MOST_PARTS or not isinstance(width, int) or width % count:
        return None
    like = same(tuple(value.shape), (*tensor.shape[:-1], width // count))
    return Part(whole, place % count, count, False) if like else None


def half_of(node: fx.Node) -> Half | None:
    """Return which half of which tensor a node is; None if it is none."""
    value = tensor_of(node)
    if value is None or node.target is not operator.getitem:
        return None
    base, index = node.args
    if not isinstance(base, fx.Node):
        return None
    found = _piece(base, index) if isinstance(index, int) else _sliced(base, index)
    if found is None:
        return None
    tensor = tensor_of(found.whole)
    if tensor is None or not tensor.dim() or not isinstance(tensor.shape[-1], int):
        return None
    halved = (*tensor.shape[:-1], tensor.shape[-1] // 2)
    return None if tensor.shape[-1] % 2 or not same(tuple(value.shape), halved) else found


def pairs_of(node: Any) -> fx.Node | None:
    """Return the tensor whose last dim a node sees as pairs of neighbours; None if it does something else."""
    if not isinstance(node, fx.Node) or name_of(node) not in _RESHAPES:
        return None
    value, whole = tensor_of(node), node.args[0] if node.args else None
    tensor = tensor_of(whole)
    if value is None or tensor is None or not isinstance(whole, fx.Node):
        return None
    if not tensor.dim() or not isinstance(tensor.shape[-1], int) or tensor.shape[-1] % 2:
        return None
    wanted = (*tensor.shape[:-1], tensor.shape[-1] // 2, 2)
    return whole if same(tuple(value.shape), wanted) else None


def _piece(base: fx.Node, place: int) -> Half | None:
    """Return which half one piece of a split is, or one of the two elements of pairs."""
    parts = base.meta.get("example_value")
    if not isinstance(parts, list | tuple) or len(parts) != 2 or place not in (0, 1):
        return None
    whole: Any = base.args[0] if base.args else None
    if name_of(base) in _SPLITS and isinstance(whole, fx.Node):
        return Half(whole, place)
    pairs = pairs_of(whole)
    tensor = tensor_of(whole)
    if name_of(base) != "unbind" or pairs is None or tensor is None:
        return None
    dim = base.args[1] if len(base.args) > 1 else base.kwargs.get("dim", 0)
    return Half(pairs, place, True) if dim in (-1, tensor.dim() - 1) else None


def _sliced(base: fx.Node, index: Any) -> Half | None:
    """Return which half of the last dim an index takes, or None if it does something else."""
    tensor = tensor_of(base)
    if tensor is None or not isinstance(index, tuple) or not index:
        return None
    before, last = index[:-1], index[-1]
    if any(i is not Ellipsis and i != slice(None) for i in before):
        return None
    if Ellipsis not in before and len(index) != tensor.dim():
        return None
    if isinstance(last, int):
        pairs = pairs_of(base)
        place = last + 2 if last < 0 else last
        return None if pairs is None or place not in (0, 1) else Half(pairs, place, True)
    if not isinstance(last, slice):
        return None
    middle, size = tensor.shape[-1] // 2, tensor.shape[-1]
    if last.step == 2 and last.start in (None, 0, 1) and last.stop in (None, size):
        return Half(base, last.start or 0, True)
    if last.step not in (None, 1):
        return None
    if last.start in (None, 0) and last.stop == middle:
        return Half(base, 0)
    return Half(base, 1) if last.start == middle and last.stop in (None, size) else None
