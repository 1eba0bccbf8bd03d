"""Writes a gate of a sum out, so that its region adds the tensors itself: `swiglu(x + y)`.

A gate reads the halves of one tensor, so the sum would be a kernel of its own. Written out, it starts from
the parts of the sum (`from_parts.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from fusegen.models.added_node import added
from fusegen.models.calls import Call, call_of, call_or_none
from fusegen.models.cuts import Cut
from fusegen.models.effects import Effects
from fusegen.models.from_parts import erase_unread, part_of_terms, terms_of
from fusegen.models.functions import OfParts
from fusegen.models.regions import Region, find_regions

__all__ = ["start_gates"]

#: What gates of two halves apply to the gate.
_APPLIED: Mapping[str, Callable[..., Any]] = {
    "glu": torch.sigmoid,
    "swiglu": functional.silu,
    "geglu": functional.gelu,
    "reglu": torch.relu,
}


def start_gates(graph: fx.Graph, effects: Effects, fits: Callable[[Region], bool]) -> int:
    """Let each gate of a sum start from the parts of what is added; return how many do.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`. It is changed.
        effects: what may not be moved in the graph; it gets to know the new nodes.
        fits: says whether one package holds a region, and whether that pays.
    """
    gates = {node: cut for node in graph.nodes if (cut := _cut_of(node, effects)) is not None}
    if not gates:
        return 0
    regions, _ = find_regions(graph, effects)
    of_node = {node: region for region in regions for node in region.calls}
    return sum(
        _start(gate, cut, of_node[gate], effects, fits)
        for gate, cut in gates.items()
        if gate in of_node and cut.whole not in of_node[gate].calls
    )


def _cut_of(node: fx.Node, effects: Effects) -> Cut | None:
    """Return the sum whose parts a gate reads, if nobody else reads it; None if the node is no such gate."""
    call = call_or_none(node)
    if call is None or not call.halves or call.part is not None or not effects.may_move(node):
        return None
    whole, given = call.x, call.attributes
    if not isinstance(whole, fx.Node) or given.get("alternating"):
        return None
    dim, among = int(given.get("dim", -1)), int(given.get("parts", 2))
    cut = Cut(whole, dim, among, places={node: 0})
    return cut if len(terms_of(cut, effects)) > 1 else None


def _start(
    gate: fx.Node, cut: Cut, region: Region, effects: Effects, fits: Callable[[Region], bool]
) -> bool:
    """Write a gate out if a package holds its region then; return whether."""
    graph, terms = gate.graph, terms_of(cut, effects)
    before = set(graph.nodes)
    with graph.inserting_before(gate):
        parts = [part_of_terms(gate, terms, place, cut) for place in range(cut.among)]
        result = _written_out(gate, call_of(gate), parts)
    result.meta = dict(gate.meta)
    made = [node for node in graph.nodes if node not in before]
    for node in made:
        effects.add(node, gate)
    gate.replace_all_uses_with(result)
    calls = {node: call_of(node) for node in made}
    for node in region.calls:
        if node is not gate:
            calls[node] = call_of(node)  # it may read the result
    if fits(replace(region, calls=calls)):
        graph.erase_node(gate)
        erase_unread(cut.whole)
        return True
    result.replace_all_uses_with(gate)
    for node in reversed(made):
        graph.erase_node(node)
    return False


def _written_out(gate: fx.Node, call: Call, parts: list[fx.Node]) -> fx.Node:
    """Return what a gate computes of the parts, by nodes that are inserted before it."""
    graph, function = gate.graph, gate.target
    if isinstance(function, OfParts):
        known: dict[fx.Node, fx.Node] = {}
        given = iter(parts)
        for node in function.run.graph.nodes:
            if node.op == "placeholder":
                known[node] = next(given)
            elif node.op != "output":
                args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
                known[node] = added(graph, gate, node.target, args, kwargs)
        (result,) = next(iter(reversed(function.run.graph.nodes))).all_input_nodes
        return known[result]
    value, chosen = reversed(parts) if call.attributes.get("gate_first") else parts
    form = {k: v for k, v in call.attributes.items() if k == "approximate"}
    applied = added(graph, gate, _APPLIED[call.name], (chosen,), form)
    return added(graph, gate, torch.mul, (value, applied))
