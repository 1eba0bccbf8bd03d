"""Decides which dims of the activation are rows and columns, from the dims that a chain's steps reduce."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fusegen.atoms import COLUMN, ROW_FUNCTIONS, Rng, RowSum, Total
from fusegen.atoms.constants import parts
from fusegen.base.errors import SpecError
from fusegen.chain.layout import CHANNEL_DIM, Layout, pointwise_layout
from fusegen.program import Kind
from fusegen.spec.model import Ref, Spec, Step

#: What an operand that lists its dims should be for a chain that reduces nothing.
_OF_ROWS = (Kind.ROW, Kind.CHANNEL, Kind.FULL)


def next_span(
    spec: Spec, steps: Sequence[Step], start: Layout | None, *, first: bool
) -> tuple[Sequence[Step], Layout, Layout | None]:
    """Return the first steps, which share a layout, that layout, and the layout of the rest, if known.

    A step in whose value the parts of a row depend on one another shares a span only with steps that can be
    computed part by part, and that cut rows in the same way.

    Args:
        spec: the spec.
        steps: its remaining steps.
        start: the layout that these start with, if known.
        first: whether they are all of its steps.

    Raises:
        SpecError: a step can have no layout at all.
    """
    one, layout, after = _with_one_layout(spec, steps, start, first=first)
    count = _paired_count(spec, one, layout)
    if count == len(one):
        return one, layout, after
    kept, rest = one[:count], one[count:]
    # Paired columns are of the last dim, whatever later steps reduce.
    paired = any(step.paired for step in kept)
    if any(map(reduces, kept)) or (start is not None and not paired):
        return kept, layout, None
    own = _pointwise(spec, kept) if layout.rank >= 3 else replace(layout, groups=None)
    return kept, own, layout if any(map(reduces, rest)) else None


def _with_one_layout(
    spec: Spec, steps: Sequence[Step], start: Layout | None, *, first: bool
) -> tuple[Sequence[Step], Layout, Layout | None]:
    """Return the first steps, which share a layout, that layout, and the layout of the rest, if known.

    A step that does not reduce stays with the steps before it. That costs no access to memory: a pointwise
    step does not make the value smaller before it is handed on. The parts of a tensor always belong to the
    input of the first span.
    """
    if spec.dims < 3 and not any(map(_cuts_matrix, spec.steps)):
        return steps, _flat_layout(spec), None
    layout, count = start, 0
    for step in steps:
        wanted = _wanted(spec, step)
        if wanted is not None and layout is not None and wanted != layout:
            break
        layout = layout or wanted
        count += 1
    one = steps[:count]
    if layout is None:
        formulas = any(has_row_functions(s) or (s.op and s.op.classes) for s in one)
        layout = Layout(spec.dims) if formulas else _pointwise(spec, one)
    elif first and spec.splitting and _cuts_rows(spec, layout):
        count = next(n for n, step in enumerate(one) if reduces(step))
        return steps[:count], _pointwise(spec, steps[:count]), layout
    return one, layout, None


def _cuts_matrix(step: Step) -> bool:
    """Whether a step reduces something else than the rows of a matrix: groups of channels, or dim 0."""
    if step.op is None:
        return step.attributes.get("dim") in (0, -2)
    over = (step.attributes[name] for name in step.op.dims)
    return bool(step.op.groups) or any(dim in (0, -2) for dim in over)


def _cuts_rows(spec: Spec, layout: Layout) -> bool:
    """Whether no row of a half is contiguous, or halves alternate along a part of a row."""
    assert spec.splitting is not None
    alternating = spec.splitting.attributes["alternating"] and layout.columns != (-1,)
    return bool(alternating or layout.apart) or spec.halved > layout.first


def _paired_count(spec: Spec, steps: Sequence[Step], layout: Layout) -> int:
    """Return how many of the first steps can be in one span, as far as the halves of a row are concerned.

    Raises:
        SpecError: a step takes the halves of a row, and the row as a whole.
    """
    paired = next((n for n, step in enumerate(steps) if step.paired), None)
    if paired is None:
        return len(steps)
    partition = steps[paired].partition
    whole = next((n for n, step in enumerate(steps) if not _by_halves(step, layout)), len(steps))
    for number, step in enumerate(steps):
        if step.paired and step.partition != partition:
            whole = min(whole, number)
    if whole == paired:
        step = steps[paired]
        message = (
            f"{step.label}: beside the halves of a row it takes a maximum, as softmax, amax and std do, or "
            "reduces other dims than the last: make two steps of it"
        )
        raise SpecError(message, spec.path, step.line)
    return paired if whole < paired else whole


def _by_halves(step: Step, layout: Layout) -> bool:
    """Whether a step's value in each half of a row can be computed from both halves of what it takes.

    It cannot if it reduces other dims than the last, or takes a maximum, or reads a certain column.
    """
    op = step.op
    if op is not None and op.source:
        return True
    if step.split or (
        op is not None and (op.trained or op.groups or op.over in ("inner", "channel"))
    ):
        return False
    formula = step.expr
    found = [p for p in parts(formula) if isinstance(p, (*ROW_FUNCTIONS, Rng, Total))]
    if COLUMN in formula.free_symbols or not all(isinstance(p, RowSum | Total) for p in found):
        return False
    return layout.columns == (-1,) if found else True


def _pointwise(spec: Spec, steps: Sequence[Step]) -> Layout:
    """Return the layout of steps that reduce nothing.

    Operands that list dims best have a number for each row: [batch, channel], or [batch, height, width] of an
    image, if the columns are the channels. Others may be the third axis of rows of one dim.
    """
    rank = spec.dims
    named = {r.name for s in steps for r in s.operands.values() if isinstance(r, Ref)}
    used = [operand for operand in spec.operands if operand.name in named]
    listed = [operand.dims for operand in used if operand.dims is not None]
    halved = -1 if any(step.paired for step in steps) else spec.halved
    choices = [pointwise_layout(rank, (o.kind for o in used), halved)]
    free = all(o.dims or o.kind in (Kind.FULL, Kind.CHANNEL, Kind.SCALAR) for o in used)
    if rank >= 4 and not halved and free:
        choices.append(Layout(rank, CHANNEL_DIM - rank, CHANNEL_DIM - rank))
    choices.append(Layout(choices[0].rank))
    left = [sum(layout.kind_along(d, _OF_ROWS) is None for d in listed) for layout in choices]
    found = [layout for layout, count in zip(choices, left, strict=True) if count == min(left)]
    return found[-1 if min(left) else 0]


def reduces(step: Step) -> bool:
    """Whether a step needs rows of several columns; a sum of all elements does not."""
    if step.op is None:
        return has_row_functions(step)
    op = step.op
    named = any(step.attributes[name] is not None for name in op.dims)
    return bool(named or op.over or op.groups or op.trained)


def _flat_layout(spec: Spec) -> Layout:
    """Return the layout of a chain over the last dim."""
    needy = next((s for s in spec.steps if s.op and s.op.over == "inner"), None)
    if needy is not None:
        raise _needs_inner(spec, needy)
    wide = any(_wants_matrix(s) or (s.op and s.op.over == "channel") for s in spec.steps)
    batch = any(s.op and s.op.trained for s in spec.steps)
    named = any(
        s.attributes.get("dim") == 1 for s in spec.steps if not s.op or s.op.dims or s.split
    )
    by_channel = any(s.by_channel for s in spec.steps)  # of dim 1, as in torch
    return Layout(2 if spec.dims or wide or batch or by_channel or named else 0)


def _needs_inner(spec: Spec, step: Step) -> SpecError:
    """Return the error for a step that needs dims after the channel."""
    return SpecError(
        f"{step.label} needs dims after the channel: start the chain from a convolution, or say "
        "how many dims the activation has (`dims: 4`)",
        spec.path,
        step.line,
    )


def check_grouped(spec: Spec, steps: Sequence[Step], layout: Layout) -> None:
    """Refuse steps and operands that are impossible if a row is a group of channels.

    Raises:
        SpecError: a formula has row functions, or an operand is of rows, or of an image's columns.
    """
    if layout.groups is None:
        return
    for step in steps:
        if has_row_functions(step):
            raise SpecError(
                f"{step.label} reduces over rows, which are {layout.shape} here; give it a dim: "
                "- expr: {formula: ..., dim: ...}",
                spec.path,
                step.line,
            )
    used = {r.name for s in steps for r in s.operands.values() if isinstance(r, Ref)}
    for operand in spec.operands:
        wide = operand.kind is Kind.COL and layout.rank > 2
        if operand.name in used and (operand.kind is Kind.ROW or wide):
            raise SpecError(
                f"{operand.name!r} is of kind {operand.kind.label}, but rows are groups of channels here; "
                "use kind full, channel or scalar",
                spec.path,
                operand.line,
            )


def has_row_functions(step: Step) -> bool:
    """Whether a step is a formula that reduces rows."""
    return step.formula is not None and any(
        isinstance(p, ROW_FUNCTIONS) for p in parts(step.formula)
    )


def _wanted(spec: Spec, step: Step) -> Layout | None:
    """Return the layout that a step needs, or None if any layout will do.

    Raises:
        SpecError: the step takes other activations than the steps before it produce.
    """
    rank = step.dims or (2 if spec.dims < 3 else 0)
    if _wants_matrix(step) and rank >= 3:
        message = f"{step.label} takes rows of a matrix, and the activation has {rank} dims"
        raise SpecError(message, spec.path, step.line)
    op = step.op
    if rank < 2:
        return None  # with a single dim, nothing is left to reduce
    if op is None:
        return _named(rank, step.attributes.get("dim"))
    if op.over == "last":
        return _named(rank, -1)
    if op.over == "inner":
        if rank < 3:
            raise _needs_inner(spec, step)
        return Layout(rank, first=CHANNEL_DIM + 1 - rank)
    if op.groups:
        groups = step.attributes[op.groups]
        groups = groups.name if isinstance(groups, Ref) else groups
        assert isinstance(groups, int | str)
        return Layout(rank, CHANNEL_DIM - rank, -1, groups)
    if op.trained or op.over == "channel":  # the statistics of a batch are those of columns
        return Layout(rank, CHANNEL_DIM - rank, CHANNEL_DIM - rank)
    return next((_named(rank, step.attributes[name]) for name in op.dims), None)


def _named(rank: int, dim: object) -> Layout | None:
    """Return the layout whose rows run along one dim, or several from the end; None if `dim` is no dim."""
    if isinstance(dim, int):
        return Layout(rank, dim % rank - rank, dim % rank - rank)
    return Layout.over(rank, dim) if isinstance(dim, tuple) else None


def _wants_matrix(step: Step) -> bool:
    """Whether a step's torch function means something else if x does not have two dims."""
    by_rows = step.attributes.get("reduction") == "batchmean"
    return step.op is not None and by_rows
