"""Replaces values of a program, and rebuilds everything that depends on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from fusegen.program.ir import Map, Program, Reduce, Take, Value, arguments, topological


def rebuilt(
    program: Program,
    replaced: Mapping[Value, Value],
    given: Collection[Value],
    names: Mapping[Value, str] | None = None,
) -> Program:
    """Return the program with some values replaced by others, which take over their names.

    Args:
        program: the program.
        replaced: the replacement of each value; it may be computed from values of the program.
        given: values that are loaded, and therefore stay as they are.
        names: values that get new names.
    """
    names = names or {}

    def below(value: Value) -> tuple[Value, ...]:
        return () if value in given else arguments(replaced.get(value, value))

    made: dict[Value, Value] = {}
    roots = (*(o.value for o in program.outputs.values()), *program.saved)
    for value in topological(roots, below):
        current = value if value in given else replaced.get(value, value)
        before = below(value)
        after = tuple(made[a] for a in before)
        name = names.get(value, value.name)
        same = current is value and all(a is b for a, b in zip(before, after, strict=True))
        made[value] = (
            value if same and name == value.name else _computed_from(current, before, after, name)
        )
    outputs = {n: replace(o, value=made[o.value]) for n, o in program.outputs.items()}
    return replace(program, outputs=outputs, saved=tuple(made[v] for v in program.saved))


def _computed_from(
    value: Value, before: tuple[Value, ...], after: tuple[Value, ...], name: str
) -> Value:
    """Return the value with a new name, computed from other arguments."""
    if isinstance(value, Map):
        named = {a.symbol: b.symbol for a, b in zip(before, after, strict=True)}
        return replace(value, args=after, name=name, expr=value.expr.xreplace(named))
    assert isinstance(value, Reduce | Take)
    return replace(value, arg=after[0], name=name)
