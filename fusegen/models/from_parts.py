"""Lets a region start from the parts of a tensor, or of a sum: `i, f, g, o = (x + h).chunk(4, -1)`.

The region then reads the tensors that have the parts, adds them itself, and writes one gradient for all
parts, which is that of each of these tensors. Otherwise the sum is a kernel of its own, and so is the copy of
each part's gradient to where the part lies. The gates of a recurrent cell are such parts.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from fusegen.models.added_node import added
from fusegen.models.arguments import tensor_of
from fusegen.models.calls import call_of, call_or_none
from fusegen.models.cuts import Cut, cuts_of
from fusegen.models.effects import Effects
from fusegen.models.functions import PartOf
from fusegen.models.regions import Region, find_regions
from fusegen.models.shapes import is_dense, numel, same

__all__ = ["erase_unread", "leave_parts", "part_of_terms", "start_from_parts", "terms_of"]

#: The most tensors that a region adds before it takes parts.
_MOST_TERMS = 6


def start_from_parts(graph: fx.Graph, effects: Effects, fits: Callable[[Region], bool]) -> int:
    """Replace the parts that one region reads by calls that it starts from; return for how many regions.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`. It is changed.
        effects: what may not be moved in the graph; of the new nodes it knows the stretch alone.
        fits: says whether one package holds a region.
    """
    cuts = cuts_of(graph, effects)
    if not cuts:
        return 0
    regions, _ = find_regions(graph, effects)
    of_node = {node: region for region in regions for node in region.calls}
    found: dict[int, list[Cut]] = {}
    for cut in cuts:
        readers = {id(of_node.get(user)): of_node.get(user) for n in cut.places for user in n.users}
        region = next(iter(readers.values())) if len(readers) == 1 else None
        if region is not None and _is_start_of(cut, region, effects):
            found.setdefault(id(region), []).append(cut)
    count = 0
    for region in {id(region): region for region in regions}.values():
        cuts = found.get(id(region), [])
        for cut in sorted(cuts, key=lambda cut: _gain(cut, effects), reverse=True):
            if _start(cut, region, effects, fits):
                count += 1
                break
    return count


def leave_parts(graph: fx.Graph, effects: Effects, fused: Collection[fx.Node]) -> None:
    """Take tensors apart as a model does where no package starts from their parts after all.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved; it gets to know the new nodes.
        fused: the nodes that packages compute.
    """
    known: dict[tuple[Any, ...], fx.Node] = {}
    for node in list(graph.nodes):
        if isinstance(node.target, PartOf) and node not in fused:
            _write_out(node, effects, known)


def _is_start_of(cut: Cut, region: Region, effects: Effects) -> bool:
    """Return whether a region may start from some parts: nothing that has or cuts them is in it or fixed."""
    tensor = tensor_of(cut.whole)
    if tensor is None or (tensor.dim() == 2 and cut.dim != -1):
        return False
    among = (*cut.places, *cut.between)
    stretch = effects.stretch[next(iter(region.calls))]
    if any(effects.stretch.get(n) != stretch for n in among):
        return False
    if any(call.halves for call in region.calls.values()) or cut.whole in region.calls:
        return False
    return all(
        same(tuple(t.shape), region.shape) for n in cut.places if (t := tensor_of(n)) is not None
    )


def _gain(cut: Cut, effects: Effects) -> tuple[bool, int]:
    """Return how much is gained if a region starts from some parts: most where they have a gradient."""
    tensor = tensor_of(cut.whole)
    assert tensor is not None
    return tensor.requires_grad, numel(tuple(tensor.shape)) * len(terms_of(cut, effects))


def terms_of(cut: Cut, effects: Effects) -> list[fx.Node]:
    """Return the tensors whose sum is taken apart: first one without gaps that is as large as the sum.

    A sum that is computed where gradients are off, or before what it adds is changed, is a tensor by itself.
    """
    whole = tensor_of(cut.whole)
    assert whole is not None
    stretch = effects.stretch[next(iter(cut.places))]
    only_read_by: set[fx.Node] = {*cut.between, *cut.places}
    found: list[fx.Node] = []
    pending = [cut.whole]
    while pending:
        node = pending.pop(0)
        movable = effects.may_move(node) and effects.stretch[node] == stretch
        addends = _addends(node, cut) if movable and only_read_by.issuperset(node.users) else None
        if addends is None or len(found) + len(pending) + 2 > _MOST_TERMS:
            found.append(node)
            continue
        only_read_by = only_read_by | {node}
        pending[:0] = addends
    return sorted(found, key=lambda node: _comes_last(node, cut))


def _comes_last(node: fx.Node, cut: Cut) -> tuple[bool, bool]:
    term, whole = tensor_of(node), tensor_of(cut.whole)
    assert term is not None and whole is not None
    return not same(tuple(term.shape), tuple(whole.shape)), not is_dense(term)


def _addends(node: fx.Node, cut: Cut) -> list[fx.Node] | None:
    """Return the tensors that a node adds, if one is as large as their sum, and the other too or a row."""
    call, value = call_or_none(node), tensor_of(node)
    if call is None or call.name != "add" or call.attributes.get("alpha", 1) != 1 or value is None:
        return None
    addends = [call.x, call.operands.get("other")]
    found = []
    for one in addends:
        term = tensor_of(one)
        if term is None or not isinstance(one, fx.Node) or term.dtype is not value.dtype:
            return None
        shape, whole = tuple(term.shape), tuple(value.shape)
        if not same(shape, whole) and (cut.dim != -1 or not same(shape, whole[-1:])):
            return None
        found.append(one)
    return found


def _start(cut: Cut, region: Region, effects: Effects, fits: Callable[[Region], bool]) -> bool:
    """Let a region start from some parts, if a package can; return whether."""
    terms = terms_of(cut, effects)
    made: dict[fx.Node, fx.Node] = {}
    graph = cut.whole.graph
    for node, place in cut.places.items():
        with graph.inserting_before(node):
            part = part_of_terms(node, terms, place, cut)
        effects.stretch[part] = effects.stretch[node]
        node.replace_all_uses_with(part)
        made[node] = part
    calls = {node: call_of(node) for node in (*made.values(), *region.calls)}
    if fits(replace(region, calls=calls)):
        _erase([*cut.places, *cut.between], cut.whole)
        return True
    for node, part in made.items():
        part.replace_all_uses_with(node)
        graph.erase_node(part)
    return False


def part_of_terms(node: fx.Node, terms: Sequence[fx.Node], place: int, cut: Cut) -> fx.Node:
    """Return a new node that is a part of the sum of some tensors, and stands in the place of a node."""
    part = node.graph.call_function(PartOf(place, cut.among, cut.dim), (*terms,))
    part.meta = dict(node.meta)
    return part


def _erase(nodes: Sequence[fx.Node], whole: fx.Node) -> None:
    """Erase what took a tensor apart, and the sums that nobody reads any more."""
    for node in nodes:
        if not node.users:
            node.graph.erase_node(node)
    erase_unread(whole)


def erase_unread(whole: fx.Node) -> None:
    """Erase a sum and those that it adds, if nobody reads them any more."""
    pending = [whole]
    while pending:
        node = pending.pop()
        call = call_or_none(node)
        if node.users or call is None or call.name != "add":
            continue
        pending += node.all_input_nodes
        node.graph.erase_node(node)


def _write_out(part: fx.Node, effects: Effects, known: dict[tuple[Any, ...], fx.Node]) -> None:
    """Let a part be one of the sum, which is taken apart once. It stays the same node."""
    function, graph = part.target, part.graph
    assert isinstance(function, PartOf)
    key = (*part.args, function.among, function.dim)
    whole: Any
    if key not in known:
        with graph.inserting_before(part):
            whole = part.args[0]
            for other in part.args[1:]:
                whole = added(graph, part, torch.add, (whole, other))
                effects.add(whole, part)
            known[key] = added(graph, part, torch.chunk, (whole, function.among, function.dim))
            effects.add(known[key], part)
    part.target, part.args = operator.getitem, (known[key], function.place)
