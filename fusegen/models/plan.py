"""What of a captured graph is fused: its regions, each with its spec, and the reasons for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from fusegen.models.arguments import name_of
from fusegen.models.attention import use_attention
from fusegen.models.channels_last import use_channels_last
from fusegen.models.cost import cost_of
from fusegen.models.effects import Effects, effects_of
from fusegen.models.fusion_report import ATTENTION, CHANNELS_LAST, FusedRegion, Report
from fusegen.models.out_of_place import leave_out_unread, write_out_of_place
from fusegen.models.parts import specs_of
from fusegen.models.region_spec import RegionSpec
from fusegen.models.regions import Region, find_regions
from fusegen.models.rotary import write_rotations

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
    write_rotations(graph, inputs)
    leave_out_unread(graph)
    effects = effects_of(graph, inputs)
    if order == 1:
        report.changed[ATTENTION] += use_attention(graph, effects)
    report.changed[CHANNELS_LAST] += use_channels_last(graph, effects)
    regions, left = find_regions(graph, effects)
    report.graphs += 1
    for node, reason in left.items():
        report.left[name_of(node), reason] += 1
    specs = []
    for region in regions:
        if _is_worth(region, report, everything=everything):
            parts, refused = specs_of(region, order, effects)
            for part, spec in parts:
                if part is region or _is_worth(part, report, everything=everything):
                    specs.append((part, spec))
            for part, reason in refused:
                note(report, part, reason)
    return Plan(effects, specs)


def note(report: Report, region: Region, reason: str, spec: RegionSpec | None = None) -> None:
    """Add a region to a report.

    Args:
        report: the report.
        region: the region.
        reason: why it is not fused; empty if it is.
        spec: its spec, if it has one.
    """
    report.regions.append(
        FusedRegion(
            tuple(call.name for call in region.calls.values()),
            f"[{', '.join(map(str, region.shape))}]",
            cost_of(region),
            spec.name if spec else "",
            spec.text if spec else "",
            reason,
        )
    )


def _is_worth(region: Region, report: Report, *, everything: bool) -> bool:
    """Return whether a region is worth a package; say in the report why not."""
    cost = cost_of(region)
    if cost.launches < 2:
        for node in region.calls:
            report.left[name_of(node), "nothing beside it to be fused with"] += 1
        return False
    if cost.seconds_saved <= 0 and not everything:
        lost = -cost.seconds_saved * 1e6
        note(report, region, f"a call would cost more than it saves, by {lost:.0f} us")
        return False
    return True
