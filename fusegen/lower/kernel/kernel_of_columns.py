"""Takes what follows from columns alone out of a kernel, into one that runs before it.

A kernel over rows reads the operands of a column anew for every element of every row. What follows from
them by a function (a batch norm's factor is weight rsqrt(var + eps)) is computed for each column once, in a
kernel over columns, and handed on; the operands that only this reads are not loaded beside each element.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from fusegen.lower.kernel.kernel import Kernel
from fusegen.lower.kernel.stage import Field, Line, Result
from fusegen.lower.schedule import LoweringError
from fusegen.program import Kind

_FIELD = re.compile(r"\b(?:col|scalar)\.(\w+)")


def columns_apart(kernel: Kernel, before: Sequence[Kernel]) -> tuple[Kernel, ...]:
    """Return the kernel over columns, where there is one, and the kernel that is left.

    Args:
        kernel: a kernel.
        before: those that run before it in the same call; what they hand on is not computed again.

    Raises:
        LoweringError: where a result follows from what has the name of something else before it.
    """
    results = tuple(r for r in kernel.results if r.how == "store" and r.kind == Kind.COL)
    dear = kernel.form == "rows" and any(line.calls for line in kernel.col_lines)
    lines = _by_field(kernel.col_lines)
    known = _known(lines, before)
    taken = ({r.name for k in before for r in k.results} - known) & set(lines)
    if results and taken:
        raise LoweringError(f"{kernel.name}: {min(taken)} names two values of columns")
    if taken or not (results or dear):
        return (kernel,)
    reads = _read(code for stage in kernel.stages for code in stage.element_code)
    handed = [name for name in lines if name in reads]
    of_rows = {e.operand.name for e in kernel.taken}  # a row takes an element of them, by its index
    rest = replace(
        kernel,
        col=_among(kernel.col, reads),
        aside=(*kernel.aside, *(f for f in kernel.col if f.name in of_rows - reads)),
        saved=(
            *(f for f in kernel.saved if f.kind != Kind.COL or f.name in reads | of_rows),
            *(Field(name, Kind.COL, handed=True) for name in handed),
        ),
        indices=tuple(name for name in kernel.indices if name in reads),
        col_lines=(),
        results=tuple(r for r in kernel.results if r not in results),
    )
    there = known | {r.name for r in results}
    new = tuple(_handed(name) for name in handed if name not in there)
    return (_columns(kernel, (*results, *new)), rest) if results or new else (rest,)


def _columns(kernel: Kernel, results: tuple[Result, ...]) -> Kernel:
    """Return the kernel over columns that leaves some results of a kernel."""
    lines = _below(_by_field(kernel.col_lines), _read(r.code for r in results))
    shared = _below(_by_field(kernel.scalar_lines), _read(line.code for line in lines))
    reads = _read([*(r.code for r in results), *(line.code for line in (*lines, *shared))])
    loaded = (*kernel.col, *kernel.scalar, *kernel.saved, *kernel.attributes)
    return Kernel(
        name=f"{kernel.name}_columns",
        full=(),
        spread=(),
        col=_among(kernel.col, reads),
        row=(),
        scalar=_among(kernel.scalar, reads),
        taken=(),
        aside=(),
        saved=_among((f for f in kernel.saved if f.kind != Kind.ROW), reads),
        attributes=_among(kernel.attributes, reads),
        random=(),
        extents=tuple(name for name in kernel.extents if name in reads),
        indices=tuple(name for name in kernel.indices if name in reads),
        col_lines=lines,
        scalar_lines=shared,
        stages=(),
        final_lines=(),
        results=results,
        fitted=(),
        comment=(),
        signature=", ".join(f"{f.name}: {f.kind.label}" for f in _among(loaded, reads)),
        returns=", ".join(f"{r.name}: col" for r in results),
        sampled=kernel.sampled,
    )


def _by_field(lines: Iterable[Line]) -> dict[str, Line]:
    """Return lines by the field that each sets: `col.name` or `scalar.name`."""
    return {line.name.partition(".")[2]: line for line in lines}


def _among(fields: Iterable[Field], names: Collection[str]) -> tuple[Field, ...]:
    return tuple(f for f in fields if f.name in names)


def _handed(name: str) -> Result:
    return Result(name, Kind.COL, None, "store", f"col.{name}", 0)


def _read(code: Iterable[str]) -> set[str]:
    """Return the fields of `Col` and `Scalar` that lines of code read."""
    return {name for text in code for name in _FIELD.findall(text)}


def _below(lines: dict[str, Line], wanted: Collection[str]) -> tuple[Line, ...]:
    """Return the lines that some fields follow from, in their order."""
    needed, left = set(), [name for name in wanted if name in lines]
    while left:
        name = left.pop()
        if name not in needed:
            needed.add(name)
            left += [n for n in _read([lines[name].code]) if n in lines]
    return tuple(line for name, line in lines.items() if name in needed)


def _known(lines: dict[str, Line], before: Sequence[Kernel]) -> set[str]:
    """Return the fields that a kernel before has handed on, computed in the same way."""
    handed: dict[str, tuple[Line, ...]] = {}
    for kernel in before:
        if kernel.form == "columns":
            theirs = _by_field(kernel.col_lines)
            handed |= {r.name: _below(theirs, [r.name]) for r in kernel.results}
    return {name for name in lines if handed.get(name) == _below(lines, [name])}
