"""Finds gates of one projection in a captured graph: `up * silu(gate)`, of the two halves of one tensor.

The halves may alternate by column. As one call they are read where they are, and the gradients of both halves
are written into one tensor, which torch would put together from two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

from fusegen.models import functions, patterns
from fusegen.models.added_node import replace_node
from fusegen.models.calls import call_or_none
from fusegen.models.effects import Effects
from fusegen.models.halves import half_of

__all__ = ["write_gates"]

#: What computes a gate, by the op that is applied to one half before the other is multiplied with it.
_GATES: Mapping[str, Callable[..., Any]] = {
    "sigmoid": functions.glu,
    "swish": functions.swiglu,
    "gelu": functions.geglu,
    "relu": functions.reglu,
}


def write_gates(graph: fx.Graph, effects: Effects) -> None:
    """Replace each gate of two halves by one call; what it was made of is left for those who read it.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved. It knows nothing of the nodes that are added.
    """
    for node in list(graph.nodes):
        op = patterns.op_of(node)
        if op is None or op.name != "mul" or len(node.args) != 2:
            continue
        left, right = node.args
        if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
            continue
        found = _gate(left, right, node, effects) or _gate(right, left, node, effects)
        if found is not None:
            function, base, keywords = found
            with graph.inserting_before(node):
                made = graph.call_function(function, (base,), keywords)
            replace_node(node, made)


def _gate(
    gate: fx.Node, value: fx.Node, product: fx.Node, effects: Effects
) -> tuple[Callable[..., Any], fx.Node, dict[str, Any]] | None:
    """Return what computes a product of a function of one half with the other, or None if it is none."""
    call = call_or_none(gate)
    if call is None or call.name not in _GATES or not isinstance(call.x, fx.Node):
        return None
    one, other = half_of(call.x), half_of(value)
    if one is None or other is None or one.whole is not other.whole:
        return None
    if {one.place, other.place} != {0, 1} or one.alternating != other.alternating:
        return None
    alone = set(call.x.users) == {gate} and set(value.users) == set(gate.users) == {product}
    among = [product, gate, value, call.x]
    stretch = effects.stretch[product]
    if not alone or any(effects.stretch.get(n) != stretch for n in among):
        return None
    if not all(effects.may_move(n) for n in among) or {*call.attributes} - {"approximate"}:
        return None
    halves = {"gate_first": one.place == 0, "alternating": one.alternating}
    return _GATES[call.name], one.whole, {**halves, **call.attributes}
