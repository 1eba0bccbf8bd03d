"""What of a captured graph is fused: its regions, each with its spec, and the reasons for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from fusegen.models.arguments import name_of
from fusegen.models.attention import use_attention
from fusegen.models.calls import call_of
from fusegen.models.channels_last import use_channels_last
from fusegen.models.cost import Cost, cost_of
from fusegen.models.effects import Effects, effects_of
from fusegen.models.fusion_report import ATTENTION, CHANNELS_LAST, FusedRegion, Report
from fusegen.models.out_of_place import leave_out_unread, write_out_of_place
from fusegen.models.parts import specs_of
from fusegen.models.regions import Region, find_regions
from fusegen.models.spec_text import RegionSpec

__all__ = ["Plan", "note", "plan_of"]


@dataclass(frozen=True)
class Plan:
    """What of a graph is fused.

    Args:
        effects: what may not be moved in the graph.
        specs: the regions that are worth it, each with its spec.
    """

    effects: Effects
    specs: list[tuple[Region, RegionSpec]]


def plan_of(
    graph: fx.Graph, inputs: Sequence[Any], order: int, report: Report, *, everything: bool
) -> Plan:
    """Return what of a captured graph is fused. The graph is tidied, and what would be slow is replaced.

    Args:
        graph: the graph.
        inputs: example inputs.
        order: how many derivatives a package has.
        report: takes what is left, with the reasons.
        everything: fuse what the estimate says is slower, too.
    """
    leave_out_unread(graph)
    write_out_of_place(graph)
    leave_out_unread(graph)
    effects = effects_of(graph, inputs)
    if order == 1:
        report.changed[ATTENTION] += use_attention(graph, effects)
    report.changed[CHANNELS_LAST] += use_channels_last(graph, effects)
    regions, left = find_regions(graph, effects)
    report.graphs += 1
    specs: list[tuple[Region, RegionSpec]] = []
    others: list[tuple[Region, str]] = []
    for region in regions:
        parts, unfit = specs_of(region, order, effects)
        others += unfit
        for part, spec in parts:
            loss = _not_worth(cost_of(part, spec.inlined), everything=everything)
            if loss is None:
                specs.append((part, spec))
            else:
                others.append((part, loss))
    inside = _computed_inside(graph, specs)
    for node, reason in left.items():
        if node not in inside:
            report.left[name_of(node), reason] += 1
    for region, reason in others:
        if not inside.issuperset(region.calls):
            _note_left(report, region, reason)
    return Plan(effects, [(r, s) for r, s in specs if not inside.issuperset(r.calls)])


def note(
    report: Report, region: Region, reason: str, spec: RegionSpec | None = None
) -> FusedRegion:
    """Add a region to a report, and return what it says.

    Args:
        report: the report.
        region: the region.
        reason: why it is not fused; empty if it is.
        spec: its spec, if it has one.
    """
    inlined = spec.inlined if spec else ()
    calls = {**region.calls, **{node: call_of(node) for node in inlined}}
    noted = FusedRegion(
        tuple(call.name for _, call in sorted(calls.items(), key=lambda item: item[0])),
        f"[{', '.join(map(str, region.shape))}]",
        cost_of(region, inlined),
        spec.name if spec else "",
        spec.text if spec else "",
        reason,
    )
    report.regions.append(noted)
    return noted


def _not_worth(cost: Cost, *, everything: bool) -> str | None:
    """Return why a region is not worth a package; None if it is."""
    if cost.launches < 2:
        return ""  # the nodes say it
    if everything or cost.seconds_saved > 0:
        return None
    return f"a call would cost more than it saves, by {-cost.seconds_saved * 1e6:.0f} us"


def _note_left(report: Report, region: Region, reason: str) -> None:
    """Say in a report why a region has no package; a single op is not called a region."""
    launches = cost_of(region).launches
    if launches > 1:
        note(report, region, reason)
        return
    plain = "nothing beside it to be fused with" if launches else "it computes nothing"
    for node in region.calls:
        report.left[name_of(node), plain] += 1


def _computed_inside(graph: fx.Graph, specs: Sequence[tuple[Region, RegionSpec]]) -> set[fx.Node]:
    """Return the small tensors that nobody reads any more, since packages compute them themselves."""
    takes: dict[fx.Node, set[fx.Node]] = {}  # which small tensors the package of a node computes
    for region, spec in specs:
        for node in region.calls:
            takes[node] = set(spec.inlined)
    small: set[fx.Node] = set().union(*takes.values())
    unread: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node in small and all(node in takes.get(u, ()) or u in unread for u in node.users):
            unread.add(node)
    return unread
