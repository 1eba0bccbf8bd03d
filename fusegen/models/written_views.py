"""Writes the steps of a view into a graph, and says what they make of a fake tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fusegen.models.arguments import tensor_of
from fusegen.models.shapes import Shape, equal, same
from fusegen.models.views import Step, base_of, image_of, step_of

__all__ = ["sizes_of", "viewed", "viewed_value"]


def sizes_of(graph: fx.Graph) -> dict[str, fx.Node]:
    """Return the sizes that change from call to call and are inputs of a graph, by their symbols."""
    given = {n: n.meta.get("example_value") for n in graph.nodes if n.op == "placeholder"}
    return {str(value): n for n, value in given.items() if isinstance(value, torch.SymInt)}


def viewed_value(
    value: Tensor, steps: Sequence[Step], sizes: Mapping[str, fx.Node], *, broadcasts: bool = False
) -> Tensor | None:
    """Return what steps make of a fake tensor; None if they cannot be written.

    Args:
        value: the tensor.
        steps: the steps.
        sizes: the sizes of the graph that change from call to call.
        broadcasts: whether all that reads it broadcasts it: dims of size 1 at its start may be missing.
    """
    calls = _calls(tuple(value.shape), steps, sizes, broadcasts=broadcasts)
    for name, argument in calls or ():
        value = getattr(value, name)(argument)
    return value if calls is not None else None


def viewed(
    graph: fx.Graph,
    node: fx.Node,
    steps: Sequence[Step],
    sizes: Mapping[str, fx.Node],
    *,
    broadcasts: bool = False,
) -> fx.Node:
    """Add the nodes of some steps to a graph, where it is being inserted into; return the last.

    If steps undo the view that the node is, what it is a view of is returned.

    Args:
        graph: the graph. It is changed.
        node: the node whose value takes the steps.
        steps: the steps. They can be written.
        sizes: the sizes of the graph that change from call to call.
        broadcasts: whether all that reads it broadcasts it: dims of size 1 at its start may be missing.
    """
    tensor = tensor_of(node)
    assert tensor is not None
    calls = _calls(tuple(tensor.shape), steps, sizes, broadcasts=broadcasts)
    assert calls is not None
    for name, argument in calls:
        node = _viewed_once(graph, node, name, argument, sizes)
    return node


def _viewed_once(
    graph: fx.Graph, node: fx.Node, name: str, argument: Shape, sizes: Mapping[str, fx.Node]
) -> fx.Node:
    value, undone = tensor_of(node), step_of(node)
    assert value is not None
    made = getattr(value, name)(argument)
    base = base_of(node) if undone is not None else None
    if base is not None and undone is not None:
        if name == "permute" and undone.order == tuple(map(argument.index, range(len(argument)))):
            return base
        if name == "reshape" and undone.order is None and same(undone.before, tuple(made.shape)):
            return base
    given = tuple(a if isinstance(a, int) else sizes[str(a)] for a in argument)
    added = graph.call_method(name, (node, given))
    added.meta = {**node.meta, "example_value": made}
    return added


def _calls(
    shape: Shape, steps: Sequence[Step], known: Mapping[str, fx.Node], *, broadcasts: bool
) -> list[tuple[str, Shape]] | None:
    """Return the methods that take a tensor of a shape through steps; None if they cannot be written."""
    image = image_of(steps, shape)
    if image is None:
        return None
    if not steps or not same(shape, steps[0].before):
        # A tensor with few dims that are not 1, whose order stays: one regrouping, or nothing.
        if _has_shape(shape, image, broadcasts=broadcasts):
            return []
        if _stays_in_order(shape, steps):
            sizes = _sizes(_without_leading(image) if broadcasts else image, known)
            return None if sizes is None else [("reshape", sizes)]
    found: list[tuple[str, Shape]] = []
    for step in steps:
        after = step.image(shape)
        assert after is not None
        if step.order is not None:
            if len(shape) < len(step.before):
                sizes = _sizes((*(1,) * (len(step.before) - len(shape)), *shape), known)
                if sizes is None:
                    return None
                found.append(("reshape", sizes))
            found.append(("permute", step.order))
        elif not same(shape, after):
            sizes = _sizes(after, known)
            if sizes is None:
                return None
            found.append(("reshape", sizes))
        shape = after
    return found


def _has_shape(shape: Shape, wanted: Shape, *, broadcasts: bool) -> bool:
    """Return whether a tensor has a shape, is one number, or is broadcast to the same."""
    if not broadcasts:
        return not shape or same(shape, wanted)  # the mean of all elements has no dims in any view
    return len(shape) <= len(wanted) and same(_without_leading(shape), _without_leading(wanted))


def _without_leading(shape: Shape) -> Shape:
    """Return a shape without dims of size 1 at its start."""
    for place, size in enumerate(shape):
        if not equal(size, 1):
            return shape[place:]
    return ()


def _stays_in_order(shape: Shape, steps: Sequence[Step]) -> bool:
    """Return whether steps leave the dims of a tensor that are not of size 1 in their order."""
    for step in steps:
        padded = (*(1,) * (len(step.before) - len(shape)), *shape)
        if step.order is not None:
            moved = [dim for dim in step.order if not equal(padded[dim], 1)]
            if moved != sorted(moved):
                return False
        after = step.image(shape)
        assert after is not None
        shape = after
    return True


def _sizes(shape: Shape, known: Mapping[str, fx.Node]) -> Shape | None:
    """Return a shape as an argument of `reshape`; None if the graph does not know two sizes of it."""
    given = tuple(map(_constant, shape))
    unknown = [n for n, s in enumerate(given) if not isinstance(s, int) and str(s) not in known]
    if not unknown:
        return given
    if len(unknown) > 1 or 0 in [size for size in given if isinstance(size, int)]:
        return None
    return (*given[: unknown[0]], -1, *given[unknown[0] + 1 :])


def _constant(size: Any) -> Any:
    """Return a size as an integer if it is the same at every call."""
    number = size.node.maybe_as_int() if isinstance(size, torch.SymInt) else None
    return size if number is None else int(number)
