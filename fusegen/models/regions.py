"""Which nodes of a captured graph are computed together: the largest sets that one package can hold.

A region has one activation shape. Each value in it has that shape, or that shape with size 1 in the dims that
the region reduces. Contracted to a single node it must leave the graph without cycles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import fx

from fusegen.models import patterns
from fusegen.models.arguments import UnfitError, tensor_of
from fusegen.models.calls import Call, Comparison, call_of, call_or_none
from fusegen.models.effects import Effects
from fusegen.models.shapes import Shape, broadcast, is_reduced, same

__all__ = ["Region", "Search", "find_regions", "joined_of", "needs_of", "region_of", "rounds"]

#: A longer region takes sympy and the compilers long, and a kernel runs out of registers.
MAX_NODES = 48
#: torch passes at most 64 tensors and numbers to an operator.
MAX_TENSORS = 24


@dataclass
class Region:
    """Nodes that are computed together.

    Args:
        calls: what each node computes, in the graph's order.
        shape: the shape of the activation.
        rows: the dims that it reduces, counted from the end; or a word for the layout that a norm over
            channels or a batch sets; or None.
        device: the device of all its tensors.
    """

    calls: dict[fx.Node, Call]
    shape: Shape
    rows: tuple[int, ...] | str | None
    device: torch.device
    #: The regions of the graph by their nodes.
    around: dict[fx.Node, Region] = field(default_factory=dict, repr=False, compare=False)

    @property
    def inputs(self) -> list[fx.Node]:
        """The nodes outside that it reads, in order of first use."""
        read = (i for call in self.calls.values() for i in call.inputs)
        return [n for n in dict.fromkeys(read) if n not in self.calls]

    @property
    def outputs(self) -> list[fx.Node]:
        """Its nodes that others read."""
        return [n for n in self.calls if any(user not in self.calls for user in n.users)]


def find_regions(
    graph: fx.Graph, effects: Effects, refused: Mapping[fx.Node, str] = MappingProxyType({})
) -> tuple[list[Region], dict[fx.Node, str]]:
    """Return the regions of a graph, and why each node outside of them is left out.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`.
        effects: what may not be moved.
        refused: nodes that no spec can say, each with the reason.
    """
    return Search(graph, effects, refused).run()


class Search:
    """The search for a graph's regions.

    It knows the graph as it was at first, so that paths can be looked for while the graph is rewritten.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`.
        effects: what may not be moved.
        refused: nodes that no spec can say, each with the reason.
    """

    def __init__(
        self,
        graph: fx.Graph,
        effects: Effects,
        refused: Mapping[fx.Node, str] = MappingProxyType({}),
    ) -> None:
        self._refused = refused
        self._nodes = list(graph.nodes)
        self._place = {node: place for place, node in enumerate(self._nodes)}
        self._effects = effects
        self._needs = {node: needs_of(node, effects) for node in self._nodes}
        self._region: dict[fx.Node, Region] = {}

    def run(self) -> tuple[list[Region], dict[fx.Node, str]]:
        """Return the regions, and why each node outside of them is left out."""
        left = {}
        for node in self._nodes:
            if node.op not in ("call_function", "call_method"):
                continue
            try:
                if node in self._refused:
                    raise UnfitError(self._refused[node])
                if node in self._effects.nested:
                    raise UnfitError("it is inside a transform of torch.func")
                call = call_of(node)
                if call.is_mask:
                    raise UnfitError("a mask as numbers, which the regions that read it compute")
                if not node.users:
                    raise UnfitError("nobody reads its value")
                if not self._effects.may_move(node):
                    raise UnfitError("it changes a tensor, or reads one that is changed")
                self._add(node, call)
            except UnfitError as error:
                left[node] = str(error)
        regions = {id(region): region for region in self._region.values()}
        for region in regions.values():
            region.around = self._region
        return list(regions.values()), left

    def _add(self, node: fx.Node, call: Call) -> None:
        """Make a region of a node, and join it with those that its inputs are in."""
        region = region_of(node, call)
        self._region[node] = region
        for used in call.inputs:
            other = self._region.get(used)
            if other is None or other is region or not other.calls[used].keepdim:
                continue
            joined = self.joined(other, region)
            if joined is not None:
                region = joined
                self.take(joined)

    def joined(self, a: Region, b: Region) -> Region | None:
        """Return two regions as one, or None if that cannot be."""
        first, second = (next(iter(region.calls)) for region in (a, b))
        if self._effects.stretch[first] != self._effects.stretch[second]:
            return None
        joined = joined_of(a, b)
        if joined is None or _loses_a_rounding(joined) or not self.is_closed(joined.calls):
            return None
        joined.calls = dict(sorted(joined.calls.items(), key=lambda i: self._place[i[0]]))
        joined.around = self._region
        return joined

    def take(self, joined: Region) -> None:
        """Take a region in place of those that it is joined of."""
        self._region.update(dict.fromkeys(joined.calls, joined))

    def is_closed(self, nodes: Collection[fx.Node]) -> bool:
        """Return whether no path leaves some nodes and comes back."""
        first = min(self._place[node] for node in nodes)
        pending = [d for node in nodes for d in self._needs[node] if d not in nodes]
        seen: set[fx.Node] = set()
        while pending:
            node = pending.pop()
            if node in nodes:
                return False
            if node in seen:
                continue
            seen.add(node)
            members = self._region[node].calls if node in self._region else (node,)
            seen.update(members)
            if max(self._place[m] for m in members) > first:
                pending += [d for m in members for d in self._needs[m] if d not in seen]
        return True


def needs_of(node: fx.Node, effects: Effects) -> list[fx.Node]:
    """Return what a node of a region waits for: what it reads, and what must run before.

    A comparison by which it chooses is computed with it, and so stands for what it reads itself.

    Args:
        node: the node.
        effects: what may not be moved in the graph.
    """
    found: list[fx.Node] = []
    reads_one = any(used.target in patterns.COMPARISONS for used in node.all_input_nodes)
    call = call_or_none(node) if reads_one else None
    compares = call is not None and isinstance(call.condition, Comparison)
    for used in node.all_input_nodes:
        inside = compares and used.target in patterns.COMPARISONS
        found += (*used.all_input_nodes, *effects.before.get(used, ())) if inside else (used,)
    return [*dict.fromkeys(found), *effects.before.get(node, ())]


def _loses_a_rounding(region: Region) -> bool:
    """Return whether a cast of a region asks for the value that another one of its casts has rounded."""
    casts = [call.x for call in region.calls.values() if call.op is None]
    return any(
        x in region.calls and rounds(x, region.calls[x]) for x in casts if isinstance(x, fx.Node)
    )


def rounds(node: fx.Node, call: Call) -> bool:
    """Return whether a cast rounds. A cast back to a wider dtype asks for just that."""
    if call.op is not None:
        return False
    before, after = tensor_of(call.x), tensor_of(node)
    return before is not None and after is not None and before.itemsize > after.itemsize


def region_of(node: fx.Node, call: Call) -> Region:
    """Return the region of one node.

    Raises:
        UnfitError: if no chain has rows like its.
    """
    value = tensor_of(node)
    assert value is not None
    tensors = {used: tensor_of(used) for used in call.inputs}
    shapes = [tuple(t.shape) for t in tensors.values() if t is not None]
    rows: tuple[int, ...] | str | None = call.dims or None
    if call.name in patterns.KEPT or call.of_classes:
        reads = tensor_of(call.x)
        assert reads is not None
        shape: Shape | None = tuple(value.shape if call.halves else reads.shape)
        if call.name == "batch_norm":
            rows = "batch" if call.training else None
        elif call.op is not None and call.op.submodule and call.op.submodule.operands:
            rows = f"{call.name} {node.name}"
    elif call.name in (
        "prelu",
        "rope",
    ):  # weights of each channel, wherever these are; narrower tables
        reads = tensor_of(call.x)
        shape = tuple(reads.shape) if reads is not None else None
    else:
        shape = broadcast(shapes)
    if shape is None or not shape:
        raise UnfitError("a single number, or shapes that cannot be compared")
    if isinstance(rows, tuple):
        _check_rows(rows, shape)
    elif call.ends:
        if not all(same(other, shape) for other in shapes):
            raise UnfitError("a loss of tensors of several shapes")
    elif not same(tuple(value.shape), shape):
        raise UnfitError("the result has another shape than what it is computed from")
    return Region({node: call}, shape, rows, value.device)


def _check_rows(rows: tuple[int, ...], shape: Shape) -> None:
    """Refuse rows that a chain cannot have."""
    if rows != tuple(range(rows[0], rows[0] + len(rows))):
        raise UnfitError("a reduction over dims that are not neighbours")
    if len(shape) == len(rows):
        raise UnfitError("a reduction over all dims")


def joined_of(a: Region, b: Region) -> Region | None:
    """Return two regions as one, or None if no package holds both."""
    if a.device != b.device or len(a.calls) + len(b.calls) > MAX_NODES:
        return None
    if a.rows is not None and b.rows is not None and a.rows != b.rows:
        return None
    rows = a.rows if a.rows is not None else b.rows
    if same(a.shape, b.shape):
        shape = a.shape
    elif _is_row_of(a, b):
        shape = b.shape
    elif _is_row_of(b, a):
        shape = a.shape
    else:
        return None
    dropped = [n for region in (a, b) for n, c in region.calls.items() if not c.keepdim]
    calls = {**a.calls, **b.calls}
    if sum(call.ends for call in calls.values()) > 1:
        return None
    if any(user in calls for node in dropped for user in node.users):
        return None
    if any(_draws(call) and not same(_shape_of(n), shape) for n, call in calls.items()):
        return None
    joined = Region(calls, shape, rows, a.device)
    return joined if len(joined.inputs) + len(joined.outputs) <= MAX_TENSORS else None


def _draws(call: Call) -> bool:
    """Return whether a call draws random numbers, one for each element of a whole activation."""
    return call.op is not None and call.name in ("dropout", "alpha_dropout")


def _shape_of(node: fx.Node) -> Shape:
    value = tensor_of(node)
    return tuple(value.shape) if value is not None else ()


def _is_row_of(small: Region, large: Region) -> bool:
    """Return whether a region has one value for each row of another."""
    rows = large.rows
    return (
        small.rows is None
        and isinstance(rows, tuple)
        and is_reduced(small.shape, large.shape, rows)
    )
