"""A captured graph as a person sees it: its ops, of which those of a region are one unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from torch import Tensor, fx, nn
from torch.utils import _pytree

from fusegen.models import patterns
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.regions import Region

__all__ = ["Unit", "units_of"]

#: What the names of a module's own tensors have in them where torch passes them to a graph.
_OWN = ("_parameters_", "_buffers_")


@dataclass(frozen=True)
class Unit:
    """An input, an op that torch computes, a region, or the results.

    Args:
        kind: "input", "op", "region" or "output".
        ops: the names of its ops; of an input, its own name.
        shape: the shape of its value or of a region's activation, as text; empty without one.
        package: the package of a region.
        inputs: the units that it reads, by their places in the graph's list. All come before it.
    """

    kind: str
    ops: tuple[str, ...]
    shape: str = ""
    package: str = ""
    inputs: tuple[int, ...] = ()


def units_of(graph: fx.Graph, regions: Sequence[tuple[Region, str]]) -> tuple[Unit, ...]:
    """Return the units of a graph in an order in which they can run.

    Views are left out, and so are parameters, buffers, and what no result depends on.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`.
        regions: the regions that are fused, each with its package.
    """
    first = {node: next(iter(region.calls)) for region, _ in regions for node in region.calls}
    made = {first[node]: (region, name) for region, name in regions for node in region.calls}
    read: dict[fx.Node, dict[fx.Node, None]] = {}
    pending = [node for node in graph.nodes if node.op == "output"]
    while pending:
        node = pending.pop()
        if node not in read:
            inside = made[node][0].calls if node in made else {}
            given = [i for call in inside.values() for i in call.inputs] or node.all_input_nodes
            read[node] = _sources(given, first, first.get(node, node))
            pending += read[node]
    order = list(TopologicalSorter({node: list(read[node]) for node in read}).static_order())
    place = {node: number for number, node in enumerate(order)}
    return tuple(_unit(node, made, [place[source] for source in read[node]]) for node in order)


def _sources(
    given: Sequence[fx.Node], first: Mapping[fx.Node, fx.Node], own: fx.Node
) -> dict[fx.Node, None]:
    """Return the units that a unit reads, each by its first node; those behind views are read."""
    found: dict[fx.Node, None] = {}
    pending = list(given)
    while pending:
        node = pending.pop(0)
        unit = first.get(node, node)
        if unit is own or _is_left_out(node):
            continue
        if node not in first and _is_view(node):
            pending += node.all_input_nodes
        else:
            found[unit] = None
    return found


def _is_view(node: fx.Node) -> bool:
    """Return whether a node only says which part of a tensor is read, or gives a number and no tensor."""
    if node.op not in ("call_function", "call_method"):
        return False
    values = _pytree.tree_leaves(node.meta.get("example_value"))
    return name_of(node) in patterns.VIEWS or not any(isinstance(v, Tensor) for v in values)


def _is_left_out(node: fx.Node) -> bool:
    """Return whether a node is a parameter, a buffer or a number."""
    if node.op == "get_attr":
        return True
    if node.op != "placeholder":
        return False
    value = tensor_of(node)
    return (
        value is None
        or isinstance(value, nn.Parameter)
        or any(part in str(node.target) for part in _OWN)
    )


def _unit(node: fx.Node, made: Mapping[fx.Node, tuple[Region, str]], inputs: Sequence[int]) -> Unit:
    if node in made:
        region, package = made[node]
        names = tuple(call.name for call in region.calls.values())
        return Unit("region", names, _shape(region.shape), package, tuple(inputs))
    value = tensor_of(node)
    shape = "" if value is None else _shape(tuple(value.shape))
    if node.op == "placeholder":
        return Unit("input", (_name_of_input(str(node.target)),), shape)
    if node.op == "output":
        return Unit("output", ("result",), "", "", tuple(inputs))
    return Unit("op", (name_of(node),), shape, "", tuple(inputs))


def _name_of_input(target: str) -> str:
    """Return how a model calls an input: torch writes `L_x_`, and of positional ones `L_args_0_`."""
    name = target.removeprefix("L_").removesuffix("_")
    return name.replace("args_", "input ") if name.startswith("args_") else name


def _shape(shape: Sequence[object]) -> str:
    return f"[{', '.join(map(str, shape))}]"
