"""Finds maxima and minima of which only the values are used.

`torch.max(x, dim)` gives the values and their places, and no kernel computes both. Mostly the places are not
read: `x.max(1)[0]` and `x.max(1).values` then are one tensor, as a spec's `max` is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from torch import Tensor, fx

from fusegen.models import functions, patterns
from fusegen.models.arguments import UnfitError, arguments_of

__all__ = ["write_extremes"]

_VALUES: Mapping[str, Callable[..., Tensor]] = {
    "max": functions.max_values,
    "min": functions.min_values,
}


def write_extremes(graph: fx.Graph) -> None:
    """Replace the first of the two results by what gives it alone, where nothing reads the second.

    Args:
        graph: the graph. It is changed.
    """
    for node in list(graph.nodes):
        op = patterns.op_of(node)
        if op is None or op.name not in _VALUES or not isinstance(_value(node), tuple):
            continue
        if not node.users or any(not _is_first(user) for user in node.users):
            continue
        try:
            given = arguments_of(node, op)
        except UnfitError:
            continue
        if not isinstance(given["x"], fx.Node) or not isinstance(given["dim"], int):
            continue
        with graph.inserting_before(node):
            keepdim = bool(given.get("keepdim", False))
            values = graph.call_function(
                _VALUES[op.name], (given["x"], given["dim"]), {"keepdim": keepdim}
            )
        for user in list(node.users):
            values.meta = dict(user.meta)
            user.replace_all_uses_with(values)
            graph.erase_node(user)
        graph.erase_node(node)


def _value(node: fx.Node) -> object:
    return node.meta.get("example_value")


def _is_first(node: fx.Node) -> bool:
    """Return whether a node takes the first of several results."""
    return node.target is operator.getitem and node.args[1:] == (0,)
