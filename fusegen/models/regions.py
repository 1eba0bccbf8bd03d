"""Which nodes of a captured graph are computed together: the largest sets that one package can hold.

Contracted to a single node, a region must leave the graph without cycles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from torch import fx

from fusegen.models import patterns
from fusegen.models.arguments import UnfitError, tensor_of
from fusegen.models.calls import Call, Comparison, call_of, call_or_none
from fusegen.models.detached import detached_in, with_gradients
from fusegen.models.effects import Effects
from fusegen.models.in_order import reason_by_kind, reason_by_order
from fusegen.models.region import Region, joined_of, region_of

__all__ = ["Region", "Search", "find_regions", "joined_of", "needs_of", "region_of", "rounds"]


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
        #: The place of the last node of each region of several, by the place of the first.
        self._ends: dict[int, int] = {}

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
                if reason := reason_by_kind(node):
                    raise UnfitError(reason)
                call = call_of(node)
                if call.is_mask:
                    raise UnfitError("a mask as numbers, which the regions that read it compute")
                for moved in (node, *_compared(node, call)):
                    if reason := reason_by_order(moved, self._effects):
                        raise UnfitError(reason)
                if not node.users:
                    raise UnfitError("nobody reads its value")
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
        if call.detached:
            return  # what reads it takes it
        for used in call.inputs:
            other = self._region.get(used)
            if other is None or other is region or not other.calls[used].keepdim:
                continue
            if not other.calls[used].detached:
                region = self._grown(region, other)
        for used in detached_in(region.inputs):
            own, source = self._region.get(used), self._region.get(used.all_input_nodes[0])
            if own is None:
                continue  # no spec can say it
            if source is not None and source is not region:  # all three at once: no path may leave
                own = joined_of(source, own) or own
            region = self._grown(region, own)

    def _grown(self, region: Region, other: Region) -> Region:
        """Return a region, joined with another one if that can be."""
        joined = self.joined(other, region)
        if joined is None:
            return region
        self.take(joined)
        return joined

    def joined(self, a: Region, b: Region) -> Region | None:
        """Return two regions as one, or None if that cannot be."""
        first, second = (next(iter(region.calls)) for region in (a, b))
        if self._effects.stretch[first] != self._effects.stretch[second]:
            return None
        joined = joined_of(a, b)
        if joined is None or _loses_a_rounding(joined) or not self.is_closed(joined.calls):
            return None
        if with_gradients(joined.calls, joined.outputs).isdisjoint(joined.inputs):
            return None
        joined.calls = dict(sorted(joined.calls.items(), key=lambda i: self._place[i[0]]))
        joined.around = self._region
        return joined

    def take(self, joined: Region) -> None:
        """Take a region in place of those that it is joined of."""
        self._region.update(dict.fromkeys(joined.calls, joined))
        places = [self._place[node] for node in joined.calls]
        for place in places:
            self._ends.pop(place, None)
        self._ends[min(places)] = max(places)

    def is_closed(self, nodes: Collection[fx.Node]) -> bool:
        """Return whether no path leaves some nodes and comes back."""
        first = self._where_none_began(min(self._place[node] for node in nodes))
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

    def _where_none_began(self, place: int) -> int:
        """Return the last place up to this one before which all regions have ended that began before it.

        What comes before it needs nothing that comes after it.
        """
        while began := [low for low, last in self._ends.items() if low < place <= last]:
            place = min(began)
        return place


def needs_of(node: fx.Node, effects: Effects) -> list[fx.Node]:
    """Return what a node of a region waits for: what it reads, and what must run before.

    A comparison by which it chooses is computed with it, and so stands for what it reads itself.

    Args:
        node: the node.
        effects: what may not be moved in the graph.
    """
    found: list[fx.Node] = []
    reads_one = any(used.target in patterns.COMPARISONS for used in node.all_input_nodes)
    compared = _compared(node, call_or_none(node)) if reads_one else []
    for used in node.all_input_nodes:
        inside = used in compared
        found += (*used.all_input_nodes, *effects.before.get(used, ())) if inside else (used,)
    return [*dict.fromkeys(found), *effects.before.get(node, ())]


def _compared(node: fx.Node, call: Call | None) -> list[fx.Node]:
    """Return the comparisons by which a node chooses, which are computed with it."""
    if call is None or not isinstance(call.condition, Comparison):
        return []
    return [used for used in node.all_input_nodes if used.target in patterns.COMPARISONS]


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
