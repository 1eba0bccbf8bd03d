"""Cuts a program at sums over rows in its middle: one kernel computes them, and the next continues.

Here, a value's depth is the number of sums over the whole grid that must finish one after another before the
value is known. Part n of a program computes the values of depth n for every element, and the sums that depth
n + 1 waits for. Finished sums are operands of later parts. Nothing else is handed on: values of a smaller
depth that an element needs are recomputed. A sum over a sample gets a part of its own, which runs only over
the sample's rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fusegen.lower.part import Part, Parts
from fusegen.lower.reductions import over_grid
from fusegen.program import Kind, Map, Output, Program, Reduce, Value, arguments, depths


def cut_at_sums(part: Part) -> Parts:
    """Return the parts in the order in which they run; usually there is only one."""
    program, given = part.program, part.given
    depth_of = depths(program, given, over_grid)
    sums = [v for v in depth_of if over_grid(v) and v not in given]
    homes = {n: _home(o, depth_of, given) for n, o in program.outputs.items()}
    saved_in = {v: depth_of[v] - (v in sums) for v in program.saved}
    last = max([*homes.values(), *saved_in.values()], default=0)
    awaited = _awaited(program, given, depth_of, homes, saved_in, sums)
    parts: list[Part] = []
    for depth in range(last + 1):
        known = (*given, *(v for v in sums if depth_of[v] <= depth))
        left = [
            v for v in sums if depth_of[v] == depth + 1 and (v in awaited or v in program.saved)
        ]
        rows = [v for v in program.saved if v not in sums and depth_of[v] == depth]
        sampled = tuple(v for v in left if isinstance(v, Reduce) and v.sample)
        outputs = {n: o for n, o in program.outputs.items() if homes[n] == depth}
        saved = tuple(v for v in (*rows, *left) if v not in sampled)
        if sampled:
            name = _name(program, "sample", parts)
            parts.append(_part(part, name, {}, sampled, known))
        if outputs or saved:
            name = program.name if depth == last else _name(program, "sums", parts)
            parts.append(_part(part, name, outputs, saved, known))
    return tuple(parts)


def _name(program: Program, what: str, before: list[Part]) -> str:
    """Return a part's name: `backward_sums`, or `backward_sums2` if that name is taken."""
    base = f"{program.name}_{what}"
    count = 1 + sum(p.program.name.startswith(base) for p in before)
    return base if count == 1 else f"{base}{count}"


def _part(
    whole: Part,
    name: str,
    outputs: dict[str, Output],
    saved: tuple[Value, ...],
    given: tuple[Value, ...],
) -> Part:
    """Return a part with some of the whole part's outputs and saved values."""
    program = whole.program
    notes = program.notes if name == program.name else ()
    piece = Program(name, program.inputs, outputs, saved, notes)
    return replace(whole, program=piece, given=given)


def _home(output: Output, depth_of: dict[Value, int], given: Collection[Value]) -> int:
    """Return the part that computes an output.

    Sums, and values that depend on them, belong to the part that sums.

    A single number that fills many elements is stored by a later part, because it is known only when all
    elements are done.
    """
    value = output.value
    follows = isinstance(value, Map) and value.kind == Kind.SCALAR
    spread = output.kind != value.kind
    if value not in given and not spread and (over_grid(value) or follows):
        return max(0, depth_of[value] - 1)
    return depth_of[value]


def _awaited(
    program: Program,
    given: Collection[Value],
    depth_of: dict[Value, int],
    homes: dict[str, int],
    saved_in: dict[Value, int],
    sums: Sequence[Value],
) -> set[Value]:
    """Return the sums that a later part reads."""
    found: set[Value] = set()
    seen: set[tuple[Value, int]] = set()
    stack = [(o.value, homes[n]) for n, o in program.outputs.items()]
    stack += list(saved_in.items())
    while stack:
        value, part = stack.pop()
        if (value, part) in seen:
            continue
        seen.add((value, part))
        if value in sums and depth_of[value] <= part:
            found.add(value)
            part = depth_of[value] - 1
        stack += [(a, part) for a in arguments(value) if a not in given]
    return found
