"""Names a column's value apart from the result that it fills: a kernel may hold arrays of both.

A result of which each column has one number is that value, made as large as the activation. Both would have
the result's name, and the kernel would write to the array of the columns, and over what lies behind it.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import count

from fusegen.program import Kind, Map, Program, Value
from fusegen.program.rebuild import rebuilt


def name_columns_apart(program: Program, given: Collection[Value]) -> Program:
    """Return the program with names of their own for columns' values that results are made of.

    Args:
        program: the program.
        given: values of it that are loaded, not computed.
    """
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
    return rebuilt(program, {}, given, names) if names else program
