"""Collects the inputs of a part's kernel: those that its schedule reads, by kind and source."""

from __future__ import annotations

from collections.abc import Collection

from fusegen.lower.kernel.inputs import Inputs
from fusegen.lower.kernel.operand import Element, KernelOperand, statistic
from fusegen.lower.schedule import LoweringError, Schedule
from fusegen.program import Input, Kind, Program, Take, arguments, describe

__all__ = ["inputs_of"]


def inputs_of(program: Program, plan: Schedule) -> Inputs:
    """Return the inputs that a program's schedule reads.

    Raises:
        LoweringError: an element is selected by index from an operand with one number per channel.
    """
    needed = {v.name for v in plan.needed}
    read = _with_neighbours(program, _read(program, plan))
    tensors = _tensors(program, needed | read)
    of_columns = [f for f in tensors if Kind.COL in f.kind]
    aside = tuple(f for f in of_columns if f.name not in read)
    return Inputs(
        operands=(
            *(f for f in tensors if f not in aside),
            *(statistic(v.name, v.kind) for v in plan.given),
        ),
        taken=_taken(program, plan, of_columns),
        aside=aside,
        attributes=(*_sourced(plan, "attribute"), *_sourced(plan, "presence")),
        rng=_sourced(plan, "random"),
        extents=tuple(f.name for f in _sourced(plan, "extent")),
        indices=tuple(f.name for f in _sourced(plan, "index")),
    )


def _read(program: Program, plan: Schedule) -> set[str]:
    """Return the names of values that are read as a whole, not only by index."""
    users = (v for v in plan.needed if v not in plan.given and not isinstance(v, Take))
    read = {a.name for user in users for a in arguments(user)}
    return read | {o.value.name for o in program.outputs.values()}


def _with_neighbours(program: Program, read: Collection[str]) -> set[str]:
    """Return the names of inputs, and those whose columns alternate with theirs: vectors have both."""
    full = (i for i in program.inputs if i.kind == Kind.FULL)
    paired = {i.name: i.tensor for i in full if i.access.step > 1}
    tensors = {paired[name] for name in read if name in paired}
    return {*read, *(name for name, tensor in paired.items() if tensor in tensors)}


def _tensors(program: Program, names: Collection[str]) -> tuple[KernelOperand, ...]:
    """Return the tensor inputs with these names, in the program's order."""
    inputs = (i for i in program.inputs if i.source == "tensor" and i.name in names)
    return tuple(KernelOperand(i.name, i.kind, i.access) for i in inputs)


def _sourced(plan: Schedule, source: str) -> tuple[KernelOperand, ...]:
    """Return the inputs from a source that the schedule reads."""
    found = (v for v in plan.needed if isinstance(v, Input) and v.source == source)
    return tuple(KernelOperand(v.name, v.kind, v.access, v.stream) for v in found)


def _taken(
    program: Program, plan: Schedule, tensors: Collection[KernelOperand]
) -> tuple[Element, ...]:
    """Return the elements of rows that are loaded by index."""
    operands = {f.name: f for f in (*tensors, *_sourced(plan, "random"))}
    found = []
    for value in plan.needed:
        if not isinstance(value, Take):
            continue
        operand = operands.get(value.arg.name, statistic(value.arg.name, value.arg.kind))
        if operand.spread:
            raise LoweringError(f"{program.name}: {describe(value)} takes of one number a channel")
        found.append(Element(value.name, operand, value.index.name))
    return tuple(found)
