"""Writes a number for a tensor that a graph fills with it, as in `torch.maximum(x, torch.zeros_like(x))`.

A kernel has the number as a constant, so no tensor is filled, copied to the device or read.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from fusegen.models import functions, patterns
from fusegen.models.added_node import replace_node
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.effects import Effects, is_in_place
from fusegen.models.shapes import same

__all__ = ["write_numbers"]

#: What fills a tensor with a number of its own.
_OWN: Mapping[str, int] = {
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), 0),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), 1),
}
#: What fills a tensor with a number that it is given: where that is among the arguments, and its name.
_GIVEN: Mapping[str, tuple[int, str]] = {
    **{"full": (1, "fill_value"), "full_like": (1, "fill_value"), "new_full": (2, "fill_value")},
    **{"tensor": (0, "data"), "new_tensor": (1, "data"), "scalar_tensor": (0, "s")},
}
#: What computes an op of a tensor and a number.
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv},
    **{"pow": operator.pow, "minimum": functions.at_most, "maximum": functions.at_least},
    **{"where": torch.where, "masked_fill": torch.masked_fill},
}
#: Those whose number may be infinite.
_CHOICES = frozenset({"where", "masked_fill"})
#: Those that take the tensor first.
_OF_TENSORS = frozenset({functions.at_least, functions.at_most})
#: Those that of a number 0 are no function of the tensor.
_SCALES = frozenset({"mul", "div", "pow"})


def write_numbers(graph: fx.Graph, effects: Effects) -> bool:
    """Replace tensors that are filled with a number by the number; return whether there are such.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved in the graph: a tensor that is changed after it is filled is no number.
    """
    changed = False
    for node in list(graph.nodes):
        number = _number(node) if effects.may_move(node) else None
        if number is None:
            continue
        for user in list(node.users):
            function = _taking(user, node, number)
            if function is None:
                continue
            args = [number if a is node else a for a in user.args]
            if function in _OF_TENSORS and args[0] == number:
                args.reverse()
            if user.target == "where":  # x.where(condition, other)
                args = [args[1], args[0], args[2]]
            with graph.inserting_before(user):
                made = graph.call_function(function, tuple(args))
            replace_node(user, made)
            changed = True
        if not node.users:
            graph.erase_node(node)
    return changed


def _number(node: fx.Node) -> float | None:
    """Return the number that a node fills a tensor with, in the tensor's dtype; None if it does not."""
    tensor = tensor_of(node)
    if tensor is None or node.op not in ("call_function", "call_method"):
        return None
    if tensor.requires_grad or not {"out", "requires_grad"}.isdisjoint(node.kwargs):
        return None
    name = name_of(node)
    value: Any = _OWN.get(name)
    if name in _GIVEN:
        place, word = _GIVEN[name]
        value = node.args[place] if len(node.args) > place else node.kwargs.get(word)
    while isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not tensor.is_floating_point():
        return value if isinstance(value, int) and tensor.dtype is not torch.bool else None
    with torch._subclasses.fake_tensor.unset_fake_temporarily():
        return float(torch.tensor(value, dtype=tensor.dtype, device="cpu"))


def _taking(user: fx.Node, node: fx.Node, number: float) -> Callable[..., Any] | None:
    """Return what computes the same as the user of a filled tensor, of the number; None if nothing does.

    The value must have its shape and its dtype from another tensor.
    """
    op, value = patterns.op_of(user), tensor_of(user)
    name = op.name if op is not None else str(user.target)  # `where` is no method of an op
    if value is None or not value.is_floating_point() or user.kwargs or is_in_place(user):
        return None
    others = [t for n in user.args if n is not node and (t := tensor_of(n)) is not None]
    if not any(same(tuple(t.shape), tuple(value.shape)) and t.dtype is value.dtype for t in others):
        return None
    if (not number and name in _SCALES) or not (math.isfinite(number) or name in _CHOICES):
        return None
    return _FUNCTIONS.get(name)
