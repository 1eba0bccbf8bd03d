"""Collects what the template of `__init__.py` needs for a segment: its runtime chain and running averages."""

from __future__ import annotations

from dataclasses import dataclass

from fusegen.chain import Chain, Segment, SegmentOperand
from fusegen.chain.autocast import float32_values, promoting_operands
from fusegen.chain.dims_of_values import places_of
from fusegen.ops.autocast import IN_FLOAT32
from fusegen.program import Kind
from fusegen.render.declared_modes import declared_mode, tuple_text
from fusegen.spec.model import Ref, Spec


@dataclass(frozen=True)
class SegmentContext:
    """A segment as the template needs it.

    Args:
        chain: the name of its runtime chain in the package.
        segment: the segment.
        reaching: the name of its activation in messages.
        broadcasters: the places of the operands that make its activation larger than the value that reaches
            it.
        autocast: by device, whether torch.autocast makes each value that it returns float32.
        promoting: of each such value, the places of the operands that make it float32 if they are.
        sized: the dims along which a call must pass one of some operands as large as the activation.
        indexes: whether one of its steps gives numbers of columns.
        several_values: whether one of its steps refuses statistics of a single value.
        modes: see `declared_mode`.
        taken: the texts of the tensors that a call takes beside x.
        order: the dims in the order in which kernels take them, if it is another than the activation's.
        restored: the values whose dims are then put in the activation's order.
        returned: the values that it returns beside its last one.
        statistics: the values that its forward pass saves in training.
        tracked: its steps that keep running averages.
    """

    chain: str
    segment: Segment
    reaching: str
    broadcasters: tuple[int, ...]
    autocast: dict[str, tuple[bool, ...]]
    promoting: tuple[tuple[int, ...], ...]
    sized: tuple[tuple[int, tuple[str, ...]], ...]
    indexes: bool
    several_values: bool
    modes: list[dict[str, object]]
    taken: list[str]
    order: tuple[int, ...]
    restored: list[str]
    returned: list[str]
    statistics: list[str]
    tracked: list[Tracked]


@dataclass(frozen=True)
class Tracked:
    """A step whose submodule keeps running averages.

    Args:
        label: the submodule's name.
        place: its number among the chain's steps of this sort.
        averages: each buffer's name among the operands, with the saved statistic that it follows.
        momentum: the weight of a batch, as Python text.
    """

    label: str
    place: int
    averages: tuple[tuple[str, str], ...]
    momentum: str


def segment_contexts(chain: Chain) -> list[SegmentContext]:
    """Return what the template needs of each segment."""
    found: list[SegmentContext] = []
    for segment in chain.segments:
        found.append(
            SegmentContext(
                chain=f"_{segment.name or 'chain'}",
                segment=segment,
                reaching=_reaching(segment) if found else "x",
                broadcasters=tuple(
                    place
                    for place, operand in enumerate(segment.operands)
                    if operand.name in segment.span.broadcasters
                ),
                autocast=_autocast(chain.spec, segment),
                promoting=_promoting(chain.spec, segment),
                sized=_sized(segment),
                indexes=any(step.indexes for step in segment.steps),
                several_values=any(s.op and s.op.several_values for s in segment.steps),
                modes=[declared_mode(chain.spec, segment, mode) for mode in segment.modes],
                taken=[_taken(o, segment) for o in segment.operands if o.name != "x"],
                order=segment.layout.order,
                restored=_restored(chain.spec, segment),
                returned=list(segment.span.returned),
                statistics=[v.name for v in segment.modes[0].saved],
                tracked=_tracked(chain.spec, segment, sum(len(before.tracked) for before in found)),
            )
        )
    return found


def _sized(segment: Segment) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Return the dims, as kernels take them, along which some operands must be as large as the activation."""
    places = places_of(segment.layout.order)
    return tuple((places.get(dim, dim), names) for dim, names in segment.span.sized)


def _taken(operand: SegmentOperand, segment: Segment) -> str:
    """Return the text of an operand as a segment's call takes it."""
    layout = segment.layout
    if operand.alone and segment.span.broadcast and not layout.order:
        return f"along_dims({operand.name}, {tuple_text(operand.alone)}, x.shape)"
    if not layout.order or operand.integer or operand.kind is Kind.SCALAR:
        return operand.name
    if operand.channels:
        return f"rows_first({operand.name}, {layout.order}, per_channel=True)"
    if operand.alone:
        return f"rows_first({operand.name}, {layout.order}, alone={tuple_text(operand.alone)}, beside=x)"
    if operand.kind is Kind.ROW:
        dropped = ", dropped=True" if operand.beside_dropped else ""
        return f"rows_alone({operand.name}, {layout.order}, {len(layout.apart)}, x{dropped})"
    return f"rows_first({operand.name}, {layout.order})"


def _restored(spec: Spec, segment: Segment) -> list[str]:
    """Return the values of a segment that have its dims, if kernels take these in another order."""
    if not segment.layout.order:
        return []
    outputs = segment.modes[0].programs[0].outputs
    names = {"y": "x", **{spec.code(label): label for label in segment.span.returned}}
    return [name for code, name in names.items() if outputs[code].outline in ("like", "keepdim")]


def _reaching(segment: Segment) -> str:
    """Return the name of a later segment's activation in messages."""
    label = segment.steps[0].label
    return f"the activation of {label}" if segment.span.broadcast else f"what reaches {label}"


def _autocast(spec: Spec, segment: Segment) -> dict[str, tuple[bool, ...]]:
    """Return by device whether torch.autocast makes each value that a segment returns float32.

    Values that kernels return in float32 anyway count only beside others.
    """
    labels = (segment.steps[-1].label, *segment.span.returned)
    found = {}
    for device in IN_FLOAT32:
        values = float32_values(spec, device) | spec.unrounded
        if not values.isdisjoint(set(labels) - spec.unrounded):
            found[device] = tuple(label in values for label in labels)
    return found


def _promoting(spec: Spec, segment: Segment) -> tuple[tuple[int, ...], ...]:
    """Return the places of the operands that make each value of a segment float32 under torch.autocast.

    A value that kernels return in float32 anyway is so beside any other that is; () if there is none.
    """
    labels = (segment.steps[-1].label, *segment.span.returned)
    names = promoting_operands(spec, segment.span)
    taken = [operand.name for operand in segment.operands if operand.name != "x"]
    rounded = [names[label] for label in labels if label not in spec.unrounded]
    beside = frozenset[str]().union(*rounded)
    found = [beside if label in spec.unrounded else names[label] for label in labels]
    if not beside:
        return ()
    return tuple(tuple(n for n, name in enumerate(taken) if name in own) for own in found)


def _tracked(spec: Spec, segment: Segment, before: int) -> list[Tracked]:
    """Return the steps that keep running averages in training; earlier segments have `before` of them."""
    found: list[Tracked] = []
    followed = segment.modes[0].followed
    for step in segment.steps:
        if step.op is None or not step.op.tracked:
            continue
        averages = [
            (f"{step.label}_{step.state[buffer]}", followed[f"{spec.code(step.label)}_{part}"].name)
            for buffer, part in step.op.tracked.items()
        ]
        momentum = step.attributes["momentum"]
        found.append(
            Tracked(
                step.label,
                before + len(found),
                tuple(averages),
                momentum.name if isinstance(momentum, Ref) else repr(momentum),
            )
        )
    return found
