"""Moves views out from between ops, so that a region does not end at them.

`layer_norm((x + y).reshape(n, c))` becomes `layer_norm(x.reshape(n, c) + y.reshape(n, c))`. All nodes of one
of the two regions are computed in the shape of the other: their inputs are seen as the view sees its input,
and what others read of them is seen back. No element is moved, in the graph as it was or as it becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import fx

from fusegen.models.activations import shape_of
from fusegen.models.cost import bytes_of
from fusegen.models.effects import Effects
from fusegen.models.moved_region import leave_out_undone, may_move, move
from fusegen.models.regions import Region, Search, joined_of
from fusegen.models.shapes import numel, same
from fusegen.models.views import Step, base_of, inverse_of, step_of
from fusegen.models.written_views import sizes_of

__all__ = ["move_views"]

#: How often the regions are looked for again. Each time, a region takes part in one move.
_SWEEPS = 16


@dataclass(frozen=True)
class _Meeting:
    """A value of one region that another reads through views.

    Args:
        above: the region of the value.
        value: the value.
        views: the views, each of the one before it.
        steps: the same as steps.
        below: the region that reads the last of them.
    """

    above: Region
    value: fx.Node
    views: tuple[fx.Node, ...]
    steps: tuple[Step, ...]
    below: Region


def move_views(graph: fx.Graph, effects_of: Callable[[], Effects]) -> int:
    """Move views out from between regions that then are one; return how often.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`. It is changed.
        effects_of: says what may not be moved in the graph as it is now.
    """
    effects, sizes = effects_of(), sizes_of(graph)
    for node in list(graph.nodes):
        base = base_of(node) if step_of(node) is not None and effects.may_move(node) else None
        if base is not None and effects.stretch[base] == effects.stretch[node]:
            leave_out_undone(graph, node, effects, effects.stretch[node], sizes)
    count = 0
    for _ in range(_SWEEPS):
        effects = effects_of()
        search = Search(graph, effects)
        regions, _ = search.run()
        moved = _sweep(graph, search, regions, effects)
        count += moved
        if not moved:
            break
    return count


def _sweep(graph: fx.Graph, search: Search, regions: Sequence[Region], effects: Effects) -> int:
    """Move what can be moved, once for each region; return how often."""
    of_node = {node: region for region in regions for node in region.calls}
    meetings = sorted(_meetings(of_node, effects), key=lambda meeting: -bytes_of(meeting.value))
    sizes = sizes_of(graph)
    changed: set[int] = set()  # regions that are not what they were
    count = 0
    for meeting in meetings:
        if {id(meeting.above), id(meeting.below)} & changed or not _is_closed(meeting, search):
            continue
        ways = [(meeting.below, inverse_of(meeting.steps))]
        if same(meeting.steps[0].before, meeting.above.shape):
            ways.append((meeting.above, list(meeting.steps)))
        # The smaller region is the one that is moved, if it can be.
        for region, steps in sorted(ways, key=lambda way: len(way[0].calls)):
            other = meeting.below if region is meeting.above else meeting.above
            if _may_meet(region, steps, other, sizes):
                changed |= {id(of_node[n]) for n in _readers(region) if n in of_node}
                changed |= {id(region), id(other)}
                move(graph, region, steps, effects, sizes)
                count += 1
                break
    return count


def _meetings(of_node: dict[fx.Node, Region], effects: Effects) -> Iterator[_Meeting]:
    """Yield where a region reads a value of another one through views."""
    for node, below in of_node.items():
        for read in below.calls[node].inputs:
            views: list[fx.Node] = []
            steps: list[Step] = []
            value: fx.Node | None = read
            while value is not None and value not in of_node:
                step = step_of(value)
                if step is None:
                    break
                views.insert(0, value)
                steps.insert(0, step)
                value = base_of(value)
            if not views or value is None:
                continue
            above = of_node.get(value)
            if above is None or above is below:
                continue
            if effects.stretch[value] != effects.stretch[node]:
                continue
            # The value has the shape of its region, or is a reduced one.
            if same(steps[-1].after, below.shape):
                yield _Meeting(above, value, tuple(views), tuple(steps), below)


def _is_uniform(region: Region) -> bool:
    """Return whether all that a region reads has its shape, or is one number."""
    shapes = [shape_of(node) for node in region.inputs]
    return all(same(shape, region.shape) or numel(shape) == 1 for shape in shapes)


def _is_closed(meeting: _Meeting, search: Search) -> bool:
    """Return whether no path but through views leads from one region to the other."""
    nodes = {*meeting.above.calls, *meeting.views, *meeting.below.calls}
    return search.is_closed(nodes)


def _readers(region: Region) -> Iterator[fx.Node]:
    """Yield the nodes that read what a region computes, through views or not."""
    pending = [user for node in region.calls for user in node.users]
    while pending:
        user = pending.pop()
        yield user
        if step_of(user) is not None:
            pending += user.users


def _may_meet(
    region: Region, steps: Sequence[Step], other: Region, sizes: Mapping[str, fx.Node]
) -> bool:
    """Return whether a region can be computed in another's shape, and is one with it then."""
    shape = steps[-1].after
    joined = joined_of(replace(region, shape=shape), other)
    if not same(shape, other.shape) and not _is_uniform(region):
        return False  # beside a reduced value no kernel reads what varies along part of its dims
    return joined is not None and may_move(region, steps, sizes, in_rows=joined.rows is not None)
