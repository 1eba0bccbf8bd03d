"""Names a column's value apart from the result that it fills: a kernel may hold arrays of both.

A result of which each column has one number is that value, made as large as the activation. Both would have
the result's name, and the kernel would write to the array of the columns, and over what lies after it.
"""

from __future__ import annotations

from itertools import count

from fusegen.lower.part import Part, Parts
from fusegen.program import Kind, Map, Value
from fusegen.program.rebuild import rebuilt


def name_columns(part: Part) -> Parts:
    """Give columns' values that results are made of names of their own."""
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
