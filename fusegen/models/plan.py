"""What of a captured graph is fused: its regions, each with its spec, and the reasons for the rest."""

from __future__ import annotations

import functools
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from fusegen.models import patterns
from fusegen.models.arguments import name_of
from fusegen.models.attention import use_attention
from fusegen.models.autocasts import write_casts
from fusegen.models.beside import has_another_beside, is_arithmetic
from fusegen.models.broadcasts import leave_out_broadcasts
from fusegen.models.calls import Comparison
from fusegen.models.channel_norms import write_channel_norms
from fusegen.models.channels_last import use_channels_last
from fusegen.models.computed_again import compute_again
from fusegen.models.conv_biases import take_biases
from fusegen.models.cost import Cost, cost_of
from fusegen.models.detached import write_detached
from fusegen.models.effects import Effects, effects_of
from fusegen.models.even_means import spread_means
from fusegen.models.extremes import write_extremes
from fusegen.models.filled import write_numbers
from fusegen.models.from_parts import leave_parts, start_from_parts
from fusegen.models.function_by_parts import apply_by_parts
from fusegen.models.fusion_report import (
    AGAIN,
    ATTENTION,
    BIASES,
    CASTS,
    CHANNEL_NORMS,
    CHANNELS_LAST,
    MEANS,
    MOVED,
    PARTS,
    RECOMPUTED,
    UNBOUND,
    VIEWS,
    WEIGHTS,
    Report,
)
from fusegen.models.gates import write_gates
from fusegen.models.gates_of_sums import start_gates
from fusegen.models.kept_dims import drop_dims, keep_dims
from fusegen.models.move_views import move_views
from fusegen.models.movement import move_by_kernels
from fusegen.models.norm_weights import give_weights
from fusegen.models.noted import note
from fusegen.models.other_gates import write_other_gates
from fusegen.models.out_of_place import leave_out_unread, write_out_of_place
from fusegen.models.parts import specs_of
from fusegen.models.recompute import recompute
from fusegen.models.refusals import mistake_in, refusal, refused_nodes, spec_again
from fusegen.models.regions import Region, Search
from fusegen.models.rope import write_ropes
from fusegen.models.rotary import write_rotations
from fusegen.models.row_dropout import draw_row_masks
from fusegen.models.shared_weights import share_weights
from fusegen.models.siblings import join_siblings
from fusegen.models.spec_text import RegionSpec
from fusegen.models.spellings import write_plainly
from fusegen.models.sum_by_parts import sum_by_parts
from fusegen.models.unbound import take_apart

__all__ = ["ALONE", "APART", "Plan", "plan_of"]

#: Why an op is in no region.
ALONE = "nothing beside it to be fused with"
APART = "a product lies between it and what is beside it, or no kernel computes both"


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
    _tidy(graph, inputs, order, report)
    effects = effects_of(graph, inputs)
    report.changed[PARTS] += start_gates(
        graph,
        effects,
        lambda region: (
            not refusal(region, order, effects)
            and _not_worth(cost_of(region), everything=everything) is None
        ),
    )
    report.changed[PARTS] += start_from_parts(
        graph, effects, lambda region: not refusal(region, order, effects)
    )
    report.changed[RECOMPUTED] += recompute(
        graph,
        effects_of(graph, inputs),
        lambda region: _not_worth(cost_of(region), everything=everything) is None,
    )
    effects = effects_of(graph, inputs)  # of the nodes that are new, too
    report.graphs += 1
    refused: dict[fx.Node, str] = {}
    while True:  # what no spec can say is left out by itself, not with all that is around it
        search = Search(graph, effects, refused)
        found_alone, left = search.run()
        regions = join_siblings(
            graph, found_alone, search, lambda region: not refusal(region, order, effects)
        )
        specs, unfit, others = _worth(regions, order, effects, everything=everything)
        wrong = [region for region, spec in specs if mistake_in(spec.text)]
        wrong += [region for region, _ in unfit if len(region.calls) > 1]
        found = [refused_nodes(region, order, effects) for region in wrong]
        if not any(found):
            break
        refused = dict(ChainMap(refused, *found))
    inside = _computed_inside(graph, specs)
    for node, reason in left.items():
        if node not in inside:
            report.left[name_of(node), reason] += 1
            report.apart += is_arithmetic(node) and has_another_beside(node)
    for region, reason in (*unfit, *others):
        if not inside.issuperset(region.calls):
            _note_left(report, region, reason)
    specs = [(r, s) for r, s in specs if not inside.issuperset(r.calls)]
    fused = {node for region, _ in specs for node in region.calls}
    leave_parts(graph, effects, fused)
    report.changed[UNBOUND] += take_apart(graph, effects, fused)
    fused.update(node for _, spec in specs for node in spec.inlined)
    report.changed[MOVED] += move_by_kernels(graph, effects, fused)
    report.changed[MEANS] += spread_means(graph, effects, fused)
    report.changed[WEIGHTS] += share_weights(graph, effects)
    if order == 1:  # for the second derivative the activation is kept anyway
        specs, again = compute_again(specs, effects, functools.partial(spec_again, order, effects))
        report.changed[AGAIN] += again
    return Plan(effects, specs)


def _tidy(graph: fx.Graph, inputs: Sequence[Any], order: int, report: Report) -> None:
    """Write a graph in the way in which regions are found, and replace what would be slow; see `plan_of`."""
    leave_out_unread(graph)
    write_out_of_place(graph)
    write_extremes(graph)
    give_weights(graph)
    before = effects_of(graph, inputs)
    if write_numbers(graph, before):
        before = effects_of(graph, inputs)
    for tidy in (write_detached, write_plainly, keep_dims):
        tidy(graph, before)
    leave_out_broadcasts(graph)
    draw_row_masks(graph, before)
    apply_by_parts(graph, before)
    if not before.stretch.keys() >= set(graph.nodes):
        before = effects_of(graph, inputs)  # of the nodes that are new, too
    report.changed[CHANNEL_NORMS] += write_channel_norms(graph, before)
    sum_by_parts(graph, before)
    write_rotations(graph, before)
    write_ropes(graph, before)
    write_gates(graph, before)
    write_other_gates(graph, before)
    leave_out_unread(graph)
    if order == 1:
        report.changed[ATTENTION] += use_attention(graph, before)
    report.changed[CASTS] += write_casts(graph, before)
    report.changed[BIASES] += take_biases(graph, before)
    report.changed[CHANNELS_LAST] += use_channels_last(graph, before)
    report.changed[VIEWS] += move_views(graph, lambda: effects_of(graph, inputs))
    leave_out_broadcasts(graph)
    drop_dims(graph)
    leave_out_unread(graph)


def _worth(
    regions: Sequence[Region], order: int, effects: Effects, *, everything: bool
) -> tuple[list[tuple[Region, RegionSpec]], list[tuple[Region, str]], list[tuple[Region, str]]]:
    """Return the regions that are worth a package, each with its spec; and with the reason those that no spec
    says, and those that are not worth it."""
    specs: list[tuple[Region, RegionSpec]] = []
    unfit: list[tuple[Region, str]] = []
    others: list[tuple[Region, str]] = []
    for region in regions:
        parts, refused = specs_of(region, order, effects)
        unfit += refused
        for part, spec in parts:
            loss = _not_worth(cost_of(part, spec.inlined), everything=everything)
            if loss is None:
                specs.append((part, spec))
            else:
                others.append((part, loss))
    return specs, unfit, others


def _not_worth(cost: Cost, *, everything: bool) -> str | None:
    """Return why a region is not worth a package; None if it is."""
    if cost.launches < 2 and cost.seconds_saved <= 0:
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
    for node in region.calls:
        if not launches:
            report.left[name_of(node), "it computes nothing"] += 1
        elif is_arithmetic(node) and has_another_beside(node):
            report.left[name_of(node), APART] += 1
            report.apart += 1
        else:
            report.left[name_of(node), ALONE] += 1
            report.alone += is_arithmetic(node)


def _computed_inside(graph: fx.Graph, specs: Sequence[tuple[Region, RegionSpec]]) -> set[fx.Node]:
    """Return small tensors and comparisons that nobody reads, since packages compute them themselves."""
    takes: dict[fx.Node, set[fx.Node]] = {}  # what the package of a node computes of its inputs
    for region, spec in specs:
        for node, call in region.calls.items():
            takes[node] = set(spec.inlined)
            if isinstance(call.condition, Comparison):
                takes[node] |= {i for i in node.all_input_nodes if i.target in patterns.COMPARISONS}
    small: set[fx.Node] = set().union(*takes.values())
    unread: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node in small and all(node in takes.get(u, ()) or u in unread for u in node.users):
            unread.add(node)
    return unread
