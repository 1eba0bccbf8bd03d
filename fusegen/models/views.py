"""Views that leave every element where it is in memory, as steps that other tensors can take too.

A step regroups dims (`reshape`, `flatten`, `unsqueeze`, ...) or puts them in another order (`permute`,
`transpose`, ...). A tensor that is broadcast takes a step if the dims that the step joins or splits are all
there, or all of size 1.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.effects import storages
from fusegen.models.shapes import Shape, equal, numel, same

__all__ = [
    "Step",
    "base_of",
    "image_of",
    "inverse_of",
    "keeps",
    "step_of",
]

_ORDERS = frozenset({"permute", "transpose", "movedim", "swapaxes", "swapdims", "t", "T", "mT"})
_GROUPS = frozenset(
    {
        *("reshape", "view", "flatten", "unflatten", "unsqueeze", "squeeze", "view_as", "ravel"),
        *("reshape_as", "contiguous"),
    }
)


@dataclass(frozen=True)
class Step:
    """A view of one tensor.

    Args:
        before: the tensor's shape.
        after: the view's shape.
        order: the tensor's dims in the order in which the view has them; None if dims are regrouped.
        groups: how many dims become how many, from the last group to the first, if dims are regrouped.
    """

    before: Shape
    after: Shape
    order: tuple[int, ...] | None = None
    groups: tuple[tuple[int, int], ...] = ()

    @property
    def inverse(self) -> Step:
        """The view that undoes it."""
        order = self.order and tuple(map(self.order.index, range(len(self.order))))
        groups = tuple((after, before) for before, after in self.groups)
        return Step(self.after, self.before, order, groups)

    def keeps(self, count: int) -> bool:
        """Return whether the last dims stay what and where they are."""
        if self.order is not None:
            dims = len(self.order)
            return self.order[dims - count :] == tuple(range(dims - count, dims))
        return all(group == (1, 1) for group in self.groups[:count]) and len(self.groups) >= count

    def image(self, shape: Shape) -> Shape | None:
        """Return the shape in which a tensor of a shape that is broadcast to `before` takes the step.

        None if it takes no such step.
        """
        if len(shape) > len(self.before):
            return None
        padded = (*(1,) * (len(self.before) - len(shape)), *shape)
        if self.order is not None:
            return tuple(padded[dim] for dim in self.order)
        found: list[Any] = []
        end, to = len(self.before), len(self.after)
        for before, after in self.groups:
            given, whole = padded[end - before : end], self.before[end - before : end]
            result = self.after[to - after : to]
            if same(given, whole):
                found[:0] = result
            elif all(equal(size, 1) for size in given):
                found[:0] = [1] * after
            else:
                return None
            end, to = end - before, to - after
        return tuple(found)


def base_of(node: fx.Node | None) -> fx.Node | None:
    """Return what a node is called on."""
    if node is None or node.op not in ("call_function", "call_method"):
        return None
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first if isinstance(first, fx.Node) else None


def step_of(node: fx.Node) -> Step | None:
    """Return the view that a node is; None if it is none, copies, or leaves elements out."""
    base, value = base_of(node), tensor_of(node)
    before = tensor_of(base)
    if base is None or before is None or value is None or before.dtype is not value.dtype:
        return None
    if storages(node) != storages(base):
        return None
    name = _name(node)
    if name in _ORDERS:
        order = _order(node, base, before.dim())
        return Step(tuple(before.shape), tuple(value.shape), order) if order else None
    if name in _GROUPS or (name == "getitem" and _adds_dims(node.args[1])):
        return _regrouped(tuple(before.shape), tuple(value.shape))
    return None


def image_of(steps: Sequence[Step], shape: Shape) -> Shape | None:
    """Return the shape of a tensor after some steps; None if it cannot take them."""
    found: Shape | None = shape
    for step in steps:
        found = step.image(found) if found is not None else None
    return found


def inverse_of(steps: Sequence[Step]) -> list[Step]:
    """Return the steps that undo some steps."""
    return [step.inverse for step in reversed(steps)]


def keeps(steps: Sequence[Step], count: int) -> bool:
    """Return whether the last dims stay what and where they are."""
    return all(step.keeps(count) for step in steps)


def _name(node: fx.Node) -> str:
    name = name_of(node)
    return str(node.args[1]) if name == "getattr" and len(node.args) > 1 else name


def _order(node: fx.Node, base: fx.Node, dims: int) -> tuple[int, ...]:
    """Return the dims in the order that a node puts them in; empty if that is not known before the call."""
    if node.all_input_nodes != [base]:
        return ()
    function: Callable[..., Any] | Any = node.target
    if isinstance(function, str):
        function = getattr(Tensor, function)
    sizes = torch.empty(tuple(range(2, dims + 2)), device="meta")
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda _: sizes)
    return tuple(size - 2 for size in function(*args, **kwargs).shape)


def _adds_dims(index: Any) -> bool:
    """Return whether an index takes all of a tensor, and only adds dims."""
    given = index if isinstance(index, tuple) else (index,)
    return all(i is None or i is Ellipsis or i == slice(None) for i in given)


def _regrouped(before: Shape, after: Shape) -> Step | None:
    """Return the step that regroups dims; None if the groups are not known."""
    groups = []
    end, to = len(before), len(after)
    if not numel(before):
        return None
    while end or to:
        last, last_to = end, to
        end, to = max(end - 1, 0), max(to - 1, 0)
        while not equal(_product(before[end:last]), _product(after[to:last_to])):
            if numel(before[end:last]) < numel(after[to:last_to]):
                if not end:
                    return None
                end -= 1
            elif numel(before[end:last]) > numel(after[to:last_to]):
                if not to:
                    return None
                to -= 1
            else:  # equal by chance
                return None
        groups.append((last - end, last_to - to))
    return Step(before, after, None, tuple(groups))


def _product(sizes: Shape) -> Any:
    result: Any = 1
    for size in sizes:
        result = operator.mul(result, size)
    return result
