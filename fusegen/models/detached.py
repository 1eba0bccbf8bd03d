"""Takes `detach` and `clone` for what they are between ops: values that are there already.

`x.detach()` is x, of which no gradient goes back: a region says so in its formula, as in
`x + (rounded - x).detach()`. A copy that nobody changes is what it is of, as in `h * 2 + h.clone().detach()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import fx

from fusegen.models import functions
from fusegen.models.added_node import added, replace_node
from fusegen.models.arguments import tensor_of
from fusegen.models.beside import is_arithmetic
from fusegen.models.calls import Call, call_or_none
from fusegen.models.effects import Effects, storages
from fusegen.models.shapes import same
from fusegen.models.views import step_of

__all__ = ["detached_in", "with_gradients", "write_detached"]

_DETACHES = ("detach", torch.detach)
_COPIES = ("clone", torch.clone)


def write_detached(graph: fx.Graph, effects: Effects) -> None:
    """Give each op that reads a detached tensor, or that of a copy, a call of its own, for its region.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved in the graph.
    """
    _read_through_copies(graph, effects)
    stretch, pending = dict(effects.stretch), list(graph.nodes)
    for node in pending:
        source = _only_argument(node, _DETACHES, effects)
        if source is None:
            continue
        while (inner := _only_argument(source, _DETACHES, effects)) is not None:
            source = inner
        for user in [u for u in node.users if stretch[u] == stretch[node]]:
            if is_arithmetic(user) or call_or_none(user) is not None:
                with graph.inserting_before(node):
                    made = added(graph, node, functions.detached, (source,))
                user.replace_input_with(node, made)
                stretch[made] = stretch[node]
            elif _is_view(user, node) and effects.may_move(user):
                later = _detached_later(graph, user, source)
                stretch[later] = stretch[node]
                pending.append(later)
        if not node.users:
            graph.erase_node(node)


def _is_view(user: fx.Node, node: fx.Node) -> bool:
    """Return whether a node is a view of another one, which no third one decides."""
    return user.all_input_nodes == [node] and step_of(user) is not None


def _detached_later(graph: fx.Graph, view: fx.Node, source: fx.Node) -> fx.Node:
    """Detach what a view of a detached tensor would see; return the node that does."""
    args, kwargs = fx.map_arg((view.args, view.kwargs), lambda _: source)
    with graph.inserting_before(view):
        seen = added(graph, source, view.target, args, kwargs)
        later = added(graph, view, torch.detach, (seen,))
    replace_node(view, later)
    return later


def _read_through_copies(graph: fx.Graph, effects: Effects) -> None:
    """Let ops read what a copy is of, where neither is changed later, in the graph or outside of it."""
    outside = _seen_outside(graph)
    for node in list(graph.nodes):
        source = _only_argument(node, _COPIES, effects)
        if source is None or not outside.isdisjoint(storages(source)):
            continue
        value, before = tensor_of(node), tensor_of(source)
        if value is None or before is None or not same(value.stride(), before.stride()):
            continue
        for user in list(node.users):
            reads = is_arithmetic(user) or _only_argument(user, _DETACHES, effects) is node
            if reads and effects.stretch[user] == effects.stretch[source]:
                user.replace_input_with(node, source)
        if not node.users:
            graph.erase_node(node)


def detached_in(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """Return those of some nodes that are detached tensors which a region can compute."""
    return [node for node in nodes if node.target is functions.detached]


def with_gradients(calls: Mapping[fx.Node, Call], results: Iterable[fx.Node]) -> set[fx.Node]:
    """Return the nodes that results depend on otherwise than through a detached tensor.

    Args:
        calls: what each node of a region computes.
        results: the nodes whose gradients are given.
    """
    found: set[fx.Node] = set()
    pending = list(results)
    while pending:
        node = pending.pop()
        if node in found:
            continue
        found.add(node)
        call = calls.get(node)
        if call is not None and not call.detached:
            pending += call.inputs
    return found


def _only_argument(node: fx.Node, targets: tuple[object, ...], effects: Effects) -> fx.Node | None:
    """Return what one of some functions or methods is called on, if it is given nothing else and may move."""
    if node.target not in targets or node.kwargs or len(node.args) != 1:
        return None
    (source,) = node.args
    moves = effects.may_move(node) and tensor_of(node) is not None
    return source if moves and isinstance(source, fx.Node) else None


def _seen_outside(graph: fx.Graph) -> set[int]:
    """Return the storages of tensors that the graph is given or gives."""
    found: set[int] = set()
    for node in graph.nodes:
        if node.op == "output":
            found = found.union(*map(storages, node.all_input_nodes))
        elif node.op in ("placeholder", "get_attr"):
            found |= storages(node)
    return found
