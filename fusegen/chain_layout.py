"""Which dims of the activation are a chain's rows and columns, from what its steps reduce over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fusegen.atoms import ROW_FUNCTIONS
from fusegen.errors import SpecError
from fusegen.layout import CHANNEL_DIM, Layout, pointwise_layout
from fusegen.program import Kind
from fusegen.spec_types import Ref, Spec, Step


@dataclass(frozen=True)
class Stretch:
    """Steps that follow one another and have one layout."""

    steps: tuple[Step, ...]
    layout: Layout


def stretches_of(spec: Spec) -> tuple[Stretch, ...]:
    """Return the chain's stretches: it is cut in front of each step that needs another layout.

    What does not reduce stays with what is in front of it, where it costs no access to memory: a pointwise
    step makes nothing smaller that is handed on, and one that makes it larger, as a full operand behind a
    mean does, can do so only where the mean was taken. Two halves of one tensor are those of what the first
    stretch starts from.

    Raises:
        SpecError: where a step can have no layout at all.
    """
    if spec.dims < 3 and not any(s.op and s.op.groups for s in spec.steps):
        return (Stretch(spec.steps, replace(_flat_layout(spec), halved=spec.halved)),)
    found: list[tuple[list[Step], Layout | None]] = [([], None)]
    for step in spec.steps:
        steps, layout = found[-1]
        wanted = _wanted(spec, step)
        if wanted is None or layout is None or wanted == layout:
            found[-1] = ([*steps, step], layout or wanted)
        else:
            found.append(([step], wanted))
    steps, layout = found[0]
    if layout is None:
        formulas = any(_has_row_functions(s) or (s.op and s.op.classes) for s in steps)
        found[0] = (steps, Layout(spec.dims) if formulas else _pointwise(spec, steps))
    elif spec.halving and spec.halved > layout.first:  # no row of a half would lie together
        count = next(n for n, step in enumerate(steps) if reduces(step))
        found[:1] = [(steps[:count], _pointwise(spec, steps[:count])), (steps[count:], layout)]
    stretches = [Stretch(tuple(steps), layout) for steps, layout in found if layout]
    for stretch in stretches:
        if stretch.layout.groups is not None:
            _check_grouped(spec, stretch)
    first = replace(stretches[0], layout=replace(stretches[0].layout, halved=spec.halved))
    return (first, *stretches[1:])


def _pointwise(spec: Spec, steps: Sequence[Step]) -> Layout:
    """Return the layout of steps that reduce nothing."""
    named = {r.name for s in steps for r in s.operands.values() if isinstance(r, Ref)}
    kinds = (o.kind for o in spec.operands if o.name in named)
    return pointwise_layout(spec.dims, kinds, spec.halved)


def reduces(step: Step) -> bool:
    """Whether a step needs rows of several columns."""
    if step.op is None:
        return _has_row_functions(step)
    op = step.op
    return bool(op.dims or op.over or op.groups or op.trained)


def _flat_layout(spec: Spec) -> Layout:
    """Return the layout of a chain over the last dim."""
    needy = next((s for s in spec.steps if s.op and s.op.over == "inner"), None)
    if needy is not None:
        raise _needs_inner(spec, needy)
    wide = any(_wants_matrix(s) or (s.op and s.op.over == "channel") for s in spec.steps)
    batch = any(s.op and s.op.trained for s in spec.steps)
    named = any(
        s.attributes.get("dim") == 1 for s in spec.steps if not s.op or s.op.dims or s.halves
    )
    by_channel = any(s.by_channel for s in spec.steps)  # of dim 1, as torch has it
    return Layout(2 if spec.dims or wide or batch or by_channel or named else 0)


def _needs_inner(spec: Spec, step: Step) -> SpecError:
    return SpecError(
        f"{step.label} needs dims behind the channel: start the chain from a convolution, or say "
        "how many dims the activation has (`dims: 4`)",
        spec.path,
        step.line,
    )


def _check_grouped(spec: Spec, stretch: Stretch) -> None:
    """Refuse what cannot be where a row is a group of channels.

    Raises:
        SpecError: for a formula's functions of a row, and for operands of rows, or of columns of an image.
    """
    for step in stretch.steps:
        if _has_row_functions(step):
            raise SpecError(
                f"{step.label} reduces over rows, which are {stretch.layout.shape} here; give it a dim: "
                "- expr: {formula: ..., dim: ...}",
                spec.path,
                step.line,
            )
    used = {r.name for s in stretch.steps for r in s.operands.values() if isinstance(r, Ref)}
    for operand in spec.operands:
        wide = operand.kind is Kind.COL and stretch.layout.rank > 2
        if operand.name in used and (operand.kind is Kind.ROW or wide):
            raise SpecError(
                f"{operand.name!r} is of kind {operand.kind.label}, but rows are groups of channels here; "
                "use kind full, channel or scalar",
                spec.path,
                operand.line,
            )


def _has_row_functions(step: Step) -> bool:
    return step.formula is not None and step.formula.has(*ROW_FUNCTIONS)


def _wanted(spec: Spec, step: Step) -> Layout | None:
    """Return the layout that a step needs, or None if it goes with any.

    Raises:
        SpecError: where it takes other activations than what stands in front of it gives.
    """
    rank = step.dims or 2
    if _wants_matrix(step) and rank >= 3:
        message = f"{step.label} takes rows of a matrix, and the activation has {rank} dims"
        raise SpecError(message, spec.path, step.line)
    op = step.op
    if rank < 2:
        return None  # of one dim nothing is left to reduce
    if op is None:
        return _named(rank, step.attributes.get("dim"))
    if op.over == "inner":
        if rank < 3:
            raise _needs_inner(spec, step)
        return Layout(rank, first=CHANNEL_DIM + 1 - rank)
    if op.groups:
        groups = step.attributes[op.groups]
        groups = groups.name if isinstance(groups, Ref) else groups
        assert isinstance(groups, int | str)
        return Layout(rank, CHANNEL_DIM - rank, -1, groups)
    if op.over == "last":
        return Layout(rank)
    if op.trained or op.over == "channel":  # the statistics of a batch are those of columns
        return Layout(rank, CHANNEL_DIM - rank, CHANNEL_DIM - rank)
    return next((_named(rank, step.attributes[name]) for name in op.dims), None)


def _named(rank: int, dim: object) -> Layout | None:
    """Return the layout whose rows run along a dim, or several from the end, or None where it is none."""
    if isinstance(dim, int):
        return Layout(rank, dim % rank - rank, dim % rank - rank)
    return Layout(rank, dim[0], dim[-1]) if isinstance(dim, tuple) else None


def _wants_matrix(step: Step) -> bool:
    """Whether a step's torch function means something else where x has not two dims."""
    by_rows = step.attributes.get("reduction") == "batchmean"
    return step.op is not None and by_rows
