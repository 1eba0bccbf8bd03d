"""Moves values that depend on columns alone into a kernel that runs before the rows.

A kernel over rows reads a column's operands again for every element of every row. If a value depends on them
through a function (a batch norm's factor is weight rsqrt(var + eps)), a kernel over columns computes it once
per column and hands it on. Operands that only this value reads are then no longer loaded for each element.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from fusegen.lower.kernel.code import Line, Variable
from fusegen.lower.kernel.inputs import Inputs
from fusegen.lower.kernel.kernel import Kernel
from fusegen.lower.kernel.operand import KernelOperand, statistic
from fusegen.lower.kernel.results import Result, Results
from fusegen.lower.schedule import LoweringError
from fusegen.program import Kind


def columns_apart(kernel: Kernel, before: Sequence[Kernel]) -> tuple[Kernel, ...]:
    """Return the kernel over columns, if there is one, and the remaining kernel.

    Args:
        kernel: a kernel.
        before: the kernels that run earlier in the same call; values that they hand on are not computed
            again.

    Raises:
        LoweringError: a result depends on a value whose name an earlier kernel uses for another one.
    """
    inputs = kernel.inputs
    results = tuple(r for r in kernel.results if r.how == "store" and r.kind == Kind.COL)
    dear = kernel.form == "rows" and any(line.code.calls for line in kernel.col_lines)
    lines = _by_target(kernel.col_lines)
    known = _known(lines, before)
    taken = ({r.name for k in before for r in k.results} - known) & set(lines)
    if results and taken:
        raise LoweringError(f"{kernel.name}: {min(taken)} names two values of columns")
    if taken or not (results or dear):
        return (kernel,)
    reads = {name for stage in kernel.stages for name in stage.reads_of("col", "scalar")}
    handed = [name for name in lines if name in reads]
    of_rows = {e.operand.name for e in inputs.taken}  # a row selects one of their elements by index
    unread = [f for f in inputs.col if f.name not in reads and not (f.saved and f.name in of_rows)]
    rest = replace(
        kernel,
        inputs=replace(
            inputs,
            operands=(
                *(f for f in inputs.operands if f not in unread),
                *(statistic(name, Kind.COL, handed=True) for name in handed),
            ),
            aside=(*inputs.aside, *(f for f in unread if f.name in of_rows)),
            indices=tuple(name for name in inputs.indices if name in reads),
        ),
        col_lines=(),
        results=Results(r for r in kernel.results if r not in results),
    )
    own = tuple(r for r in results if r.name not in known)  # the others are stored already
    there = known | {r.name for r in own}
    new = (*own, *(_handed(name) for name in handed if name not in there))
    return (_columns(kernel, new), rest) if new else (rest,)


def _columns(kernel: Kernel, results: tuple[Result, ...]) -> Kernel:
    """Return the kernel over columns that computes some results of a kernel."""
    inputs, values = kernel.inputs, [r.value for r in results]
    lines = _needed(_by_target(kernel.col_lines), _names(values))
    shared = _needed(_by_target(kernel.scalar_lines), _reads(lines))
    reads = _names(values) | _reads((*lines, *shared))
    tensors = [f for f in inputs.operands if f.kind in (Kind.COL, Kind.SCALAR)]
    operands, attributes = _among(tensors, reads), _among(inputs.attributes, reads)
    return Kernel(
        name=f"{kernel.name}_columns",
        inputs=Inputs(
            operands=operands,
            attributes=attributes,
            extents=tuple(name for name in inputs.extents if name in reads),
            indices=tuple(name for name in inputs.indices if name in reads),
        ),
        col_lines=lines,
        scalar_lines=shared,
        results=Results(results),
        signature=", ".join(f"{f.name}: {f.kind.label}" for f in (*operands, *attributes)),
        returns=", ".join(f"{r.name}: col" for r in results),
        sampled=kernel.sampled,
    )


def _by_target(lines: Iterable[Line]) -> dict[str, Line]:
    """Return a map from fields of `Col` or `Scalar` to the lines that set them."""
    return {line.target.name: line for line in lines}


def _among(fields: Iterable[KernelOperand], names: Collection[str]) -> tuple[KernelOperand, ...]:
    """Return the fields that have one of these names."""
    return tuple(f for f in fields if f.name in names)


def _handed(name: str) -> Result:
    """Return the result by which a column's value is handed on."""
    access = statistic(name, Kind.COL).access
    return Result(name, access, None, "store", Variable(name, "col"), 0)


def _names(variables: Iterable[Variable]) -> set[str]:
    """Return the fields of `Col` and `Scalar` among some variables."""
    return {v.name for v in variables if v.struct in ("col", "scalar")}


def _reads(lines: Iterable[Line]) -> set[str]:
    """Return the fields of `Col` and `Scalar` that some lines read."""
    return _names(variable for line in lines for variable in line.code.reads)


def _needed(lines: dict[str, Line], wanted: Collection[str]) -> tuple[Line, ...]:
    """Return the lines that some fields depend on, in their order."""
    needed, left = set(), [name for name in wanted if name in lines]
    while left:
        name = left.pop()
        if name not in needed:
            needed.add(name)
            left += [n for n in _reads([lines[name]]) if n in lines]
    return tuple(line for name, line in lines.items() if name in needed)


def _known(lines: dict[str, Line], before: Sequence[Kernel]) -> set[str]:
    """Return the fields that an earlier kernel handed on, computed in the same way."""
    handed: dict[str, tuple[Line, ...]] = {}
    for kernel in before:
        if kernel.form == "columns":
            theirs = _by_target(kernel.col_lines)
            handed |= {r.name: _needed(theirs, [r.name]) for r in kernel.results}
    return {name for name in lines if handed.get(name) == _needed(lines, [name])}
