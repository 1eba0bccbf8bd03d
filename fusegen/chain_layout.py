"""Which dims of the activation are a chain's rows and columns, from what its steps reduce over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fusegen.atoms import ROW_FUNCTIONS
from fusegen.errors import SpecError
from fusegen.layout import CHANNEL_DIM, Layout, pointwise_layout
from fusegen.program import Kind
from fusegen.spec_types import Ref, Spec, Step


def layout_of(spec: Spec) -> Layout:
    """Return the layout that the steps' dims ask for.

    Raises:
        SpecError: where two steps reduce over different dims, one takes a matrix alone, or halves lie within
            a row.
    """
    layout, step = _layout(spec), spec.halving
    if step is None:
        return layout
    if spec.halved > layout.first:
        dim = layout.rank + spec.halved
        raise SpecError(
            f"{step.label} halves dim {dim}, but the chain's rows run over {layout.shape}: halve the first "
            "of these or a dim in front of them, or end the chain there",
            spec.path,
            step.line,
        )
    return replace(layout, halved=spec.halved)


def _layout(spec: Spec) -> Layout:
    grouped = [s for s in spec.steps if s.op and s.op.groups]
    if grouped:
        return _grouped_layout(spec, grouped)
    wide = [s for s in spec.steps if _wants_matrix(s)]
    if spec.dims >= 3 and wide:
        message = f"{wide[0].label} takes rows of a matrix, and the activation has {spec.dims} dims"
        raise SpecError(message, spec.path, wide[0].line)
    every = [(s, s.attributes[d]) for s in spec.steps if s.op for d in s.op.dims]
    dims = [(step, dim) for step, dim in every if dim is not None]
    if spec.dims < 3:
        needy = next((s for s in spec.steps if s.op and s.op.over == "inner"), None)
        if needy is not None:
            raise SpecError(
                f"{needy.label} needs dims behind the channel: start the chain from a convolution, or say "
                "how many dims the activation has (`dims: 4`)",
                spec.path,
                needy.line,
            )
        batch = any(s.op and s.op.trained for s in spec.steps)
        halves = spec.halving is not None and spec.halving.attributes["dim"] == 1
        by_channel = any(s.by_channel for s in spec.steps)  # of dim 1, as torch has it
        named = halves or any(dim == 1 for _, dim in dims)
        two = spec.dims or wide or batch or by_channel or named
        return Layout(2 if two else 0)
    asked = [(s, _over(s, spec.dims)) for s in spec.steps]
    found: Layout | None = None
    for step, layout in asked:
        if layout is None:
            continue
        if found is not None and layout != found:
            raise SpecError(
                f"{step.label} reduces over {layout.shape}, but an earlier step over {found.shape}: one "
                "kernel reduces over the same dims throughout; split the chain into two specs there",
                spec.path,
                step.line,
            )
        found = layout
    if found is None and any(map(_has_row_functions, spec.steps)):
        return Layout(spec.dims)
    return found or pointwise_layout(spec.dims, (o.kind for o in spec.operands), spec.halved)


def _grouped_layout(spec: Spec, grouped: Sequence[Step]) -> Layout:
    """Return the layout of a chain in which a row is a group of channels.

    Raises:
        SpecError: where another step reduces over something else.
    """
    rank = spec.dims or 2
    found: Layout | None = None
    for step in spec.steps:
        wanted = None
        if step in grouped:
            assert step.op is not None
            groups = step.attributes[step.op.groups]
            groups = groups.name if isinstance(groups, Ref) else groups
            assert isinstance(groups, int | str)
            wanted = Layout(rank, CHANNEL_DIM - rank, -1, groups)
        elif _over(step, rank) is not None or _wants_matrix(step) or _has_row_functions(step):
            raise SpecError(
                f"{step.label} reduces over other dims than {grouped[0].label}, whose rows are groups of "
                "channels; split the chain into two specs there",
                spec.path,
                step.line,
            )
        if wanted is not None and found is not None and wanted != found:
            message = f"{step.label} has {wanted.shape}, but an earlier step {found.shape}"
            raise SpecError(
                f"{message}; split the chain into two specs there", spec.path, step.line
            )
        found = found or wanted
    for operand in spec.operands:
        if operand.kind is Kind.ROW or (operand.kind is Kind.COL and rank > 2):
            raise SpecError(
                f"{operand.name!r} is of kind {operand.kind.label}, but rows are groups of channels here; "
                "use kind full, channel or scalar",
                spec.path,
                operand.line,
            )
    assert found is not None
    return found


def _has_row_functions(step: Step) -> bool:
    return step.formula is not None and step.formula.has(*ROW_FUNCTIONS)


def _over(step: Step, rank: int) -> Layout | None:
    """Return the layout that a step needs, or None if it goes with any."""
    if step.op is None:
        return None
    if step.op.over == "last":
        return Layout(rank)
    if step.op.over == "inner":
        return Layout(rank, first=CHANNEL_DIM + 1 - rank)
    if step.op.trained:  # its statistics are those of columns
        return Layout(rank, CHANNEL_DIM - rank, CHANNEL_DIM - rank)
    for name in step.op.dims:
        dim = step.attributes[name]
        if isinstance(dim, int):
            return Layout(rank, dim % rank - rank, dim % rank - rank)
        if isinstance(dim, tuple):
            return Layout(rank, dim[0], dim[-1])
    return None


def _wants_matrix(step: Step) -> bool:
    """Whether a step's torch function means something else where x has not two dims."""
    by_rows = step.attributes.get("reduction") == "batchmean"
    return step.op is not None and (step.op.matrix or by_rows)
