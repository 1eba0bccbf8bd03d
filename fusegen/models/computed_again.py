"""Lets a region compute an activation again from what is kept for it anyway, in place of keeping it too.

In `h = gelu(u)`, whose norm over some dims is one region and whose product with what follows from that norm
is another one, the first region keeps u for its backward pass and the second one h. If the second region
reads u and computes h itself, only u is kept. The gradient goes back to h as before: the first region passes
it on to u together with that of the norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import fx

from fusegen.models import patterns
from fusegen.models.arguments import UnfitError, tensor_of
from fusegen.models.calls import Call
from fusegen.models.cost import bytes_of
from fusegen.models.forward_alone import runs_without_gradients
from fusegen.models.regions import Region
from fusegen.models.shapes import same
from fusegen.models.spec_text import RegionSpec

__all__ = ["compute_again"]

#: How large an activation is at least, in bytes.
_LEAST_BYTES = 2**20
#: Functions whose backward reads the value that they return, which is kept then, and not what they are of.
_BY_VALUE = frozenset({"relu", "leaky_relu"})
#: Ops whose backward reads nothing of the tensors that they are of.
_LINEAR = frozenset({"add", "sub", "rsub", "neg", "mean", "sum", "cast", "detach"})


def compute_again(
    graph: fx.Graph,
    specs: Sequence[tuple[Region, RegionSpec]],
    written: Callable[[Region, Mapping[fx.Node, Call]], RegionSpec],
) -> tuple[list[tuple[Region, RegionSpec]], int]:
    """Return regions with their specs, of which some compute activations again, and how many these are.

    Args:
        graph: the graph.
        specs: the regions that are fused, each with its spec.
        written: writes a region's spec, with what it computes again.
    """
    if runs_without_gradients(graph):
        return list(specs), 0
    of_node = {node: region for region, _ in specs for node in region.calls}
    found, count = [], 0
    for region, spec in specs:
        again = {a: call for a in region.inputs if (call := _again(a, region, of_node)) is not None}
        if again:
            try:
                spec = written(region, again)
                count += len(again)
            except UnfitError:
                pass
        found.append((region, spec))
    return found, count


def _again(a: fx.Node, region: Region, of_node: Mapping[fx.Node, Region]) -> Call | None:
    """Return what computes an activation again that a region would keep; None if it is better kept."""
    first = of_node.get(a)
    value = tensor_of(a)
    if first is None or first is region or value is None or not value.requires_grad:
        return None
    call = first.calls[a]
    before = tensor_of(call.x)
    if before is None or call.x not in first.inputs or before.dtype is not value.dtype:
        return None
    if bytes_of(a) < _LEAST_BYTES or not same(tuple(value.shape), region.shape):
        return None
    if not same(tuple(before.shape), tuple(value.shape)) or not _is_function(call):
        return None
    if not all(user in first.calls or user in region.calls for user in a.users):
        return None  # who else reads it keeps it
    return call if any(_reads(region.calls[u]) for u in a.users if u in region.calls) else None


def _is_function(call: Call) -> bool:
    """Return whether a call is a function of its x alone, and of each element, whose backward reads x."""
    if call.op is None or call.is_step or call.ends or call.dims or call.condition is not None:
        return False
    return not call.operands and call.name not in {*_BY_VALUE, *_LINEAR, *patterns.INFIX}


def _reads(call: Call) -> bool:
    """Return whether the backward of a call reads the numbers of what the call reads."""
    if call.name != "mul":
        return call.name not in _LINEAR
    factors = [tensor_of(factor) for factor in (call.x, *call.operands.values())]
    return (
        sum(t is not None and t.requires_grad for t in factors) > 1
        or call.x in call.operands.values()
    )
