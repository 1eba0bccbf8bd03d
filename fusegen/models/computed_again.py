"""Lets a region compute an activation again from what is kept for it anyway, in place of keeping it too.

In `h = gelu(u)`, whose norm over some dims is one region and whose product with what follows from that norm
is another one, the first region keeps u for its backward pass and the second one h. If the second region
reads u and computes h itself, only u is kept. The gradient goes back to h as before: the first region passes
it on to u together with that of the norm. So it is with `h = silu(batch_norm(u))` and its gate of channels:
the second region reads the mean and the variance of the batch, which the first one gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from fusegen.models import patterns
from fusegen.models.added_node import added
from fusegen.models.arguments import UnfitError, tensor_of
from fusegen.models.calls import Call, call_or_none
from fusegen.models.cost import bytes_of
from fusegen.models.effects import Effects
from fusegen.models.forward_alone import runs_without_gradients
from fusegen.models.functions import BatchStatistic
from fusegen.models.regions import Region
from fusegen.models.shapes import same
from fusegen.models.spec_text import RegionSpec
from fusegen.runtime.even_mean import EvenMean

__all__ = ["compute_again", "statistics_of"]

#: How large an activation is at least, in bytes.
_LEAST_BYTES = 2**20
#: Functions whose backward reads the value that they return, which is kept then, and not what they are of.
_BY_VALUE = frozenset({"relu", "leaky_relu"})
#: Ops whose backward reads nothing of the tensors that they are of.
_LINEAR = frozenset({"add", "sub", "rsub", "neg", "mean", "sum", "cast", "detach"})
#: Where a statistic's node notes its batch norm.
_NORM = "batch norm"

Calls = Mapping[fx.Node, Call]


def compute_again(
    specs: Sequence[tuple[Region, RegionSpec]],
    effects: Effects,
    written: Callable[[Region, Mapping[fx.Node, Calls]], RegionSpec],
) -> tuple[list[tuple[Region, RegionSpec]], int]:
    """Return regions with their specs, of which some compute activations again, and how many these are.

    The graph gets nodes for statistics of batch norms.

    Args:
        specs: the regions that are fused, each with its spec.
        effects: what may not be moved; it gets to know the new nodes.
        written: writes a region's spec, with what it computes again.
    """
    of_node = {node: region for region, _ in specs for node in region.calls}
    if not of_node or runs_without_gradients(next(iter(of_node)).graph):
        return list(specs), 0
    found, count = [], 0
    for region, spec in specs:
        again = {a: calls for a in region.inputs if (calls := _again(a, region, of_node, effects))}
        if again:
            try:
                spec = written(region, again)
                count += len(again)
            except UnfitError:
                pass
        found.append((region, spec))
    return found, count


def statistics_of(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Return the nodes of statistics, each with its batch norm, whose package gives them."""
    nodes = (node for node in graph.nodes if isinstance(node.target, BatchStatistic))
    return {node: node.meta[_NORM] for node in nodes}


def _again(
    a: fx.Node, region: Region, of_node: Mapping[fx.Node, Region], effects: Effects
) -> dict[fx.Node, Call]:
    """Return the calls that compute an activation again which a region would keep; none if it keeps it."""
    first = of_node.get(a)
    value = tensor_of(a)
    if first is None or first is region or value is None or not value.requires_grad:
        return {}
    if bytes_of(a) < _LEAST_BYTES or not same(tuple(value.shape), region.shape):
        return {}
    others = [user for user in a.users if user not in first.calls and user not in region.calls]
    if not all(map(_keeps_nothing, others)):
        return {}
    if not any(_reads(region.calls[user]) for user in a.users if user in region.calls):
        return {}
    calls, node = {}, a
    if _is_function(first.calls[a]):
        calls[a] = first.calls[a]
        given = first.calls[a].x
        node = given if given in first.calls and isinstance(given, fx.Node) else a
    if first.calls[node].name == "batch_norm" and first.calls[node].training:
        calls[node] = _as_in_evaluation(node, first.calls[node], effects)
    source = calls[node].x if node in calls else None
    before = tensor_of(source)
    if before is None or source not in first.inputs or before.dtype is not value.dtype:
        return {}
    return calls if same(tuple(before.shape), tuple(value.shape)) else {}


def _as_in_evaluation(norm: fx.Node, call: Call, effects: Effects) -> Call:
    """Return a batch norm in training as one in evaluation, with the batch's statistics."""
    graph, made = norm.graph, []
    with graph.inserting_after(norm):
        for place in range(2):
            node = added(graph, norm, BatchStatistic(place), (call.x,))
            node.meta[_NORM] = norm
            effects.add(node, norm)
            made.append(node)
    names = dict(zip(("running_mean", "running_var"), made, strict=True))
    return replace(call, operands={**call.operands, **names}, training=False)


def _keeps_nothing(user: fx.Node) -> bool:
    """Return whether torch keeps nothing of what a node reads."""
    if isinstance(user.target, EvenMean):
        return True
    call = call_or_none(user)
    return call is not None and call.name in _LINEAR


def _is_function(call: Call) -> bool:
    """Return whether a call is a function of its x alone, and of each element, whose backward reads x."""
    if call.op is None or call.is_step or call.ends or call.dims or call.condition is not None:
        return False
    return not call.operands and call.name not in {*_BY_VALUE, *_LINEAR, *patterns.INFIX}


def _reads(call: Call) -> bool:
    """Return whether the backward of a call reads the numbers of what the call reads."""
    if call.name != "mul":
        return call.name not in _LINEAR
    factors: list[Any] = [call.x, *call.operands.values()]
    trained = [t for t in map(tensor_of, factors) if t is not None and t.requires_grad]
    return len(trained) > 1 or call.x in call.operands.values()
