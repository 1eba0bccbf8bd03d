"""Writes a captured graph anew, with one call of a package in place of each region."""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fusegen.models import functions
from fusegen.models.arguments import tensor_of
from fusegen.models.computed_again import statistics_of
from fusegen.models.detached import with_gradients
from fusegen.models.effects import Effects
from fusegen.models.gradients import reached_by_gradients
from fusegen.models.operands import Held
from fusegen.models.out_of_place import is_pure
from fusegen.models.region_dtype import is_wide
from fusegen.models.regions import Region, needs_of
from fusegen.models.result_strides import in_order, order_that_matters
from fusegen.models.shapes import is_dense
from fusegen.models.spec_text import RegionSpec
from fusegen.runtime.averages import WithStatistics

__all__ = ["put_back"]


def put_back(
    module: fx.GraphModule,
    fused: Sequence[tuple[Region, RegionSpec, Callable[..., Any]]],
    effects: Effects,
    *,
    checks: bool = True,
) -> fx.GraphModule:
    """Return the module with each region computed by a function.

    Args:
        module: the captured module. It is not changed.
        fused: each region with its spec and the `apply` of its package.
        effects: what may not be moved.
        checks: whether the graph looks at classes, which Inductor cannot compile.
    """
    graph = fx.Graph()
    new: dict[fx.Node, fx.Node] = {}
    of_node = {node: item for item in fused for node in item[0].calls}
    reached = reached_by_gradients(module.graph, effects)
    statistics = statistics_of(module.graph)
    for unit in _in_order(module.graph, of_node, effects):
        if isinstance(unit, fx.Node):
            if unit.op == "output":
                graph.output(fx.map_arg(unit.args[0], new.__getitem__))
            elif statistics.get(unit) not in of_node:
                new[unit] = graph.node_copy(unit, new.__getitem__)
        else:
            region, spec, apply = unit
            given = [node for node, norm in statistics.items() if norm in region.calls]
            call = WithStatistics(apply) if given else apply
            result = _call(graph, new, of_node, reached, region, spec, call, checks=checks)
            for node in given:
                statistic: Any = node.target
                place = len(spec.outputs) + statistic.place
                new[node] = graph.call_function(operator.getitem, (result, place))
                new[node].meta = dict(node.meta)
    for old, copied in reversed(new.items()):  # what packages compute from small tensors themselves
        if not copied.users and effects.may_move(old) and is_pure(old):
            graph.erase_node(copied)
    graph.lint()
    return fx.GraphModule(module, graph)


def _call(
    graph: fx.Graph,
    new: dict[fx.Node, fx.Node],
    fused: Collection[fx.Node],
    reached: Collection[fx.Node],
    region: Region,
    spec: RegionSpec,
    apply: Callable[..., Any],
    *,
    checks: bool,
) -> fx.Node:
    """Add the call of a region's package, with what adapts its tensors, and return it."""
    x = _cast(graph, new[spec.x], spec.x, spec.dtype)
    if spec.broadcast:
        others = [new[node] for node in region.inputs if node is not spec.x]
        together = graph.call_function(torch.broadcast_tensors, (x, *others))
        x = graph.call_function(operator.getitem, (together, 0))
    given = {
        name: _adapted(
            graph, _cast(graph, new[held.node], held.node, _dtype(held, spec)), held, x, region
        )
        for name, held in spec.operands.items()
    }
    if checks:
        _check_classes(graph, given, region, spec)
    keywords: dict[str, Any] = {**given, "training": True} if spec.training else dict(given)
    result = graph.call_function(apply, (x,), keywords)
    live = {node for node in region.inputs if node in reached}
    # Autograd knows the package alone: all its results have a gradient if something that it is given has.
    joined = any(node in reached for node in (spec.x, *(h.node for h in spec.operands.values())))
    for place, node in enumerate(spec.outputs):
        value = result
        if len(spec.outputs) > 1 or isinstance(apply, WithStatistics):
            value = graph.call_function(operator.getitem, (result, place))
        call, wanted = region.calls[node], tensor_of(node)
        assert wanted is not None
        if not (call.keepdim or call.ends):
            value = graph.call_method("squeeze", (value, call.dims))
        elif _comes_in_another_format(wanted, spec.x):
            value = graph.call_method("contiguous", (value,))
        elif order := order_that_matters(node, fused):
            value = graph.call_function(in_order, (value, order))
        if wanted.dtype is not spec.dtype and not is_wide(node, region):
            value = graph.call_method("to", (value, wanted.dtype))
        read = with_gradients(region.calls, [node]).intersection(live)
        if joined and not read:
            value = graph.call_method("detach", (value,))
        value.meta = dict(node.meta)
        new[node] = value
    return result


def _check_classes(
    graph: fx.Graph, given: dict[str, fx.Node], region: Region, spec: RegionSpec
) -> None:
    """Let the graph look at the classes of a loss before the package is called."""
    for call in region.calls.values():
        target = call.operands.get(call.op.classes) if call.of_classes and call.op else None
        count = region.shape[1] if call.of_classes else 0
        for name, held in spec.operands.items():
            if held.node is target and isinstance(count, int):
                ignored = call.attributes.get("ignore_index", -100)
                args = (given[name], count, ignored)
                given[name] = graph.call_function(functions.classes_of, args)


def _comes_in_another_format(wanted: Tensor, x: fx.Node) -> bool:
    """Return whether a result is contiguous in eager, where a package may give it in the format of x.

    Norms of torch make such a copy of what they read. Views that come after may need it.
    """
    given = tensor_of(x)
    assert given is not None
    return wanted.dim() == given.dim() and is_dense(wanted) and not is_dense(given)


def _dtype(held: Held, spec: RegionSpec) -> torch.dtype:
    """Return the dtype in which a package reads an operand."""
    return torch.float32 if held.float32 else spec.dtype


def _cast(graph: fx.Graph, value: fx.Node, node: fx.Node, dtype: torch.dtype) -> fx.Node:
    tensor = tensor_of(node)
    if tensor is None or not tensor.is_floating_point() or tensor.dtype is dtype:
        return value
    return graph.call_method("to", (value, dtype))


def _adapted(graph: fx.Graph, value: fx.Node, held: Held, x: fx.Node, region: Region) -> fx.Node:
    match held.adapted:
        case "flat":
            tensor = tensor_of(held.node)
            flat = isinstance(tensor, Tensor) and tensor.dim() == 1
            return value if flat else graph.call_method("reshape", (value, (-1,)))
        case "channel":
            return graph.call_method("reshape", (value, (-1, *(1,) * held.inner)))
        case "single":
            tensor = tensor_of(held.node)
            single = isinstance(tensor, Tensor) and tensor.dim() == 0
            return value if single else graph.call_method("reshape", (value, ()))
        case "expanded" if any(call.halves for call in region.calls.values()):
            sizes = [  # of a part of x
                size if isinstance(size, int) else graph.call_method("size", (x, dim))
                for dim, size in enumerate(region.shape)
            ]
            return graph.call_method("expand", (value, sizes))
        case "expanded":
            return graph.call_method("expand_as", (value, x))
        case _:
            return value


def _in_order(
    graph: fx.Graph,
    of_node: Mapping[fx.Node, tuple[Region, RegionSpec, Callable[..., Any]]],
    effects: Effects,
) -> list[Any]:
    """Return the nodes and regions of a graph in an order in which they can run, close to the given one.

    Nothing leaves its stretch.
    """
    nodes = list(graph.nodes)
    place = {node: number for number, node in enumerate(nodes)}
    before = effects.before
    unit_of: dict[fx.Node, int] = {}
    units: dict[int, tuple[Any, list[fx.Node]]] = {}
    for node in nodes:
        item = of_node.get(node)
        members = list(item[0].calls) if item else [node]
        unit_of[node] = max(place[m] for m in members)
        units[unit_of[node]] = (item or node, members)
    stretch = {key: effects.stretch[members[0]] for key, (_, members) in units.items()}
    needs: dict[int, set[int]] = {}
    for key, (unit, members) in units.items():
        if isinstance(unit, fx.Node):
            read = {*unit.all_input_nodes, *before.get(unit, ())}
        else:
            read = {needed for member in members for needed in needs_of(member, effects)}
        needs[key] = {unit_of[d] for d in read} - {key}
    waiting: dict[int, list[int]] = {}
    for key, needed in needs.items():
        for other in needed:
            waiting.setdefault(other, []).append(key)
    ready = [(stretch[key], key) for key, needed in needs.items() if not needed]
    heapq.heapify(ready)
    result = []
    while ready:
        _, key = heapq.heappop(ready)
        result.append(units[key][0])
        for other in waiting.get(key, ()):
            needs[other].discard(key)
            if not needs[other]:
                heapq.heappush(ready, (stretch[other], other))
    assert len(result) == len(units), "a region depends on itself"
    return result
