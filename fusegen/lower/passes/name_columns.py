"""Gives column values names that differ from the results they fill, because a kernel may hold arrays of both.

A result may hold a single number per column, broadcast to the activation's size. The column's value and the
result would then have the same name. The kernel would write the result into the array of columns, and past
its end.
"""

from __future__ import annotations

from itertools import count

from fusegen.lower.part import Part, Parts
from fusegen.program import Kind, Map, Value
from fusegen.program.rebuild import rebuilt


def name_columns(part: Part) -> Parts:
    """Give new names to column values that fill results."""
    program, given = part.program, part.given
    taken = {v.name for v in program.nodes(given)} | set(program.outputs)
    names: dict[Value, str] = {}
    for name, output in program.outputs.items():
        value = output.value
        if value.kind == Kind.COL and isinstance(value, Map) and output.kind == Kind.FULL:
            names[value] = next(
                made
                for n in count(1)
                if (made := f"{name}_column{n if n > 1 else ''}") not in taken
            )
            taken.add(names[value])
    return part.having(rebuilt(program, {}, given, names) if names else program)
