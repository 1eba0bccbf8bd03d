"""Which of a region's inputs may be the activation, on which a spec is called."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from fusegen.models.arguments import tensor_of
from fusegen.models.regions import Region
from fusegen.models.shapes import Shape, equal, same

__all__ = ["activations", "dependents", "shape_of"]


def activations(region: Region) -> list[fx.Node]:
    """Return the inputs that may be the activation, that on which the most nodes depend first.

    Where none has its shape, as in an outer product, one is broadcast with the others. Results have the
    memory format of the activation, so one that has that of the last result comes before others. A gate of
    two halves comes first in a chain, which then is called on the tensor that has them.
    """
    halved = [call.x for call in region.calls.values() if call.halves]
    if halved:
        return [x for x in dict.fromkeys(halved) if isinstance(x, fx.Node)]
    numbers = [n for n in region.inputs if _is_floating(n)]
    whole = [n for n in numbers if same(shape_of(n), region.shape)]
    found = whole if whole or isinstance(region.rows, str) else numbers
    results = region.outputs or list(region.calls)
    strides = _strides(results[-1])
    return sorted(found, key=lambda n: (-len(dependents(region, [n])), _strides(n) != strides))


def _is_floating(node: fx.Node) -> bool:
    tensor = tensor_of(node)
    return tensor is not None and tensor.is_floating_point()


def dependents(region: Region, roots: Iterable[fx.Node]) -> set[fx.Node]:
    """Return some nodes and those of a region that depend on them."""
    found = set(roots)
    for node, call in region.calls.items():
        if any(i in found for i in call.inputs):
            found.add(node)
    return found


def shape_of(node: fx.Node) -> Shape:
    """Return the shape of a node's tensor; empty if it is none."""
    tensor = tensor_of(node)
    return tuple(tensor.shape) if tensor is not None else ()


def _strides(node: fx.Node) -> list[str]:
    """Return a tensor's strides, but for those of dims of size 1."""
    tensor = tensor_of(node)
    assert tensor is not None
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return [str(stride) for size, stride in pairs if not equal(size, 1)]
