"""Computes an activation in each region that reads it, where the first could not have it as a result.

Take `h1 = (1 - z1) * a + z1 * b` and `h2 = (1 - z2) * a + z2 * b` with `a = tanh(u)`, `b = tanh(v)`, and a
product between `h1` and `h2`. All results of a spec depend on one tensor, but `a`, `b` and `h1` do not. If
both regions compute `a`, then `h1` and `b` are left, which depend on `v`. Where a spec can have `a` as a
result, that is better: its kernel then adds the gradients of `a`, and torch would have to add those of `u`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

from fusegen.models import patterns
from fusegen.models.activations import activations, dependents
from fusegen.models.arguments import tensor_of
from fusegen.models.calls import Call
from fusegen.models.effects import Effects
from fusegen.models.regions import Region, find_regions
from fusegen.models.shapes import same

__all__ = ["recompute"]

#: The most regions that compute the same.
_MOST = 4


def recompute(graph: fx.Graph, effects: Effects, pays: Callable[[Region], bool]) -> int:
    """Give regions that read an activation one of their own; return how many were added.

    This is done for functions of one tensor that no region computes, if regions alone read the result.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`. It is changed.
        effects: what may not be moved. It knows nothing of the nodes that are added.
        pays: says whether a region will be fused.
    """
    regions, _ = find_regions(graph, effects)
    of_node = {node: region for region in regions for node in region.calls}
    count = 0
    for node, own in of_node.items():
        if not _is_function_of_one(node, own.calls[node]) or own.calls[node].x in of_node:
            continue
        readers: dict[int, list[fx.Node]] = {}
        for user in node.users:
            readers.setdefault(id(of_node.get(user)), []).append(user)
        among = [of_node.get(users[0]) for users in readers.values()]
        if not 2 <= len(readers) <= _MOST or own not in among or not _is_aside(node, own):
            continue
        if not all(_may_compute(region, node, effects, pays) for region in among):
            continue
        for users in readers.values():
            if of_node[users[0]] is not own:
                with graph.inserting_after(node):
                    made = graph.node_copy(node)
                for user in users:
                    user.replace_input_with(node, made)
                count += 1
    return count


def _is_function_of_one(node: fx.Node, call: Call) -> bool:
    """Return whether a node computes each element from one element of one tensor."""
    if call.op is None or call.name in patterns.STEPS or call.dims or call.ends:
        return False
    value, read = tensor_of(node), tensor_of(call.x)
    if value is None or read is None or call.inputs != (call.x,):
        return False
    return value.dtype is read.dtype and same(tuple(value.shape), tuple(read.shape))


def _is_aside(node: fx.Node, region: Region) -> bool:
    """Return whether not all results of a region depend on one input, and this node does not on the first."""
    reached = [dependents(region, [x]) for x in activations(region)]
    results = set(region.outputs)
    return bool(reached) and node not in reached[0] and not any(results <= r for r in reached)


def _may_compute(
    region: Region | None, node: fx.Node, effects: Effects, pays: Callable[[Region], bool]
) -> bool:
    """Return whether a region may compute a node itself."""
    if region is None or len(region.calls) < 2 or not pays(region):
        return False
    value, first = tensor_of(node), next(iter(region.calls))
    if value is None or effects.stretch[first] != effects.stretch[node]:
        return False
    return same(tuple(value.shape), region.shape)
