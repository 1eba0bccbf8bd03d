"""The chain of a spec: each step's op, label, operands, attributes and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fusegen.atoms import partitions
from fusegen.base.activity import doing
from fusegen.ops import Op
from fusegen.program import Kind
from fusegen.spec.bind import bind, taking
from fusegen.spec.columns import columns_problem
from fusegen.spec.constant_arguments import with_constants
from fusegen.spec.cut import cut_of, with_start
from fusegen.spec.dims_of_steps import check_after_product, dims_after, dims_before
from fusegen.spec.dotted_names import check_containers, dotted_name
from fusegen.spec.drafts import Draft, drafts_of, labels_of, settings_of_products, unnamed_of
from fusegen.spec.factor import OF
from fusegen.spec.formula.step import check_op, read_formula
from fusegen.spec.model import INPUT, NO_PART, Argument, Factor, Operand, PartsOf, Step
from fusegen.spec.parts_of_operand import (
    check_parts_used,
    operands_of_parts,
    parts_of_operand,
    taking_apart,
)
from fusegen.spec.parts_of_start import check_parts, check_step_of_parts
from fusegen.spec.row_of_norm import row_of_norm
from fusegen.spec.scope import Names
from fusegen.spec.size import arguments_in
from fusegen.spec.small_values import check_size
from fusegen.spec.widths import sizes_after
from fusegen.spec.yaml import Document

__all__ = ["steps"]

#: The most steps of a chain.
MAX_STEPS = 256


def steps(
    document: Document, arguments: tuple[Argument, ...], operands: tuple[Operand, ...], dims: int
) -> tuple[tuple[Step, ...], tuple[Operand, ...], int, tuple[PartsOf, ...]]:
    """Return the steps of a spec's chain, its operands, the activation's number of dims, or 0, and what steps
    take apart.

    If a step after a source uses the chain's input, the input is an operand.

    Args:
        document: the spec.
        arguments: its arguments.
        operands: its operands; each must be used by some step.
        dims: the number of dims that the spec states, or 0.

    Raises:
        SpecError: for the first mistake in the chain.
    """
    chain: list[Any] = document.data["chain"] or []
    if not chain:
        raise document.error(("chain",), "the chain is empty: it needs at least one step")
    if len(chain) > MAX_STEPS:
        message = (
            f"the chain has {len(chain)} steps; at most {MAX_STEPS}: make several chains of it"
        )
        raise document.error(("chain", MAX_STEPS), message)
    drafts = _drafts(document, arguments, chain)
    labels = labels_of(
        document, drafts, [*(a.name for a in arguments), *(o.name for o in operands)]
    )
    source = drafts[0].op if drafts[0].op is not None and drafts[0].op.source else None
    _check_dims(document, source, dims)
    dims = dims or (source.rank if source is not None else 0)
    declared = {o.name: o for o in operands}
    sourced = source is not None or drafts[0].takes_sizes
    if sourced:
        declared[INPUT] = Operand(INPUT, Kind.FULL, None, None, document.line(drafts[0].place))
    # A parameter may have the name of the argument that it starts with, and is what steps mean by it.
    seen = {a.name: a for a in arguments if a.name not in declared}
    names = Names(document, seen, declared, dims, of_products=settings_of_products(drafts))
    values = () if sourced else (INPUT,)
    done: list[Step] = []
    of_drafts: list[Draft] = []
    apart: dict[str, tuple[Draft, PartsOf]] = {}
    for number, (draft, label) in enumerate(zip(drafts, labels, strict=True)):
        doing(f"reading step {number + 1}")
        unnamed = unnamed_of(drafts, labels, number)
        names = replace(names, values=values, unnamed=unnamed, operands=declared)
        if taken := parts_of_operand(names, draft, label, done):
            declared |= operands_of_parts(taken, declared, document.line(draft.place))
            apart[label], names = (draft, taken), replace(names, operands=declared)
            draft = draft.without_parts()
        if cut := cut_of(names, draft, label):
            done.append(cut)
            names = replace(names, values=(*values, *draft.parts))
        if done and draft.op is not None and draft.op.source:
            dims_there = _dims_of_source(names, draft, draft.op)
            names = replace(names, dims=dims_there, taken=_arguments_taken(done))
        step = _step(names, draft, label, done)
        step = taking_apart(step, taken, values) if taken else step
        check_after_product(document, draft.place, step, done, dims)
        check_size(document, draft.place, step, done, declared)
        done += with_start(step, done, declared, dims)
        of_drafts += [draft] * (len(done) - len(of_drafts))
        names = replace(names, dims=dims_after(done[-1]))
        parts = draft.parts if cut else [part for part in step.parts if part != NO_PART]
        values = (*values, *parts, *([label] if draft.named else []))
    check_parts(document, of_drafts, done)
    _check_made(document, of_drafts, done, [*arguments, *operands])
    check_containers(document, [draft.place for draft in of_drafts], done, [*arguments, *operands])
    used = _used_operands(document, done, arguments, operands)
    check_parts_used(names, apart, used)
    kept = tuple(o for o in declared.values() if o.name in used or o.unused)
    return tuple(done), kept, dims, tuple(cut for _, cut in apart.values())


def _drafts(document: Document, arguments: Sequence[Argument], chain: Sequence[Any]) -> list[Draft]:
    """Return the drafts of the steps, with the values of arguments that can have no other."""
    constants = {a.name: a.only for a in arguments if a.only is not None}
    return drafts_of(document, [with_constants(item, constants) for item in chain])


def _check_dims(document: Document, source: Op | None, dims: int) -> None:
    """Refuse a number of dims that the first step, if it is a source, does not give.

    Raises:
        SpecError: it gives another.
    """
    fits = source is None or source.rank in (0, dims) or (source.matrix and dims == 2)
    if dims and source is not None and not fits:
        message = f"dims is {dims}, but {source.name} gives an activation of {source.rank} dims"
        raise document.error(("dims",), message)


def _used_operands(
    document: Document,
    chain: Sequence[Step],
    arguments: Sequence[Argument],
    operands: Sequence[Operand],
) -> set[str]:
    """Return the operands that steps use.

    Raises:
        SpecError: one is used and should not be, or the other way, or does not fit rows of a matrix.
    """
    used = {
        name for step in chain for name in (*step.tensors, *(f.name for f in step.factors.values()))
    }
    for operand in operands:
        if (operand.name in used) == operand.unused:
            message = f"the operand {operand.name!r} is declared but no step of the chain uses it"
            if operand.unused:
                message = f"a step uses {operand.name!r}: drop unused"
            elif operand.init is not None:
                message += "; `unused: true` keeps a parameter for the state_dict"
            raise document.error(("operands", operand.name), message)
        matrix = any(operand.name in step.tensors and step.dims < 3 for step in chain)
        if matrix and (wrong := columns_problem(operand, arguments, -1, -1)):
            raise document.error(("operands", operand.name, "shape"), wrong)
    return used


def _dims_of_source(names: Names, draft: Draft, op: Op) -> int:
    """Return the number of dims of what a source after other steps gives, or 0 for any.

    Raises:
        SpecError: it takes another number than reaches it.
    """
    start = draft.given.get(OF) if isinstance(draft.given, dict) else None
    if start is None and op.rank and names.dims >= 3 and names.dims != op.rank:
        message = f"{draft.word} takes {op.rank} dims, and what reaches it has {names.dims}"
        raise names.document.error(draft.place, message)
    of_matrix = op.matrix or (not op.rank and not op.takes_only_x and not op.inputs)
    return 2 if start is None and of_matrix and names.dims == 2 else op.rank


def _arguments_taken(before: Sequence[Step]) -> frozenset[str]:
    """Return the arguments that are sizes of sources."""
    sizes = (size for step in before if step.is_source for size in step.settings.values())
    return frozenset(name for size in sizes for name in arguments_in(size))


def _check_made(
    document: Document,
    drafts: Sequence[Draft],
    chain: Sequence[Step],
    declared: Sequence[Argument | Operand],
) -> None:
    """Refuse a name that the package derives from a step's name: a function would have it twice.

    Raises:
        SpecError: if an argument, an operand or a step has it.
    """
    made = {
        f"{step.label}_{attribute}": f"apply calls the {attribute} of {step.label} so"
        for step in chain
        for attribute in step.state.values()
    }
    forward = {
        name: f"Module.forward calls what {step.label} takes so"
        for step in chain
        for name in (step.op.inputs if step.op else ())
        if name not in step.factors
    }
    for given in declared:
        section = "arguments" if isinstance(given, Argument) else "operands"
        of_forward = isinstance(given, Operand) and given.init is None
        reason = made.get(given.name) or (forward.get(given.name) if of_forward else None)
        if reason:
            message = f"{given.name!r} cannot be a name here: {reason}; choose another"
            raise document.error((section, given.name), message)
    for draft, step in zip(drafts, chain, strict=True):
        if step.label in made:
            message = f"{step.label!r} cannot be a name here: {made[step.label]}; choose another"
            raise document.error(draft.place, message)


def _step(names: Names, draft: Draft, label: str, before: Sequence[Step]) -> Step:
    line = names.document.line(draft.place)
    if draft.op is None:
        read = read_formula(names, draft.place, draft.given)
        step = Step(
            label=label,
            op=read.op,
            formula=None if read.op else read.expr,
            text=read.text,
            operands=read.refs,
            attributes=read.dims,
            settings={},
            line=line,
            dims=names.dims,
            parts=read.parts,
            factors={OF: Factor(read.start)} if read.start else {},
        )
        start = dims_before(step, before)
        if start != names.dims:
            return _step(replace(names, dims=start), draft, label, before)
        check_step_of_parts(names.document, draft, step, before)
        if len(partitions(step.expr)) > 1:
            message = "the formula cuts a row in two ways, as halves and as neighbours: make two steps of it"
            raise names.document.error(draft.place, message)
        return step
    sizes = sizes_after(_reaching(draft, before))
    if draft.op.submodule is not None and draft.op.submodule.row_shape and names.dims >= 3:
        sizes = {name: size for name, size in sizes.items() if name != "features"}
    op = taking(names, draft.op, draft.given)
    bound = bind(names, draft.place, op, draft.given, sizes)
    named = isinstance(draft.given, dict) and "dim" in draft.given
    row_of_norm(names, draft.place, op, bound, named=named)
    check_op(names, draft.place, op, bound)
    step = Step(
        label=label,
        op=op,
        formula=None,
        text=bound.text,
        operands=bound.operands,
        attributes=bound.attributes,
        settings=bound.settings,
        line=line,
        dims=names.dims,
        float32=bound.float32,
        dotted=dotted_name(draft.given),
        factors=bound.factors,
    )
    check_step_of_parts(names.document, draft, step, before)
    return step


def _reaching(draft: Draft, before: Sequence[Step]) -> Sequence[Step]:
    """Return the steps up to the value that a step starts from."""
    start = draft.given.get(OF) if isinstance(draft.given, dict) else None
    if start is None or draft.op is None or not draft.op.source:
        return before
    place = next((n for n, step in enumerate(before, 1) if step.label == start), 0)
    return before[:place]
